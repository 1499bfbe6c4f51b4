/// RFC 4648 base64.
package enum Base64 {
  /// The bytes that `text` spells, padding optional; `nil` when it is not base64.
  package static func decoded(_ text: UnsafeBufferPointer<UInt8>) -> [UInt8]? {
    var digits = text[...]
    while digits.last == UInt8(ascii: "=") { digits = digits.dropLast() }
    var output: [UInt8] = []
    output.reserveCapacity(digits.count / 4 * 3 + 3)
    var buffer: UInt32 = 0
    var bits = 0
    for digit in digits {
      let value: UInt8
      switch digit {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = digit - 65
      case UInt8(ascii: "a")...UInt8(ascii: "z"): value = digit - 71
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit + 4
      case UInt8(ascii: "+"): value = 62
      case UInt8(ascii: "/"): value = 63
      default: return nil
      }
      buffer = buffer << 6 | UInt32(value)
      bits += 6
      if bits >= 8 {
        bits -= 8
        output.append(UInt8(truncatingIfNeeded: buffer >> bits))
      }
    }
    return digits.count % 4 == 1 ? nil : output
  }

  package static func decoded(_ text: [UInt8]) -> [UInt8]? {
    text.withUnsafeBufferPointer { decoded($0) }
  }
}
