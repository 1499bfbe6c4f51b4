package import Checkpoints
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The metadata of a model that is about to be written as GGUF, with what stands in the way.
package struct GGUFDescription {
  package private(set) var metadata = GGUFMetadata()
  /// Tensors that are no weights of the model: divisors of rotary frequencies.
  package private(set) var extraTensors: [(name: String, values: [Float])] = []
  /// What another engine would do differently.
  package private(set) var notes: [String] = []
  /// Why no engine could compute this model from a GGUF file.
  package private(set) var refusals: [String] = []
  private let architecture: String

  package init(_ model: ModelConfiguration, as architecture: GGUFArchitecture) {
    self.architecture = architecture.name
    metadata.set("general.architecture", architecture.name)
    metadata.set("general.type", "model")
    architecture.describe(model, &self)
    set("vocab_size", model.vocabularySize)
  }

  mutating func set(_ key: String, _ value: Int) { metadata.set("\(architecture).\(key)", value) }
  mutating func set(_ key: String, _ value: Float) { metadata.set("\(architecture).\(key)", value) }
  mutating func set(_ key: String, _ value: Bool) { metadata.set("\(architecture).\(key)", value) }
  mutating func set(_ key: String, _ value: String) {
    metadata.set("\(architecture).\(key)", value)
  }

  mutating func note(_ text: String) { notes.append(text) }
  mutating func refuse(_ reason: String) { refusals.append(reason) }

  // MARK: What families share

  private mutating func sizes(_ model: ModelConfiguration) {
    let block = model.blocks[0], attention = block.attention
    // Where positions have no bound, llama.cpp still wants a number.
    set("context_length", model.contextLength ?? 2048)
    set("embedding_length", model.hiddenSize)
    set("block_count", model.blocks.count)
    set("feed_forward_length", block.feedForward.intermediateSize)
    set("attention.head_count", attention.heads)
    set("attention.head_count_kv", attention.keyValueHeads)
  }

  mutating func gated(_ model: ModelConfiguration) {
    let block = model.blocks[0], attention = block.attention
    sizes(model)
    set("attention.key_length", attention.headDim)
    set("attention.value_length", attention.headDim)
    set("attention.layer_norm_rms_epsilon", model.finalNorm?.epsilon ?? 0)
    let isGemma = architecture.hasPrefix("gemma")
    if block.feedForward.activation != (isGemma ? .geluTanh : .silu) {
      refuse("llama.cpp has no other activation for \(architecture) than its family's")
    }
    if isGemma, attention.inputs[0].hasBias {
      refuse("llama.cpp has no biases in the attention of \(architecture)")
    }
    if let cap = attention.softCap { set("attn_logit_softcapping", cap) }
    if let cap = model.head.softCap { set("final_logit_softcapping", cap) }
    let wide = model.blocks.first { $0.attention.slidingWindow == nil } ?? block
    if let rotary = wide.attention.rotary { self.rotary(rotary, context: model.contextLength) }
  }

  mutating func layerNormed(_ model: ModelConfiguration, activation: Activation) {
    sizes(model)
    set("attention.layer_norm_epsilon", model.finalNorm?.epsilon ?? 0)
    let block = model.blocks[0]
    if block.feedForward.activation != activation {
      refuse("llama.cpp has no other activation for \(architecture) than its family's")
    }
    if activation == .gelu { note("llama.cpp approximates gelu by a tanh") }
    let usual = 1 / Float(block.attention.headDim).squareRoot()
    if block.attention.scale != usual { refuse("llama.cpp always scales its scores") }
  }

  mutating func rotary(_ rotary: RotaryConfiguration, context: Int? = nil) {
    set("rope.dimension_count", rotary.dimensions)
    set("rope.freq_base", Float(rotary.theta))
    switch rotary.scaling {
    case .none: break
    case .linear(let factor):
      set("rope.scaling.type", "linear")
      set("rope.scaling.factor", Float(factor))
    case .dynamic:
      refuse("GGUF cannot say that its rotation is scaled by the text's length (dynamic NTK)")
    case .llama3:
      extraTensors.append(("rope_freqs.weight", rotary.llama3Divisors().map { Float($0) }))
    case .yarn(
      let factor, let fast, let slow, let trained, let attentionFactor, let truncate):
      set("rope.scaling.type", "yarn")
      set("rope.scaling.factor", Float(factor))
      set("rope.scaling.original_context_length", trained)
      if fast != 32 { set("rope.scaling.yarn_beta_fast", Float(fast)) }
      if slow != 1 { set("rope.scaling.yarn_beta_slow", Float(slow)) }
      let scale = attentionFactor / RotaryConfiguration.temperature(factor)
      if abs(scale - 1) > 1e-9 { set("rope.scaling.attn_factor", Float(scale)) }
      if !truncate { refuse("llama.cpp always rounds the ends of YaRN's ramp") }
    case .long(let short, let long, let trained, let attentionFactor):
      set("rope.scaling.original_context_length", trained)
      set("rope.scaling.attn_factor", Float(attentionFactor))
      extraTensors.append(("rope_factors_long.weight", long.map { Float($0) }))
      extraTensors.append(("rope_factors_short.weight", short.map { Float($0) }))
    }
  }

  mutating func attentionScale(_ attention: AttentionConfiguration, usual: Int) {
    guard attention.scale != Float(1 / Double(usual).squareRoot()) else { return }
    set("attention.scale", attention.scale)
    note("llama.cpp scales scores by 1/√\(usual), this model by \(attention.scale)")
  }

  /// - Parameter usual: which layers attend within a window when nothing else is said.
  mutating func layers(_ model: ModelConfiguration, usual: (Int) -> Bool) {
    let windows = model.blocks.map(\.attention.slidingWindow)
    let slides = windows.map { $0 != nil }
    let sizes = Set(windows.compactMap { $0 })
    if sizes.count > 1 { refuse("its layers differ in their sliding windows") }
    if let window = sizes.first {
      set("attention.sliding_window", window)
    } else if slides.indices.contains(where: usual) {
      set("attention.sliding_window", model.contextLength ?? 1)
    }
    guard slides != slides.indices.map(usual) else { return }
    metadata.set("\(architecture).attention.sliding_window_pattern", GGUFArray(slides))
    note("llama.cpp gives \(architecture) windows on other layers than this model has")
  }
}

extension RotaryConfiguration {
  /// What YaRN multiplies cosines and sines by, given its factor alone.
  static func temperature(_ factor: Double) -> Double {
    factor <= 1 ? 1 : 0.1 * log(factor) + 1
  }
}
