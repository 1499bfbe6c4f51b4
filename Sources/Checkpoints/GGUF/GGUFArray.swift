import Tensors

/// An array of GGUF metadata, kept as the file spells it: a vocabulary of 256,000 tokens costs
/// nothing until it is asked for. Arrays of arrays do not occur.
public struct GGUFArray: Sendable {
  /// The type of every element.
  public let elementType: GGUFValueType
  /// How many elements there are.
  public let count: Int
  private let storage: Storage

  /// - Parameter storage: the checked elements, one after the other.
  init(elementType: GGUFValueType, count: Int, storage: Storage) {
    self.elementType = elementType
    self.count = count
    self.storage = storage
  }

  private init(_ elementType: GGUFValueType, count: Int, _ bytes: [UInt8]) {
    let storage = Storage(byteCount: bytes.count)
    storage.base.copyMemory(from: bytes, byteCount: bytes.count)
    self.init(elementType: elementType, count: count, storage: storage)
  }

  /// An array of strings, each as UTF-8 bytes.
  public init(strings: [[UInt8]]) {
    var bytes: [UInt8] = []
    for string in strings { bytes.append(ggufString: string) }
    self.init(.string, count: strings.count, bytes)
  }

  /// An array of float32.
  public init(_ values: [Float]) {
    var bytes: [UInt8] = []
    for value in values { bytes.append(littleEndian: value.bitPattern) }
    self.init(.float32, count: values.count, bytes)
  }

  /// An array of int32.
  public init(_ values: [Int32]) {
    var bytes: [UInt8] = []
    for value in values { bytes.append(littleEndian: value) }
    self.init(.int32, count: values.count, bytes)
  }

  /// An array of bool, one byte each.
  public init(_ values: [Bool]) {
    self.init(.bool, count: values.count, values.map { $0 ? 1 : 0 })
  }

  /// The elements as the file holds them, valid while the array is.
  private var encoded: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: storage.base, count: storage.byteCount)
  }

  /// Type and number of the elements, then the elements.
  func append(to output: inout [UInt8]) {
    output.append(littleEndian: elementType.rawValue)
    output.append(littleEndian: UInt64(count))
    output.append(contentsOf: encoded)
  }

  /// The texts of an array of strings; nil for any other.
  public var strings: [[UInt8]]? {
    guard elementType == .string else { return nil }
    var strings: [[UInt8]] = []
    strings.reserveCapacity(count)
    let bytes = encoded
    var position = 0
    for _ in 0..<count {
      let length = Int(
        truncatingIfNeeded: UInt64(
          littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self)))
      position += 8
      strings.append(Array(bytes[position..<(position + length)]))
      position += length
    }
    return strings
  }

  /// The elements of an array of integers; nil for any other, or where one does not fit.
  public var integers: [Int]? {
    switch elementType {
    case .uint8: map(UInt8.self) { Int($0) }
    case .int8: map(Int8.self) { Int($0) }
    case .uint16: map(UInt16.self) { Int(UInt16(littleEndian: $0)) }
    case .int16: map(Int16.self) { Int(Int16(littleEndian: $0)) }
    case .uint32: map(UInt32.self) { Int(UInt32(littleEndian: $0)) }
    case .int32: map(Int32.self) { Int(Int32(littleEndian: $0)) }
    case .uint64: map(UInt64.self) { Int(exactly: UInt64(littleEndian: $0)) }
    case .int64: map(Int64.self) { Int(Int64(littleEndian: $0)) }
    default: nil
    }
  }

  /// The elements of an array of float32; nil for any other.
  public var floats: [Float]? {
    guard elementType == .float32 else { return nil }
    return map(UInt32.self) { Float(bitPattern: UInt32(littleEndian: $0)) }
  }

  /// The elements of an array of bool; nil for any other.
  public var bools: [Bool]? {
    guard elementType == .bool else { return nil }
    return map(UInt8.self) { $0 != 0 }
  }

  private func map<Stored: BitwiseCopyable, Value>(
    _ type: Stored.Type, _ value: (Stored) -> Value?
  ) -> [Value]? {
    let bytes = encoded
    var values: [Value] = []
    values.reserveCapacity(count)
    for index in 0..<count {
      let stored = bytes.loadUnaligned(
        fromByteOffset: index * MemoryLayout<Stored>.size, as: Stored.self)
      guard let value = value(stored) else { return nil }
      values.append(value)
    }
    return values
  }
}
