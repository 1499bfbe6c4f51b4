/// The value types of GGUF metadata, by their numbers in the file (ggml-org/ggml, docs/gguf.md).
public enum GGUFValueType: UInt32, Sendable, Hashable, CaseIterable {
  case uint8 = 0
  case int8 = 1
  case uint16 = 2
  case int16 = 3
  case uint32 = 4
  case int32 = 5
  case float32 = 6
  case bool = 7
  case string = 8
  case array = 9
  case uint64 = 10
  case int64 = 11
  case float64 = 12

  /// Bytes of one value; nil where that varies.
  var byteCount: Int? {
    switch self {
    case .uint8, .int8, .bool: 1
    case .uint16, .int16: 2
    case .uint32, .int32, .float32: 4
    case .uint64, .int64, .float64: 8
    case .string, .array: nil
    }
  }
}

/// One value of GGUF metadata. Text is kept as its bytes, which need not be UTF-8.
public enum GGUFValue: Sendable {
  case uint8(UInt8)
  case int8(Int8)
  case uint16(UInt16)
  case int16(Int16)
  case uint32(UInt32)
  case int32(Int32)
  case float32(Float)
  case bool(Bool)
  case string([UInt8])
  case array(GGUFArray)
  case uint64(UInt64)
  case int64(Int64)
  case float64(Double)

  /// A string value, as UTF-8 bytes.
  public init(_ text: String) { self = .string(Array(text.utf8)) }

  public var type: GGUFValueType {
    switch self {
    case .uint8: .uint8
    case .int8: .int8
    case .uint16: .uint16
    case .int16: .int16
    case .uint32: .uint32
    case .int32: .int32
    case .float32: .float32
    case .bool: .bool
    case .string: .string
    case .array: .array
    case .uint64: .uint64
    case .int64: .int64
    case .float64: .float64
    }
  }

  /// An integer of any width that fits.
  public var int: Int? {
    switch self {
    case .uint8(let value): Int(value)
    case .int8(let value): Int(value)
    case .uint16(let value): Int(value)
    case .int16(let value): Int(value)
    case .uint32(let value): Int(value)
    case .int32(let value): Int(value)
    case .uint64(let value): Int(exactly: value)
    case .int64(let value): Int(value)
    default: nil
    }
  }

  /// A number, whole or not. A `Float` becomes the double with the same shortest spelling, so that
  /// 1e-6 stays 1e-6.
  public var double: Double? {
    switch self {
    case .float32(let value): value.isFinite ? Double(value.description) : nil
    case .float64(let value): value
    default: int.map(Double.init)
    }
  }

  public var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  /// The text of a string, repaired where it is not UTF-8.
  public var string: String? {
    if case .string(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil }
  }

  public var bytes: [UInt8]? {
    if case .string(let bytes) = self { bytes } else { nil }
  }

  public var array: GGUFArray? {
    if case .array(let array) = self { array } else { nil }
  }

  /// The value as the file holds it, without its type number.
  func append(to output: inout [UInt8]) {
    switch self {
    case .uint8(let value): output.append(value)
    case .int8(let value): output.append(UInt8(bitPattern: value))
    case .uint16(let value): output.append(littleEndian: value)
    case .int16(let value): output.append(littleEndian: value)
    case .uint32(let value): output.append(littleEndian: value)
    case .int32(let value): output.append(littleEndian: value)
    case .float32(let value): output.append(littleEndian: value.bitPattern)
    case .bool(let value): output.append(value ? 1 : 0)
    case .string(let bytes): output.append(ggufString: bytes)
    case .array(let array): array.append(to: &output)
    case .uint64(let value): output.append(littleEndian: value)
    case .int64(let value): output.append(littleEndian: value)
    case .float64(let value): output.append(littleEndian: value.bitPattern)
    }
  }
}

extension [UInt8] {
  mutating func append(littleEndian value: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }

  /// A length of eight bytes, then the bytes.
  mutating func append(ggufString bytes: some Collection<UInt8>) {
    append(littleEndian: UInt64(bytes.count))
    append(contentsOf: bytes)
  }
}
