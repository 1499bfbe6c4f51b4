import Text

/// GPT-2's spelling of bytes as printable characters: visible Latin-1 stands for itself, the
/// other bytes for U+0100 onwards (`bytes_to_unicode` in openai/gpt-2's encoder.py).
enum ByteLevelAlphabet {
  /// The scalar that spells each byte.
  static let scalars: [UInt32] = {
    var next: UInt32 = 0x100
    return (UInt32(0)..<256).map { byte in
      if (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE {
        return byte
      }
      defer { next += 1 }
      return next
    }
  }()

  private static let bytes: [Int16] = {
    var bytes = [Int16](repeating: -1, count: 0x144)
    for (byte, scalar) in scalars.enumerated() { bytes[Int(scalar)] = Int16(byte) }
    return bytes
  }()

  /// Appends the spelling of a byte.
  static func append(_ byte: UInt8, to output: inout [UInt8]) {
    UTF8Sequence.append(scalars[Int(byte)], to: &output)
  }

  /// The bytes that a token spells; `nil` when a character stands for none.
  static func decoded(_ token: [UInt8]) -> [UInt8]? {
    token.withUnsafeBufferPointer { token in
      var output: [UInt8] = []
      output.reserveCapacity(token.count)
      var index = 0
      while index < token.count {
        let length = UTF8Sequence.length(in: token, at: index)
        guard length > 0 else { return nil }
        let scalar = Int(UTF8Sequence.scalar(in: token, at: index, length: length))
        guard scalar < bytes.count, bytes[scalar] >= 0 else { return nil }
        output.append(UInt8(bytes[scalar]))
        index += length
      }
      return output
    }
  }
}
