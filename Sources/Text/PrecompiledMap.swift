/// SentencePiece's compiled normalization rules: a double-array trie (darts-clone) from byte
/// strings to replacements.
///
/// Layout: a 32-bit little-endian count of trie bytes, the trie as 32-bit units, then the
/// replacements, each ended by a zero byte.
public struct PrecompiledMap: Sendable {
  private let units: [UInt32]
  private let replacements: [UInt8]

  /// - Returns: `nil` when the header does not fit the bytes.
  public init?(_ bytes: [UInt8]) {
    guard bytes.count >= 4 else { return nil }
    func word(_ offset: Int) -> UInt32 {
      (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << (8 * $1) }
    }
    let size = Int(word(0))
    guard size % 4 == 0, size > 0, size <= bytes.count - 4 else { return nil }
    units = stride(from: 4, to: 4 + size, by: 4).map(word)
    replacements = Array(bytes[(4 + size)...])
    guard UTF8Sequence.isValid(replacements) else { return nil }
  }

  /// The text with the rules applied as `tokenizers` applies them: a grapheme of fewer than six
  /// bytes is looked up whole (its *shortest* prefix in the trie replaces it), any other one
  /// scalar by scalar.
  public func normalized(_ text: [UInt8]) -> [UInt8] {
    var output: [UInt8] = []
    output.reserveCapacity(text.count)
    // Plain ASCII is a grapheme per byte, except before a combining character and in CR LF.
    text.withUnsafeBufferPointer { bytes in
      var index = 0
      while index < bytes.count {
        var end = index
        while end < bytes.count, bytes[end] < 0x80 { end += 1 }
        // The last ASCII byte, or CR LF, may belong to the grapheme that the wide text starts.
        var plainEnd = end < bytes.count ? max(index, end - 1) : end
        if plainEnd < end, plainEnd > index, bytes[plainEnd - 1] == 0x0D, bytes[plainEnd] == 0x0A {
          plainEnd -= 1
        }
        appendPlain(UnsafeBufferPointer(rebasing: bytes[index..<plainEnd]), to: &output)
        index = plainEnd
        if index == bytes.count { break }
        // Wide text runs to the next pair of ASCII bytes: a boundary lies between them unless
        // they are CR LF.
        var wideEnd = end
        while wideEnd < bytes.count {
          if bytes[wideEnd] < 0x80, wideEnd + 1 == bytes.count || bytes[wideEnd + 1] < 0x80,
            bytes[wideEnd] != 0x0D
          {
            break
          }
          wideEnd += 1
        }
        wideEnd = min(bytes.count, wideEnd + (wideEnd < bytes.count ? 1 : 0))
        for grapheme in String(decoding: bytes[index..<wideEnd], as: UTF8.self) {
          append(Array(grapheme.utf8), to: &output)
        }
        index = wideEnd
      }
    }
    return output
  }

  private func appendPlain(_ bytes: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) {
    var index = 0
    while index < bytes.count {
      let isLineEnd =
        bytes[index] == 0x0D && index + 1 < bytes.count && bytes[index + 1] == 0x0A
      let count = isLineEnd ? 2 : 1
      append(UnsafeBufferPointer(rebasing: bytes[index..<index + count]), to: &output)
      index += count
    }
  }

  private func append(_ grapheme: [UInt8], to output: inout [UInt8]) {
    grapheme.withUnsafeBufferPointer { append($0, to: &output) }
  }

  private func append(_ grapheme: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) {
    if grapheme.count < 6, let replacement = replacement(for: grapheme) {
      output.append(contentsOf: replacement)
      return
    }
    var index = 0
    while index < grapheme.count {
      let length = max(1, UTF8Sequence.length(in: grapheme, at: index))
      let scalar = UnsafeBufferPointer(rebasing: grapheme[index..<index + length])
      if let replacement = replacement(for: scalar) {
        output.append(contentsOf: replacement)
      } else {
        output.append(contentsOf: scalar)
      }
      index += length
    }
  }

  /// The replacement of the shortest prefix that has one.
  private func replacement(for key: UnsafeBufferPointer<UInt8>) -> ArraySlice<UInt8>? {
    func offset(_ unit: UInt32) -> Int { Int(unit >> 10) << Int((unit & 1 << 9) >> 6) }
    var node = offset(units[0])
    for byte in key {
      if byte == 0 { return nil }
      node ^= Int(byte)
      guard node < units.count else { return nil }
      let unit = units[node]
      guard unit & (1 << 31 | 0xFF) == UInt32(byte) else { return nil }
      node ^= offset(unit)
      if unit >> 8 & 1 == 1 {
        guard node < units.count else { return nil }
        let start = Int(units[node] & 0x7FFF_FFFF)
        guard start <= replacements.count else { return nil }
        return replacements[start...].prefix { $0 != 0 }
      }
    }
    return nil
  }
}
