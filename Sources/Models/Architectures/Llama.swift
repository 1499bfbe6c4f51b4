/// Llama 2 and 3 (Touvron et al. 2023, arXiv:2307.09288; Grattafiori et al. 2024, arXiv:2407.21783).
enum Llama: Architecture {
  static let modelTypes = ["llama"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let hiddenSize = try config.size("hidden_size")
    let contextLength = try config.optionalSize("max_position_embeddings") ?? 2048
    var decoder = GatedDecoder(
      hiddenSize: hiddenSize, heads: try config.heads(hiddenSize: hiddenSize),
      intermediateSize: try config.size("intermediate_size"),
      epsilon: try config.number("rms_norm_eps", default: 1e-6))
    decoder.activation = try config.activation("hidden_act", default: "silu")
    decoder.queryKeyValueBias = try config.bool("attention_bias", default: false)
    decoder.outputBias = decoder.queryKeyValueBias
    decoder.feedForwardBias = try config.bool("mlp_bias", default: false)
    let rotary = try config.rotary(headDim: decoder.headDim, contextLength: contextLength)
    return decoder.model(
      "llama", vocabularySize: try config.size("vocab_size"), contextLength: contextLength,
      blocks: (0..<(try config.size("num_hidden_layers"))).map {
        decoder.block($0, rotary: rotary)
      },
      tied: try config.bool("tie_word_embeddings", default: false))
  }
}
