/// A JSON value as its file states it (RFC 8259).
///
/// Objects keep the order of their keys, numbers keep their spelling, and text is UTF-8 bytes:
/// a vocabulary may hold two keys that Swift's `String` would call equal.
public enum JSON: Sendable, Equatable {
  case null
  case bool(Bool)
  case number(JSONNumber)
  case string([UInt8])
  case array([JSON])
  case object(JSONObject)

  /// Reads one JSON document.
  ///
  /// - Parameters:
  ///   - bytes: UTF-8 text; copied where it is kept.
  ///   - name: the file's name, for messages.
  /// - Throws: what is malformed, with its line and column. Duplicate keys, invalid UTF-8, lone
  ///   surrogates, nesting beyond `maximumDepth` and anything after the document are malformed.
  public static func parse(
    _ bytes: UnsafeRawBufferPointer, name: String
  ) throws(JSONError) -> JSON {
    var parser = JSONParser(bytes, name: name)
    return try parser.document()
  }

  /// Reads one JSON document held in an array; see `parse(_:name:)`.
  public static func parse(_ bytes: [UInt8], name: String) throws(JSONError) -> JSON {
    let result = bytes.withUnsafeBytes { buffer -> Result<JSON, JSONError> in
      do throws(JSONError) {
        return .success(try parse(buffer, name: name))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }

  /// Arrays and objects nested deeper than this are refused, so that no file exhausts the stack.
  public static let maximumDepth = 256
}

extension JSON {
  /// The text of a string, `nil` for any other value.
  public var string: String? {
    if case .string(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil }
  }

  /// The UTF-8 bytes of a string, `nil` for any other value.
  public var bytes: [UInt8]? {
    if case .string(let bytes) = self { bytes } else { nil }
  }

  /// A number that is a whole number and fits, however it is spelled (`4096`, `4096.0`, `4e3`).
  public var int: Int? {
    if case .number(let number) = self { number.int } else { nil }
  }

  /// The nearest double of a number, `nil` when it overflows or is no number.
  public var double: Double? {
    if case .number(let number) = self { number.double } else { nil }
  }

  public var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  public var array: [JSON]? {
    if case .array(let elements) = self { elements } else { nil }
  }

  public var object: JSONObject? {
    if case .object(let members) = self { members } else { nil }
  }

  public var isNull: Bool {
    if case .null = self { true } else { false }
  }

  /// The member of an object; `nil` when it is absent or this is no object.
  public subscript(_ key: String) -> JSON? { object?[key] }

  /// The kind of this value, for messages: "a string", "an object".
  public var kind: String {
    switch self {
    case .null: "null"
    case .bool: "a boolean"
    case .number: "a number"
    case .string: "a string"
    case .array: "an array"
    case .object: "an object"
    }
  }
}

extension JSON {
  /// A string value from Swift text.
  public init(_ text: String) { self = .string(Array(text.utf8)) }
  public init(_ value: Int) { self = .number(JSONNumber(value)) }
  public init(_ value: Bool) { self = .bool(value) }

  /// A number, or `null` when the value is not finite: JSON has no spelling for it.
  public init(_ value: Double) {
    self = JSONNumber(value).map { .number($0) } ?? .null
  }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral,
  ExpressibleByFloatLiteral, ExpressibleByBooleanLiteral, ExpressibleByNilLiteral,
  ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
  public init(stringLiteral value: String) { self.init(value) }
  public init(integerLiteral value: Int) { self.init(value) }
  public init(floatLiteral value: Double) { self.init(value) }
  public init(booleanLiteral value: Bool) { self.init(value) }
  public init(nilLiteral: ()) { self = .null }
  public init(arrayLiteral elements: JSON...) { self = .array(elements) }

  /// An object with its members in the order written; a repeated key keeps its last value.
  public init(dictionaryLiteral elements: (String, JSON)...) {
    self = .object(JSONObject(elements))
  }
}
