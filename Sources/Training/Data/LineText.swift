import Text

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The few questions about bytes of text that reading documents asks.
enum LineText {
  /// Space, tab, line feed, vertical tab, form feed, carriage return.
  @inline(__always)
  static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }

  static func trimmed(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) -> Range<Int> {
    var (start, end) = (range.lowerBound, range.upperBound)
    while start < end, isSpace(bytes[start]) { start += 1 }
    while end > start, isSpace(bytes[end - 1]) { end -= 1 }
    return start..<end
  }

  /// Where a byte occurs first.
  static func first(
    _ byte: UInt8, in bytes: UnsafeRawBufferPointer, _ range: Range<Int>
  ) -> Int? {
    guard let base = bytes.baseAddress, !range.isEmpty,
      let found = memchr(base + range.lowerBound, Int32(byte), range.count)
    else { return nil }
    return UnsafeRawPointer(found) - base
  }

  /// Where the first ill-formed UTF-8 sequence starts.
  static func firstInvalid(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) -> Int? {
    bytes.withMemoryRebound(to: UInt8.self) { text in
      var offset = range.lowerBound
      while offset < range.upperBound {
        if offset + 8 <= range.upperBound,
          bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
        {
          offset += 8
          continue
        }
        let length = UTF8Sequence.length(in: text, at: offset)
        if length == 0 || offset + length > range.upperBound { return offset }
        offset += length
      }
      return nil
    }
  }

  /// The separator's next occurrence. Its line breaks, but for one at its start, may be CRLF; the
  /// carriage return before a first one is white space, which is trimmed from the document.
  static func next(
    _ separator: [UInt8], in bytes: UnsafeRawBufferPointer, from start: Int
  ) -> Range<Int>? {
    var position = start
    while let candidate = first(separator[0], in: bytes, position..<bytes.count) {
      if let end = match(separator, bytes, candidate) { return candidate..<end }
      position = candidate + 1
    }
    return nil
  }

  private static func match(
    _ separator: [UInt8], _ bytes: UnsafeRawBufferPointer, _ start: Int
  ) -> Int? {
    var position = start
    for byte in separator {
      if byte == 0x0A, position + 1 < bytes.count, bytes[position] == 0x0D { position += 1 }
      guard position < bytes.count, bytes[position] == byte else { return nil }
      position += 1
    }
    return position
  }

  /// Where a long text is cut: after the last line break of its second half, or before the last
  /// space, or at the last character's border.
  static func cut(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>) -> Int {
    let middle = range.lowerBound + range.count / 2
    let second = middle..<range.upperBound
    if let line = second.last(where: { bytes[$0] == 0x0A }) { return line + 1 }
    if let space = second.last(where: { bytes[$0] == 0x20 }), space > range.lowerBound {
      return space
    }
    var end = range.upperBound
    while end > range.lowerBound + 1, bytes[end] & 0xC0 == 0x80 { end -= 1 }
    return end
  }
}
