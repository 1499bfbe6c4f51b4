/// OPT: learned positions that start at row 2; the 350m model norms after each branch and projects
/// its narrower embedding (Zhang et al. 2022, arXiv:2205.01068).
enum OPT: Architecture {
  static let modelTypes = ["opt"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let hiddenSize = try config.size("hidden_size")
    let contextLength = try config.optionalSize("max_position_embeddings") ?? 2048
    let intermediateSize = try config.size("ffn_dim")
    var decoder = try LayerNormDecoder(
      hiddenSize: hiddenSize, heads: try config.size("num_attention_heads"), epsilon: 1e-5,
      activation: try config.activation("activation_function", default: "relu"),
      headsField: "num_attention_heads", config: config)
    decoder.bias = try config.bool("enable_bias", default: true)
    let affine = try config.bool("layer_norm_elementwise_affine", default: true)
    decoder.normHasWeight = affine
    decoder.normHasBias = affine
    let normsBefore = try config.bool("do_layer_norm_before", default: true)
    let dropsFinalNorm = try config.bool("_remove_final_layer_norm", default: false)

    let blocks = (0..<(try config.size("num_hidden_layers"))).map { index in
      let name = "model.decoder.layers.\(index)"
      func input(_ path: String, _ role: Role) -> LinearConfiguration {
        decoder.linear("\(name).self_attn.\(path)", role, hiddenSize, hiddenSize)
      }
      func norms(_ path: String) -> BranchNorms {
        let norm = decoder.norm("\(name).\(path)")
        return normsBefore ? BranchNorms(before: norm) : BranchNorms(after: norm)
      }
      return BlockConfiguration(
        name: name,
        attention: decoder.attention(
          layout: .separate,
          inputs: [input("q_proj", .query), input("k_proj", .key), input("v_proj", .value)],
          output: "\(name).self_attn.out_proj"),
        feedForward: decoder.feedForward(
          up: "\(name).fc1", down: "\(name).fc2", intermediateSize: intermediateSize),
        attentionNorms: norms("self_attn_layer_norm"), feedForwardNorms: norms("final_layer_norm"))
    }
    let width = try config.optionalSize("word_embed_proj_dim") ?? hiddenSize
    func projection(_ path: String, _ role: Role, _ outputs: Int, _ inputs: Int)
      -> LinearConfiguration?
    {
      guard width != hiddenSize else { return nil }
      return LinearConfiguration(
        name: "model.decoder.\(path)", role: role, outputs: outputs, inputs: inputs, hasBias: false)
    }
    return ModelConfiguration(
      modelType: "opt", vocabularySize: try config.size("vocab_size"), hiddenSize: hiddenSize,
      contextLength: contextLength,
      embedding: EmbeddingConfiguration(
        name: "model.decoder.embed_tokens", width: width,
        projection: projection("project_in", .embeddingProjection, hiddenSize, width),
        positions: LearnedPositions(
          name: "model.decoder.embed_positions", count: contextLength, offset: 2)),
      blocks: blocks,
      finalNorm: normsBefore && !dropsFinalNorm
        ? decoder.norm("model.decoder.final_layer_norm") : nil,
      head: HeadConfiguration(
        name: "lm_head", isTied: try config.bool("tie_word_embeddings", default: true),
        projection: projection("project_out", .headProjection, width, hiddenSize)),
      endTokens: [], basePrefix: "model.")
  }
}
