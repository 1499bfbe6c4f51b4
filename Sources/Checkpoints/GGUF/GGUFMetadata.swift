/// The keys and values of a GGUF file, in the order of the file, each key once.
public struct GGUFMetadata: Sendable {
  /// In the order of the file.
  public private(set) var keys: [String] = []
  private var values: [String: GGUFValue] = [:]

  /// No keys yet.
  public init() {}

  /// The value of a key; nil where the file has none.
  public subscript(_ key: String) -> GGUFValue? { values[key] }

  /// Appends a value, or replaces the one of this key where it stands.
  public mutating func set(_ key: String, _ value: GGUFValue) {
    if values.updateValue(value, forKey: key) == nil { keys.append(key) }
  }

  public mutating func set(_ key: String, _ text: String) { set(key, GGUFValue(text)) }

  /// Sizes and ids are unsigned 32-bit numbers wherever llama.cpp reads them.
  public mutating func set(_ key: String, _ number: Int) {
    set(key, .uint32(UInt32(clamping: number)))
  }

  public mutating func set(_ key: String, _ number: Float) { set(key, .float32(number)) }
  public mutating func set(_ key: String, _ flag: Bool) { set(key, .bool(flag)) }
  public mutating func set(_ key: String, _ array: GGUFArray) { set(key, .array(array)) }

  /// `general.architecture`, such as `llama`.
  public var architecture: String? { self["general.architecture"]?.string }

  /// What files and tensors align to.
  static let alignmentKey = "general.alignment"
  static let defaultAlignment = 32
}
