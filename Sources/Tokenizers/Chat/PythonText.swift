import Text

/// Strings as Python has them, over UTF-8: lengths and indices count scalars, whitespace and case
/// are Unicode's. All arguments are valid UTF-8.
enum PythonText {
  /// `str.isspace`, which is also `\s`.
  static func isSpace(_ scalar: UInt32) -> Bool {
    switch scalar {
    case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F,
      0x205F, 0x3000:
      true
    default: false
    }
  }

  static func scalars(_ text: [UInt8]) -> [UInt32] {
    String(decoding: text, as: UTF8.self).unicodeScalars.map(\.value)
  }

  static func bytes<S: Sequence>(_ scalars: S) -> [UInt8] where S.Element == UInt32 {
    var bytes: [UInt8] = []
    for scalar in scalars { UTF8Sequence.append(scalar, to: &bytes) }
    return bytes
  }

  static func count(_ text: [UInt8]) -> Int { text.count { $0 & 0xC0 != 0x80 } }

  static func isASCII(_ text: [UInt8]) -> Bool { text.allSatisfy { $0 < 0x80 } }

  /// Where the whitespace at `start` ends.
  static func endOfSpace(in text: [UInt8], from start: Int) -> Int {
    text.withUnsafeBufferPointer { text in
      var index = start
      while index < text.count {
        let length = UTF8Sequence.length(in: text, at: index)
        guard length > 0, isSpace(UTF8Sequence.scalar(in: text, at: index, length: length)) else {
          break
        }
        index += length
      }
      return index
    }
  }

  static func leftStripped(_ text: [UInt8], _ isStripped: (UInt32) -> Bool = isSpace) -> [UInt8] {
    bytes(scalars(text).drop(while: isStripped))
  }

  static func rightStripped(_ text: [UInt8], _ isStripped: (UInt32) -> Bool = isSpace) -> [UInt8] {
    var scalars = scalars(text)
    while let last = scalars.last, isStripped(last) { scalars.removeLast() }
    return bytes(scalars)
  }

  static func stripped(_ text: [UInt8], _ isStripped: (UInt32) -> Bool = isSpace) -> [UInt8] {
    rightStripped(leftStripped(text, isStripped), isStripped)
  }

  // MARK: Case

  private static func mapped(
    _ text: [UInt8], _ change: (Unicode.Scalar.Properties) -> String
  ) -> [UInt8] {
    String(decoding: text, as: UTF8.self).unicodeScalars.flatMap {
      Array(change($0.properties).utf8)
    }
  }

  static func uppercased(_ text: [UInt8]) -> [UInt8] { mapped(text, \.uppercaseMapping) }

  /// A capital sigma becomes a final one where a word ends (Unicode, section 3.13).
  static func lowercased(_ text: [UInt8]) -> [UInt8] {
    let scalars = Array(String(decoding: text, as: UTF8.self).unicodeScalars)
    var result: [UInt8] = []
    for (index, scalar) in scalars.enumerated() {
      guard scalar.value == 0x3A3 else {
        result += Array(scalar.properties.lowercaseMapping.utf8)
        continue
      }
      let before = scalars[..<index].last { !$0.properties.isCaseIgnorable }
      let after = scalars[(index + 1)...].first { !$0.properties.isCaseIgnorable }
      let isFinal = before?.properties.isCased == true && after?.properties.isCased != true
      UTF8Sequence.append(isFinal ? 0x3C2 : 0x3C3, to: &result)
    }
    return result
  }

  static func capitalized(_ text: [UInt8]) -> [UInt8] {
    let scalars = scalars(text)
    guard let first = scalars.first else { return [] }
    return mapped(bytes([first]), \.titlecaseMapping) + lowercased(bytes(scalars.dropFirst()))
  }

  /// `str.title`: every cased character after an uncased one starts a word.
  static func titled(_ text: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    var isInside = false
    for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
      let properties = scalar.properties
      result += Array((isInside ? properties.lowercaseMapping : properties.titlecaseMapping).utf8)
      isInside = properties.isCased
    }
    return result
  }

  // MARK: Searching

  /// Byte offsets where `needle`, which is not empty, occurs without overlap.
  static func occurrences(of needle: [UInt8], in text: [UInt8], limit: Int = .max) -> [Int] {
    var found: [Int] = []
    var index = 0
    while index + needle.count <= text.count, found.count < limit {
      if text[index] == needle[0], text[index..<(index + needle.count)].elementsEqual(needle) {
        found.append(index)
        index += needle.count
      } else {
        index += 1
      }
    }
    return found
  }

  static func replaced(
    _ text: [UInt8], _ old: [UInt8], _ new: [UInt8], limit: Int = .max
  ) -> [UInt8] {
    var result: [UInt8] = []
    if old.isEmpty {
      // Python puts the new text around every scalar.
      for (index, scalar) in scalars(text).enumerated() {
        if index < limit { result += new }
        UTF8Sequence.append(scalar, to: &result)
      }
      return count(text) < limit ? result + new : result
    }
    var end = 0
    for offset in occurrences(of: old, in: text, limit: limit) {
      result += text[end..<offset]
      result += new
      end = offset + old.count
    }
    return result + text[end...]
  }

  static func split(_ text: [UInt8], by separator: [UInt8], limit: Int = .max) -> [[UInt8]] {
    var parts: [[UInt8]] = []
    var end = 0
    for offset in occurrences(of: separator, in: text, limit: limit) {
      parts.append(Array(text[end..<offset]))
      end = offset + separator.count
    }
    return parts + [Array(text[end...])]
  }

  static func splitFromRight(_ text: [UInt8], by separator: [UInt8], limit: Int) -> [[UInt8]] {
    let reversed = split(text.reversed(), by: separator.reversed(), limit: limit)
    return reversed.reversed().map { $0.reversed() }
  }

  /// Words between whitespace; after `limit` splits the rest stays whole.
  static func words(_ text: [UInt8], limit: Int = .max) -> [[UInt8]] {
    var words: [[UInt8]] = []
    var rest = scalars(text).drop(while: isSpace)
    while !rest.isEmpty {
      if words.count == limit {
        words.append(bytes(rest))
        break
      }
      words.append(bytes(rest.prefix { !isSpace($0) }))
      rest = rest.drop { !isSpace($0) }.drop(while: isSpace)
    }
    return words
  }

  static func lines(_ text: [UInt8], keepsEnds: Bool) -> [[UInt8]] {
    var lines: [[UInt8]] = []
    var line: [UInt32] = []
    let scalars = scalars(text)
    var index = 0
    while index < scalars.count {
      let scalar = scalars[index]
      index += 1
      switch scalar {
      case 0x0A...0x0D, 0x1C...0x1E, 0x85, 0x2028, 0x2029:
        var end = [scalar]
        if scalar == 0x0D, index < scalars.count, scalars[index] == 0x0A {
          end.append(0x0A)
          index += 1
        }
        lines.append(bytes(keepsEnds ? line + end : line))
        line = []
      default: line.append(scalar)
      }
    }
    return line.isEmpty ? lines : lines + [bytes(line)]
  }
}
