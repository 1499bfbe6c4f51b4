import Checkpoints
import Tensors
import Text

/// Writes a `config.json` from the metadata of a GGUF file, so that one reader of configurations
/// serves both formats.
struct GGUFConfigReader {
  let checkpoint: Checkpoint
  let metadata: GGUFMetadata
  let name: String
  private(set) var fields = JSONObject()

  init(_ checkpoint: Checkpoint, _ metadata: GGUFMetadata, architecture: String) {
    self.checkpoint = checkpoint
    self.metadata = metadata
    name = architecture
  }

  mutating func set(_ field: String, _ value: JSON) { fields[field] = value }

  func hasTensor(_ name: String) -> Bool { checkpoint.contains(name) }

  // MARK: Values of `ARCHITECTURE.key`

  func wrong(_ key: String, _ problem: String) -> CheckpointError {
    .wrongMetadata(file: checkpoint.path, key: "\(name).\(key)", problem: problem)
  }

  func unsupported(_ key: String, _ reason: String) -> CheckpointError {
    .unsupportedMetadata(file: checkpoint.path, key: "\(name).\(key)", reason: reason)
  }

  private func value(_ key: String) -> GGUFValue? { metadata["\(name).\(key)"] }

  /// A size; an array of one per layer counts when all are equal.
  func optionalSize(_ key: String) throws(CheckpointError) -> Int? {
    guard let value = value(key) else { return nil }
    var number = value.int
    if let list = value.array?.integers, let first = list.first {
      guard list.allSatisfy({ $0 == first }) else {
        throw unsupported(key, "differs from layer to layer")
      }
      number = first
    }
    guard let number, (1...(1 << 28)).contains(number) else {
      throw wrong(key, "is not a number between 1 and 2^28")
    }
    return number
  }

  func size(_ key: String) throws(CheckpointError) -> Int {
    guard let size = try optionalSize(key) else { throw wrong(key, "is missing") }
    return size
  }

  func optionalNumber(_ key: String) throws(CheckpointError) -> Double? {
    guard let value = value(key) else { return nil }
    guard let number = value.double, number.isFinite else { throw wrong(key, "is not a number") }
    return number
  }

  func number(_ key: String) throws(CheckpointError) -> Double {
    guard let number = try optionalNumber(key) else { throw wrong(key, "is missing") }
    return number
  }

  func flag(_ key: String) throws(CheckpointError) -> Bool? {
    guard let value = value(key) else { return nil }
    guard let flag = value.bool else { throw wrong(key, "is not true or false") }
    return flag
  }

  func text(_ key: String) throws(CheckpointError) -> String? {
    guard let value = value(key) else { return nil }
    guard let text = value.string else { throw wrong(key, "is not text") }
    return text
  }

  // MARK: What families share

  func heads() throws(CheckpointError) -> Int { try size("attention.head_count") }

  func headDim() throws(CheckpointError) -> Int {
    let heads = try heads(), hidden = try size("embedding_length")
    guard let stated = try optionalSize("attention.key_length") else {
      guard hidden % heads == 0 else {
        throw wrong("attention.head_count", "does not divide the embedding's length \(hidden)")
      }
      return hidden / heads
    }
    guard try optionalSize("attention.value_length") ?? stated == stated else {
      throw unsupported("attention.value_length", "differs from the length of keys")
    }
    return stated
  }

  mutating func gated() throws(CheckpointError) {
    if let experts = value("expert_count")?.int, experts > 0 {
      throw unsupported("expert_count", "means a mixture of experts")
    }
    let headDim = try headDim()
    set("hidden_size", JSON(try size("embedding_length")))
    set("intermediate_size", JSON(try size("feed_forward_length")))
    set("num_hidden_layers", JSON(try size("block_count")))
    let heads = try heads()
    set("num_attention_heads", JSON(heads))
    set("num_key_value_heads", JSON(try optionalSize("attention.head_count_kv") ?? heads))
    set("head_dim", JSON(headDim))
    set("max_position_embeddings", JSON(try size("context_length")))
    set("rms_norm_eps", JSON(try number("attention.layer_norm_rms_epsilon")))
    set("hidden_act", "silu")
    try rotary(headDim: headDim)
  }

  mutating func gemma() throws(CheckpointError) {
    try gated()
    fields["hidden_act"] = nil
    set("hidden_activation", "gelu_pytorch_tanh")
    for (field, key) in [
      ("attn_logit_softcapping", "attn_logit_softcapping"),
      ("final_logit_softcapping", "final_logit_softcapping"),
    ] {
      set(field, try optionalNumber(key).map { JSON($0) } ?? .null)
    }
    set("sliding_window", JSON(try size("attention.sliding_window")))
  }

  /// - Parameter usual: what scores are divided by the root of when nothing else is said.
  mutating func attentionScale(usual: Int) throws(CheckpointError) {
    guard let scale = try optionalNumber("attention.scale") else {
      set("query_pre_attn_scalar", JSON(usual))
      return
    }
    guard scale > 0 else { throw wrong("attention.scale", "is not positive") }
    let exact = Double(Float(scale))
    set("query_pre_attn_scalar", JSON(1 / (exact * exact)))
  }

  /// Which layers attend within a window.
  mutating func layers(usual: (Int) -> Bool = { _ in false }) throws(CheckpointError) {
    let count = try size("block_count")
    var slides = (0..<count).map(usual)
    if let pattern = value("attention.sliding_window_pattern") {
      if let list = pattern.array?.bools, list.count == count {
        slides = list
      } else if let period = pattern.int, period > 0 {
        slides = (0..<count).map { ($0 + 1) % period != 0 }
      } else {
        throw wrong("attention.sliding_window_pattern", "does not say which layers have a window")
      }
    }
    set("layer_types", .array(slides.map { $0 ? "sliding_attention" : "full_attention" }))
    guard slides.contains(true) else { return }
    set("sliding_window", JSON(try size("attention.sliding_window")))
    if fields["model_type"]?.string?.hasPrefix("qwen") == true {
      set("use_sliding_window", true)
      set("max_window_layers", JSON(slides.firstIndex(of: true) ?? count))
    }
  }
}
