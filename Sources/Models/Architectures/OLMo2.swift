/// OLMo 2: norms on each branch's output only, and over all queries and keys together
/// (arXiv:2501.00656).
enum OLMo2: Architecture {
  static let modelTypes = ["olmo2"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let hiddenSize = try config.size("hidden_size")
    let contextLength = try config.optionalSize("max_position_embeddings") ?? 2048
    var decoder = GatedDecoder(
      hiddenSize: hiddenSize, heads: try config.heads(hiddenSize: hiddenSize),
      intermediateSize: try config.size("intermediate_size"),
      epsilon: try config.number("rms_norm_eps", default: 1e-5))
    decoder.activation = try config.activation("hidden_act", default: "silu")
    decoder.norms = .output
    decoder.queryKeyNorm = .whole
    decoder.queryKeyValueBias = try config.bool("attention_bias", default: false)
    decoder.outputBias = decoder.queryKeyValueBias
    let rotary = try config.rotary(headDim: decoder.headDim, contextLength: contextLength)
    return decoder.model(
      "olmo2", vocabularySize: try config.size("vocab_size"), contextLength: contextLength,
      blocks: (0..<(try config.size("num_hidden_layers"))).map {
        decoder.block($0, rotary: rotary)
      },
      tied: try config.bool("tie_word_embeddings", default: false))
  }
}
