/// How a generated text becomes the words that its metrics count. A word is UTF-8 bytes.
///
/// Scores of generated text depend on this more than on anything else, so every metric's protocol
/// names the tokenization it used.
package enum WordTokenization {
  package typealias Word = [UInt8]

  /// What `rouge-score` counts: lower-cased runs of ASCII letters and digits; everything else
  /// separates. Text in other scripts has no words under this definition.
  ///
  /// - Parameter stemmed: reduces words of more than three letters by Porter's algorithm.
  package static func alphanumeric(_ text: String, stemmed: Bool = false) -> [Word] {
    let words = lowercased(text).utf8.split { byte in
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): false
      default: true
      }
    }
    return words.map { word in
      stemmed && word.count > 3 ? PorterStemmer.stem(Array(word)) : Array(word)
    }
  }

  /// The tokenization `13a` of sacreBLEU, which is that of NIST's `mteval-v13a`: punctuation stands
  /// alone, but for full stops and commas inside numbers, and apostrophes and hyphens inside words.
  package static func mteval13a(_ text: String, lowercased isLowercased: Bool = false) -> [Word] {
    var bytes = Array(withoutTrailingWhitespace(isLowercased ? lowercased(text) : text).utf8)
    for (entity, replacement) in [("<skipped>", ""), ("-\n", ""), ("\n", " ")] {
      bytes = bytes.replacing(Array(entity.utf8), with: Array(replacement.utf8))
    }
    // In this order, so that `&amp;lt;` becomes `<`.
    for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")]
    where bytes.contains(UInt8(ascii: "&")) {
      bytes = bytes.replacing(Array(entity.utf8), with: Array(character.utf8))
    }
    let space = UInt8(ascii: " ")
    var line = [space] + bytes + [space]
    line = line.flatMap { isSymbol($0) ? [space, $0, space] : [$0] }
    line = replacingPairs(line, where: { !isDigit($0) && isPoint($1) }) {
      [$0, space, $1, space]
    }
    line = replacingPairs(line, where: { isPoint($0) && !isDigit($1) }) {
      [space, $0, space, $1]
    }
    line = replacingPairs(line, where: { isDigit($0) && $1 == UInt8(ascii: "-") }) {
      [$0, space, $1, space]
    }
    return splitAtWhitespace(String(decoding: line, as: UTF8.self))
  }

  // MARK: Parts

  /// Punctuation that is split off wherever it stands: all of ASCII's but `'`, `,`, `-` and `.`;
  /// the space among it does no harm.
  private static func isSymbol(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x7B...0x7E, 0x5B...0x60, 0x20...0x26, 0x28...0x2B, 0x3A...0x40, 0x2F: true
    default: false
    }
  }

  private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
  private static func isPoint(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: ".") || byte == UInt8(ascii: ",")
  }

  /// Replaces pairs of neighbours from left to right; a byte belongs to one pair at most, so `...`
  /// after a letter gives up its dots by ones and twos as the definition's patterns do.
  private static func replacingPairs(
    _ bytes: [UInt8], where matches: (UInt8, UInt8) -> Bool,
    with replacement: (UInt8, UInt8) -> [UInt8]
  ) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count + bytes.count / 4)
    var index = 0
    while index < bytes.count {
      if index + 1 < bytes.count, matches(bytes[index], bytes[index + 1]) {
        result += replacement(bytes[index], bytes[index + 1])
        index += 2
      } else {
        result.append(bytes[index])
        index += 1
      }
    }
    return result
  }

  /// Unicode's white space and the four separators of ASCII, as Python's `str.split` has it.
  private static func isWhitespace(_ scalar: Unicode.Scalar) -> Bool {
    (0x1C...0x1F).contains(scalar.value) || scalar.properties.isWhitespace
  }

  private static func splitAtWhitespace(_ text: String) -> [Word] {
    text.unicodeScalars.split(whereSeparator: isWhitespace).map { Array(String($0).utf8) }
  }

  private static func withoutTrailingWhitespace(_ text: String) -> String {
    var scalars = Substring(text).unicodeScalars
    while let last = scalars.last, isWhitespace(last) { scalars.removeLast() }
    return String(scalars)
  }

  /// Unicode's full lower-case mapping, a sigma at a word's end included, which
  /// `String.lowercased()` leaves out.
  package static func lowercased(_ text: String) -> String {
    if text.utf8.allSatisfy({ $0 < 0x80 }) { return text.lowercased() }
    let scalars = Array(text.unicodeScalars)
    var result = ""
    for (index, scalar) in scalars.enumerated() {
      if scalar == "\u{03A3}" {
        let before = scalars[..<index].reversed().first { !$0.properties.isCaseIgnorable }
        let after = scalars[(index + 1)...].first { !$0.properties.isCaseIgnorable }
        let isFinal = before?.properties.isCased ?? false && !(after?.properties.isCased ?? false)
        result.unicodeScalars.append(isFinal ? "\u{03C2}" : "\u{03C3}")
      } else {
        result += scalar.properties.lowercaseMapping
      }
    }
    return result
  }
}

extension [UInt8] {
  /// Every occurrence of `part`, from left to right without overlap, replaced.
  fileprivate func replacing(_ part: [UInt8], with replacement: [UInt8]) -> [UInt8] {
    guard let first = part.first, contains(first) else { return self }
    var result: [UInt8] = []
    result.reserveCapacity(count)
    var index = 0
    while index < count {
      if self[index] == first, self[index...].starts(with: part) {
        result += replacement
        index += part.count
      } else {
        result.append(self[index])
        index += 1
      }
    }
    return result
  }
}
