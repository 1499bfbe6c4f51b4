#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// BLOOM: ALiBi instead of positions, a norm after the embedding, queries, keys and values
/// interleaved by head (Le Scao et al. 2022, arXiv:2211.05100).
enum BLOOM: Architecture {
  static let modelTypes = ["bloom"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let hiddenSize = try config.either("hidden_size", "n_embed")
    let heads = try config.either("n_head", "num_attention_heads")
    let decoder = try LayerNormDecoder(
      hiddenSize: hiddenSize, heads: heads,
      epsilon: try config.number("layer_norm_epsilon", default: 1e-5), activation: .geluTanh,
      headsField: "n_head", config: config)
    let residualIsNormed = try config.bool(
      "apply_residual_connection_post_layernorm", default: false)
    _ = try config.optionalInteger("seq_length")
    _ = try config.optionalInteger("offset_alibi")

    let blocks = (0..<(try config.either("n_layer", "num_hidden_layers"))).map { index in
      let name = "transformer.h.\(index)"
      var attention = decoder.attention(
        layout: .perHead,
        inputs: [
          decoder.linear(
            "\(name).self_attention.query_key_value", .queryKeyValue, 3 * hiddenSize, hiddenSize)
        ],
        output: "\(name).self_attention.dense")
      attention.alibiSlopes = alibiSlopes(heads: heads)
      return BlockConfiguration(
        name: name, attention: attention,
        feedForward: decoder.feedForward(
          up: "\(name).mlp.dense_h_to_4h", down: "\(name).mlp.dense_4h_to_h",
          intermediateSize: 4 * hiddenSize),
        attentionNorms: BranchNorms(before: decoder.norm("\(name).input_layernorm")),
        feedForwardNorms: BranchNorms(before: decoder.norm("\(name).post_attention_layernorm")),
        residualIsNormed: residualIsNormed)
    }
    return ModelConfiguration(
      modelType: "bloom", vocabularySize: try config.size("vocab_size"), hiddenSize: hiddenSize,
      contextLength: nil,
      embedding: EmbeddingConfiguration(
        name: "transformer.word_embeddings", width: hiddenSize,
        norm: decoder.norm("transformer.word_embeddings_layernorm")),
      blocks: blocks, finalNorm: decoder.norm("transformer.ln_f"),
      head: HeadConfiguration(
        name: "lm_head", isTied: try config.bool("tie_word_embeddings", default: true)),
      endTokens: [], basePrefix: "transformer.")
  }

  /// A geometric sequence over the largest power of two of heads; the remaining heads take every
  /// other term of the sequence for twice as many (Press et al. 2022, arXiv:2108.12409).
  static func alibiSlopes(heads: Int) -> [Float] {
    var power = 1
    while power * 2 <= heads { power *= 2 }
    let base = pow(2, -8 / Double(power))
    let extra = pow(2, -8 / Double(2 * power))
    return (1...power).map { Float(pow(base, Double($0))) }
      + (0..<(heads - power)).map { Float(pow(extra, Double(2 * $0 + 1))) }
  }
}

extension ConfigReader {
  /// A size that older configs spell differently.
  fileprivate mutating func either(_ name: String, _ older: String) throws(ModelError) -> Int {
    let fallback = try optionalSize(older)
    if let value = try optionalSize(name) ?? fallback { return value }
    throw .missingField(name, path: path)
  }
}
