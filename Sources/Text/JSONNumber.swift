/// A JSON number: an integer, or the bytes of any other spelling, kept as written.
public struct JSONNumber: Sendable, Equatable {
  private enum Storage: Equatable {
    /// Spelled as `String(integer)` spells it; needs no allocation.
    case integer(Int)
    case spelled([UInt8])
  }

  private let storage: Storage

  public init(_ value: Int) { storage = .integer(value) }

  /// The shortest spelling that reads back as `value`; `nil` when it is not finite.
  public init?(_ value: Double) {
    guard value.isFinite else { return nil }
    if let whole = Int(exactly: value), abs(value) < 0x1p53, value != 0 || value.sign == .plus {
      // Keep the point, so that a double stays recognisable as one.
      storage = .spelled(Array("\(whole).0".utf8))
    } else {
      storage = .spelled(Array(value.description.utf8))
    }
  }

  /// Adopts a spelling whose grammar the parser has checked.
  init(checkedSpelling bytes: UnsafeBufferPointer<UInt8>, isInteger: Bool) {
    if isInteger, let value = Self.canonicalInteger(bytes) {
      storage = .integer(value)
    } else {
      storage = .spelled(Array(bytes))
    }
  }

  /// The value, when it is a whole number that fits, however it is spelled.
  public var int: Int? {
    switch storage {
    case .integer(let value): value
    case .spelled: double.flatMap { abs($0) <= 0x1p53 ? Int(exactly: $0) : nil }
    }
  }

  /// The nearest double; `nil` when the spelling overflows.
  public var double: Double? {
    switch storage {
    case .integer(let value): return Double(value)
    case .spelled(let bytes):
      guard let value = Double(String(decoding: bytes, as: UTF8.self)), value.isFinite else {
        return nil
      }
      return value
    }
  }

  /// The number as its file spelled it.
  public var spelling: [UInt8] {
    switch storage {
    case .integer(let value): Array(String(value).utf8)
    case .spelled(let bytes): bytes
    }
  }

  /// The value of digits that `String(Int)` would write the same way.
  private static func canonicalInteger(_ bytes: UnsafeBufferPointer<UInt8>) -> Int? {
    let isNegative = bytes.first == UInt8(ascii: "-")
    let digits = bytes.dropFirst(isNegative ? 1 : 0)
    guard digits.count <= 18, !(isNegative && digits.first == UInt8(ascii: "0")) else { return nil }
    var value = 0
    for digit in digits { value = value * 10 + Int(digit - UInt8(ascii: "0")) }
    return isNegative ? -value : value
  }
}
