/// Strict UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing past U+10FFFF.
package enum UTF8Sequence {
  /// The number of bytes of the well-formed scalar at `offset`, 0 when there is none.
  @inline(__always)
  package static func length(in bytes: UnsafeBufferPointer<UInt8>, at offset: Int) -> Int {
    let remaining = bytes.count - offset
    let first = bytes[offset]
    func isContinuation(_ index: Int) -> Bool { bytes[offset + index] & 0xC0 == 0x80 }
    switch first {
    case 0..<0x80: return 1
    case 0xC2..<0xE0: return remaining >= 2 && isContinuation(1) ? 2 : 0
    case 0xE0..<0xF0:
      guard remaining >= 3, isContinuation(1), isContinuation(2) else { return 0 }
      let second = bytes[offset + 1]
      if first == 0xE0, second < 0xA0 { return 0 }
      if first == 0xED, second >= 0xA0 { return 0 }
      return 3
    case 0xF0..<0xF5:
      guard remaining >= 4, isContinuation(1), isContinuation(2), isContinuation(3) else {
        return 0
      }
      let second = bytes[offset + 1]
      if first == 0xF0, second < 0x90 { return 0 }
      if first == 0xF4, second >= 0x90 { return 0 }
      return 4
    default: return 0
    }
  }

  /// The scalar of `length` bytes at `offset`, whose form has been checked.
  @inline(__always)
  package static func scalar(
    in bytes: UnsafeBufferPointer<UInt8>, at offset: Int, length: Int
  ) -> UInt32 {
    let first = UInt32(bytes[offset])
    func low(_ index: Int) -> UInt32 { UInt32(bytes[offset + index] & 0x3F) }
    switch length {
    case 1: return first
    case 2: return (first & 0x1F) << 6 | low(1)
    case 3: return (first & 0x0F) << 12 | low(1) << 6 | low(2)
    default: return (first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3)
    }
  }

  /// Appends the UTF-8 of a scalar value.
  @inline(__always)
  package static func append(_ scalar: UInt32, to bytes: inout [UInt8]) {
    switch scalar {
    case 0..<0x80: bytes.append(UInt8(truncatingIfNeeded: scalar))
    case 0x80..<0x800:
      bytes.append(UInt8(truncatingIfNeeded: 0xC0 | scalar >> 6))
      bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    case 0x800..<0x10000:
      bytes.append(UInt8(truncatingIfNeeded: 0xE0 | scalar >> 12))
      bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 6 & 0x3F))
      bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    default:
      bytes.append(UInt8(truncatingIfNeeded: 0xF0 | scalar >> 18))
      bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 12 & 0x3F))
      bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar >> 6 & 0x3F))
      bytes.append(UInt8(truncatingIfNeeded: 0x80 | scalar & 0x3F))
    }
  }

  /// The text with every ill-formed part replaced by U+FFFD, as Unicode recommends.
  package static func repaired(_ bytes: [UInt8]) -> [UInt8] {
    isValid(bytes) ? bytes : Array(String(decoding: bytes, as: UTF8.self).utf8)
  }

  package static func isValid(_ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBufferPointer { buffer in
      var offset = 0
      while offset < buffer.count {
        if buffer[offset] < 0x80 {
          offset += 1
          continue
        }
        let length = length(in: buffer, at: offset)
        if length == 0 { return false }
        offset += length
      }
      return true
    }
  }
}
