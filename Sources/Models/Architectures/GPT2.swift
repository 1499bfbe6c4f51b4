/// GPT-2: learned positions, matrices stored `[in, out]` (Radford et al. 2019).
enum GPT2: Architecture {
  static let modelTypes = ["gpt2"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let hiddenSize = try config.size("n_embd")
    let contextLength = try config.optionalSize("n_positions") ?? 1024
    let intermediateSize = try config.optionalSize("n_inner") ?? 4 * hiddenSize
    var decoder = try LayerNormDecoder(
      hiddenSize: hiddenSize, heads: try config.size("n_head"),
      epsilon: try config.number("layer_norm_epsilon", default: 1e-5),
      activation: try config.activation("activation_function", default: "gelu_new"),
      headsField: "n_head", config: config)
    decoder.isTransposed = true
    let scalesScores = try config.bool("scale_attn_weights", default: true)
    let scalesByLayer = try config.bool("scale_attn_by_inverse_layer_idx", default: false)

    let blocks = (0..<(try config.size("n_layer"))).map { index in
      let name = "transformer.h.\(index)"
      var attention = decoder.attention(
        layout: .blocks,
        inputs: [
          decoder.linear("\(name).attn.c_attn", .queryKeyValue, 3 * hiddenSize, hiddenSize)
        ],
        output: "\(name).attn.c_proj")
      if !scalesScores { attention.scale = 1 }
      if scalesByLayer { attention.scale /= Float(index + 1) }
      return BlockConfiguration(
        name: name, attention: attention,
        feedForward: decoder.feedForward(
          up: "\(name).mlp.c_fc", down: "\(name).mlp.c_proj", intermediateSize: intermediateSize),
        attentionNorms: BranchNorms(before: decoder.norm("\(name).ln_1")),
        feedForwardNorms: BranchNorms(before: decoder.norm("\(name).ln_2")))
    }
    return ModelConfiguration(
      modelType: "gpt2", vocabularySize: try config.size("vocab_size"), hiddenSize: hiddenSize,
      contextLength: contextLength,
      embedding: EmbeddingConfiguration(
        name: "transformer.wte", width: hiddenSize,
        positions: LearnedPositions(name: "transformer.wpe", count: contextLength)),
      blocks: blocks, finalNorm: decoder.norm("transformer.ln_f"),
      head: HeadConfiguration(
        name: "lm_head", isTied: try config.bool("tie_word_embeddings", default: true)),
      endTokens: [], basePrefix: "transformer.",
      inertSuffixes: [".attn.bias", ".attn.masked_bias"])
  }
}
