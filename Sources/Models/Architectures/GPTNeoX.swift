/// GPT-NeoX and Pythia: both branches read the block's input, part of each head rotates
/// (Black et al. 2022, arXiv:2204.06745).
enum GPTNeoX: Architecture {
  static let modelTypes = ["gpt_neox"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let hiddenSize = try config.size("hidden_size")
    let contextLength = try config.optionalSize("max_position_embeddings") ?? 2048
    let intermediateSize = try config.size("intermediate_size")
    let decoder = try LayerNormDecoder(
      hiddenSize: hiddenSize, heads: try config.size("num_attention_heads"),
      epsilon: try config.number("layer_norm_eps", default: 1e-5),
      activation: try config.activation("hidden_act", default: "gelu"),
      headsField: "num_attention_heads", config: config)
    let rotary = try config.rotary(
      headDim: decoder.headDim, contextLength: contextLength,
      theta: try config.number("rotary_emb_base", default: 10_000),
      partial: try config.number("rotary_pct", default: 0.25))
    let isParallel = try config.bool("use_parallel_residual", default: true)
    let attentionBias = try config.bool("attention_bias", default: true)

    let blocks = (0..<(try config.size("num_hidden_layers"))).map { index in
      let name = "gpt_neox.layers.\(index)"
      var attention = decoder.attention(
        layout: .perHead,
        inputs: [
          decoder.linear(
            "\(name).attention.query_key_value", .queryKeyValue, 3 * hiddenSize, hiddenSize)
        ],
        output: "\(name).attention.dense")
      attention.inputs[0].hasBias = attentionBias
      attention.output.hasBias = attentionBias
      attention.rotary = rotary
      return BlockConfiguration(
        name: name, attention: attention,
        feedForward: decoder.feedForward(
          up: "\(name).mlp.dense_h_to_4h", down: "\(name).mlp.dense_4h_to_h",
          intermediateSize: intermediateSize),
        attentionNorms: BranchNorms(before: decoder.norm("\(name).input_layernorm")),
        feedForwardNorms: BranchNorms(before: decoder.norm("\(name).post_attention_layernorm")),
        isParallel: isParallel)
    }
    return ModelConfiguration(
      modelType: "gpt_neox", vocabularySize: try config.size("vocab_size"), hiddenSize: hiddenSize,
      contextLength: contextLength,
      embedding: EmbeddingConfiguration(name: "gpt_neox.embed_in", width: hiddenSize),
      blocks: blocks, finalNorm: decoder.norm("gpt_neox.final_layer_norm"),
      head: HeadConfiguration(
        name: "embed_out", isTied: try config.bool("tie_word_embeddings", default: false)),
      endTokens: [], basePrefix: "gpt_neox.",
      inertSuffixes: [
        ".attention.bias", ".attention.masked_bias", ".attention.rotary_emb.inv_freq",
      ])
  }
}
