/// Mistral: Llama with a sliding window (Jiang et al. 2023, arXiv:2310.06825).
enum Mistral: Architecture {
  static let modelTypes = ["mistral"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let hiddenSize = try config.size("hidden_size")
    let contextLength = try config.optionalSize("max_position_embeddings") ?? 131_072
    var decoder = GatedDecoder(
      hiddenSize: hiddenSize, heads: try config.heads(hiddenSize: hiddenSize),
      intermediateSize: try config.size("intermediate_size"),
      epsilon: try config.number("rms_norm_eps", default: 1e-6))
    decoder.activation = try config.activation("hidden_act", default: "silu")
    let rotary = try config.rotary(headDim: decoder.headDim, contextLength: contextLength)
    let layers = try config.size("num_hidden_layers")
    // null switches the window off; absent means the family's first value.
    let window = config.fields["sliding_window"] == nil ? 4096 : nil
    let stated = try config.optionalSize("sliding_window")
    let windows = try config.slidingLayers(count: layers, window: stated ?? window) { _ in true }
    return decoder.model(
      "mistral", vocabularySize: try config.size("vocab_size"), contextLength: contextLength,
      blocks: (0..<layers).map { decoder.block($0, rotary: rotary, window: windows[$0]) },
      tied: try config.bool("tie_word_embeddings", default: false))
  }
}
