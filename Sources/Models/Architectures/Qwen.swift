/// Qwen 2 and 2.5: Llama with biases on queries, keys and values (arXiv:2407.10671).
enum Qwen2: Architecture {
  static let modelTypes = ["qwen2"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    try qwen("qwen2", &config) { decoder, _ throws(ModelError) in
      decoder.queryKeyValueBias = true
    }
  }
}

/// Qwen 3: norms on each head's queries and keys instead of biases (arXiv:2505.09388).
enum Qwen3: Architecture {
  static let modelTypes = ["qwen3"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    try qwen("qwen3", &config, headDim: 128) { decoder, config throws(ModelError) in
      decoder.queryKeyNorm = .perHead
      decoder.queryKeyValueBias = try config.bool("attention_bias", default: false)
      decoder.outputBias = decoder.queryKeyValueBias
    }
  }
}

private func qwen(
  _ type: String, _ config: inout ConfigReader, headDim: Int? = nil,
  vary: (inout GatedDecoder, inout ConfigReader) throws(ModelError) -> Void
) throws(ModelError) -> ModelConfiguration {
  let hiddenSize = try config.size("hidden_size")
  let contextLength = try config.optionalSize("max_position_embeddings") ?? 32_768
  var decoder = GatedDecoder(
    hiddenSize: hiddenSize, heads: try config.heads(hiddenSize: hiddenSize, headDim: headDim),
    intermediateSize: try config.size("intermediate_size"),
    epsilon: try config.number("rms_norm_eps", default: 1e-6))
  decoder.activation = try config.activation("hidden_act", default: "silu")
  try vary(&decoder, &config)
  let rotary = try config.rotary(headDim: decoder.headDim, contextLength: contextLength)
  let layers = try config.size("num_hidden_layers")
  let slides = try config.bool("use_sliding_window", default: false)
  let stated = try config.optionalSize("sliding_window") ?? 4096
  let firstSliding = try config.optionalInteger("max_window_layers") ?? 28
  let windows = try config.slidingLayers(count: layers, window: slides ? stated : nil) {
    $0 >= firstSliding
  }
  return decoder.model(
    type, vocabularySize: try config.size("vocab_size"), contextLength: contextLength,
    blocks: (0..<layers).map { decoder.block($0, rotary: rotary, window: windows[$0]) },
    tied: try config.bool("tie_word_embeddings", default: false))
}
