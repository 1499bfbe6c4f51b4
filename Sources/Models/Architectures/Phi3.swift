/// Phi-3: Llama with queries, keys and values in one matrix, gate and up in another, and rotary
/// factors for long contexts (arXiv:2404.14219).
enum Phi3: Architecture {
  static let modelTypes = ["phi3"]

  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration {
    let hiddenSize = try config.size("hidden_size")
    let contextLength = try config.optionalSize("max_position_embeddings") ?? 4096
    var decoder = GatedDecoder(
      hiddenSize: hiddenSize, heads: try config.heads(hiddenSize: hiddenSize),
      intermediateSize: try config.size("intermediate_size"),
      epsilon: try config.number("rms_norm_eps", default: 1e-5))
    decoder.activation = try config.activation("hidden_act", default: "silu")
    let rotary = try config.rotary(headDim: decoder.headDim, contextLength: contextLength)
    let layers = try config.size("num_hidden_layers")
    let window = try config.optionalSize("sliding_window")
    let windows = try config.slidingLayers(count: layers, window: window) { _ in true }
    return decoder.model(
      "phi3", vocabularySize: try config.size("vocab_size"), contextLength: contextLength,
      blocks: (0..<layers).map {
        fused(decoder.block($0, rotary: rotary, window: windows[$0]))
      },
      tied: try config.bool("tie_word_embeddings", default: false))
  }

  private static func fused(_ block: BlockConfiguration) -> BlockConfiguration {
    var block = block
    block.attention.layout = .blocks
    block.attention.inputs = [
      merged(block.attention.inputs, "\(block.name).self_attn.qkv_proj", .queryKeyValue)
    ]
    block.feedForward.inputs = [
      merged(block.feedForward.inputs, "\(block.name).mlp.gate_up_proj", .gateUp)
    ]
    return block
  }

  private static func merged(_ parts: [LinearConfiguration], _ name: String, _ role: Role)
    -> LinearConfiguration
  {
    var whole = parts[0]
    whole.name = name
    whole.role = role
    whole.outputs = parts.reduce(0) { $0 + $1.outputs }
    return whole
  }
}
