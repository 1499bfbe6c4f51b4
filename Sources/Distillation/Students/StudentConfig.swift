import Models
import Text

/// A teacher's `config.json` on its way to being a student's.
struct StudentConfig {
  private(set) var fields: JSONObject
  private let path: String

  /// The names that families give to the same sizes.
  private static let names: [String: [String]] = [
    "layers": ["num_hidden_layers", "n_layer"], "hidden": ["hidden_size", "n_embd", "n_embed"],
    "heads": ["num_attention_heads", "n_head"], "keyValueHeads": ["num_key_value_heads"],
    "intermediate": ["intermediate_size", "ffn_dim", "n_inner"],
  ]

  init(_ config: JSON, path: String) throws(ModelError) {
    guard let fields = config.object else {
      throw .malformedConfiguration(path: path, reason: "it is not a JSON object")
    }
    self.fields = fields
    self.path = path
  }

  var json: JSON { .object(fields) }

  /// - Throws: `cannotShape` where the family has no such field.
  mutating func set(_ size: String, _ value: Int) throws(DistillationError) {
    let known = Self.names[size] ?? []
    guard let name = known.first(where: { fields[$0] != nil }) else {
      throw .cannotShape(path: path, problem: "its config has no field for \(size)")
    }
    fields[name] = JSON(value)
  }

  mutating func set(_ name: String, _ value: JSON?) { fields[name] = value }
  func has(_ name: String) -> Bool { fields[name].map { !$0.isNull } ?? false }

  /// - Parameter type: as transformers names it.
  mutating func setType(_ type: String) {
    fields[fields["torch_dtype"] != nil ? "torch_dtype" : "dtype"] = JSON(type)
  }

  /// Writes the number of layers, and the entries of lists that have one for each layer.
  ///
  /// - Parameters:
  ///   - chosen: the teacher's layer for each of the student's.
  ///   - count: the teacher's layers.
  mutating func setLayers(_ chosen: [Int], of count: Int) throws(DistillationError) {
    try set("layers", chosen.count)
    for (name, value) in zip(fields.keyStrings, fields.values) {
      guard Self.perLayer.contains(name), let entries = value.array, entries.count == count
      else { continue }
      fields[name] = .array(chosen.map { entries[$0] })
    }
  }

  private static let perLayer: Set<String> = [
    "layer_types", "no_rope_layers", "mlp_layer_types", "attention_types",
  ]

  /// States each layer's kind of attention, where it was told by the layer's place before.
  mutating func setSlidingLayers(_ isSliding: [Bool]) {
    fields["layer_types"] = .array(
      isSliding.map { $0 ? "sliding_attention" : "full_attention" })
  }
}
