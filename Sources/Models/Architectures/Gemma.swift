/// Gemma 2: norms before and after each branch, soft-capped scores and logits, a sliding window on
/// every other layer (arXiv:2408.00118).
enum Gemma2: Architecture {
  static let modelTypes = ["gemma2"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let contextLength = try config.optionalSize("max_position_embeddings") ?? 8192
    var decoder = try gemma(&config)
    decoder.softCap = try softCap("attn_logit_softcapping", default: 50, &config)
    let rotary = try config.rotary(headDim: decoder.headDim, contextLength: contextLength)
    let layers = try config.size("num_hidden_layers")
    let window = try config.optionalSize("sliding_window") ?? 4096
    let windows = try config.slidingLayers(count: layers, window: window) { $0 % 2 == 0 }
    return try gemma(
      "gemma2", &config, decoder, contextLength: contextLength, finalSoftCap: 30,
      blocks: (0..<layers).map { decoder.block($0, rotary: rotary, window: windows[$0]) })
  }
}

/// Gemma 3's text model: norms on queries and keys, five local layers to one global, each kind with
/// its own rotary base (arXiv:2503.19786).
enum Gemma3: Architecture {
  static let modelTypes = ["gemma3_text"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let contextLength = try config.optionalSize("max_position_embeddings") ?? 131_072
    var decoder = try gemma(&config)
    decoder.queryKeyNorm = .perHead
    decoder.softCap = try softCap("attn_logit_softcapping", default: nil, &config)
    let wide = try config.rotary(
      headDim: decoder.headDim, contextLength: contextLength, theta: 1_000_000,
      kind: "full_attention")
    let localTheta = try config.number("rope_local_base_freq", default: 10_000)
    let local =
      if let parameters = try config.nested("rope_parameters"),
        parameters.fields["sliding_attention"] != nil
      {
        try config.rotary(
          headDim: decoder.headDim, contextLength: contextLength, theta: localTheta,
          kind: "sliding_attention")
      } else {
        RotaryConfiguration(theta: localTheta, dimensions: wide.dimensions)
      }
    let layers = try config.size("num_hidden_layers")
    let window = try config.optionalSize("sliding_window") ?? 4096
    let legacyPattern = try config.optionalSize("_sliding_window_pattern")
    let pattern = try config.optionalSize("sliding_window_pattern") ?? legacyPattern ?? 6
    let windows = try config.slidingLayers(count: layers, window: window) {
      ($0 + 1) % pattern != 0
    }
    return try gemma(
      "gemma3_text", &config, decoder, contextLength: contextLength, finalSoftCap: nil,
      blocks: (0..<layers).map {
        decoder.block($0, rotary: windows[$0] == nil ? wide : local, window: windows[$0])
      })
  }
}

private func gemma(_ config: inout ConfigReader) throws(ModelError) -> GatedDecoder {
  let hiddenSize = try config.size("hidden_size")
  var decoder = GatedDecoder(
    hiddenSize: hiddenSize, heads: try config.heads(hiddenSize: hiddenSize, headDim: 256),
    intermediateSize: try config.size("intermediate_size"),
    epsilon: try config.number("rms_norm_eps", default: 1e-6))
  let legacy = try config.activation("hidden_act", default: "gelu_pytorch_tanh")
  decoder.activation =
    config.fields["hidden_activation"] == nil
    ? legacy : try config.activation("hidden_activation", default: "gelu_pytorch_tanh")
  decoder.normOffset = 1
  decoder.norms = .beforeAndOutput
  decoder.queryKeyValueBias = try config.bool("attention_bias", default: false)
  decoder.outputBias = decoder.queryKeyValueBias
  let scalar = try config.number("query_pre_attn_scalar", default: 256)
  guard scalar > 0 else { throw config.bad("query_pre_attn_scalar", expected: "positive") }
  decoder.scale = Float(1 / scalar.squareRoot())
  return decoder
}

private func gemma(
  _ type: String, _ config: inout ConfigReader, _ decoder: GatedDecoder, contextLength: Int,
  finalSoftCap: Float?, blocks: [BlockConfiguration]
) throws(ModelError) -> ModelConfiguration {
  var model = decoder.model(
    type, vocabularySize: try config.size("vocab_size"), contextLength: contextLength,
    blocks: blocks, tied: try config.bool("tie_word_embeddings", default: true))
  model.embedding.scale = Float(decoder.hiddenSize).squareRoot()
  model.head.softCap = try softCap("final_logit_softcapping", default: finalSoftCap, &config)
  return model
}

/// A cap that null switches off and absence leaves at the family's value.
private func softCap(_ name: String, default fallback: Float?, _ config: inout ConfigReader)
  throws(ModelError) -> Float?
{
  guard config.fields[name] != nil else { return fallback }
  guard let cap = try config.optionalNumber(name) else { return nil }
  guard cap > 0 else { throw config.bad(name, expected: "positive or null") }
  return Float(cap)
}
