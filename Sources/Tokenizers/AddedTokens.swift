import Text

/// A token found in the text itself, before any model sees it.
struct AddedToken: Sendable {
  let id: Int
  let content: [UInt8]
  let isSpecial: Bool
  /// Only where no word character touches it.
  let isSingleWord: Bool
  /// Takes the whitespace on its left, or right, with it.
  let stripsLeft: Bool
  let stripsRight: Bool
  /// Looked for in the normalized text.
  let isNormalized: Bool

  init(_ component: Component) throws(TokenizerError) {
    id = try component.int("id")
    content = try component.bytes("content")
    isSpecial = try component.bool("special", default: false)
    isSingleWord = try component.bool("single_word", default: false)
    stripsLeft = try component.bool("lstrip", default: false)
    stripsRight = try component.bool("rstrip", default: false)
    isNormalized = try component.bool("normalized", default: !isSpecial)
    guard (0..<Vocabulary.maximumSize).contains(id) else {
      throw component.wrong("id", "is not a token id")
    }
  }
}

/// Finds added tokens: at the leftmost place the longest.
struct AddedTokenMatcher: Sendable {

  private let tokens: [AddedToken]
  private var edges = ScalarPairTable()
  private var terminals: [Int32] = [-1]
  private var mayStart = [Bool](repeating: false, count: 256)

  /// - Parameter spellings: the bytes to look for, one per token.
  init(_ tokens: [AddedToken], spellings: [[UInt8]]) {
    self.tokens = tokens
    for (index, spelling) in spellings.enumerated() {
      guard let first = spelling.first else { continue }
      mayStart[Int(first)] = true
      var node = 0
      for byte in spelling {
        let key = UInt64(node) << 8 | UInt64(byte)
        if let child = edges.value(key) {
          node = Int(child)
        } else {
          edges.insert(key, Int32(terminals.count))
          node = terminals.count
          terminals.append(-1)
        }
      }
      if terminals[node] < 0 { terminals[node] = Int32(index) }
    }
  }

  var isEmpty: Bool { terminals.count == 1 }

  /// Cuts the text at its added tokens. Follows `find_matches` of `tokenizers`.
  func segments(of text: [UInt8]) -> [(range: Range<Int>, token: AddedToken?)] {
    if text.isEmpty { return [] }
    if isEmpty { return [(0..<text.count, nil)] }
    var segments: [(range: Range<Int>, token: AddedToken?)] = []
    text.withUnsafeBufferPointer { text in
      var done = 0
      var index = 0
      while index < text.count {
        guard mayStart[Int(text[index])], let (length, token) = longest(in: text, at: index) else {
          index += 1
          continue
        }
        var start = index
        var end = index + length
        index = end
        let added = tokens[token]
        if added.isSingleWord, Self.touchesWord(text, start, end) { continue }
        if added.stripsLeft { start = max(Self.whitespaceStart(text, before: start), done) }
        if added.stripsRight { end = Self.whitespaceEnd(text, from: end) }
        if done < start { segments.append((done..<start, nil)) }
        segments.append((min(start, end)..<end, added))
        done = end
      }
      if done < text.count { segments.append((done..<text.count, nil)) }
    }
    return segments
  }

  private func longest(
    in text: UnsafeBufferPointer<UInt8>, at start: Int
  ) -> (length: Int, token: Int)? {
    var node = 0
    var best: (length: Int, token: Int)?
    var index = start
    while index < text.count,
      let child = edges.value(UInt64(node) << 8 | UInt64(text[index]))
    {
      node = Int(child)
      index += 1
      if terminals[node] >= 0 { best = (index - start, Int(terminals[node])) }
    }
    return best
  }

  private static func touchesWord(
    _ text: UnsafeBufferPointer<UInt8>, _ start: Int, _ end: Int
  ) -> Bool {
    if end < text.count, ScalarKind.isWord(scalar(text, at: end).value) { return true }
    return start > 0 && ScalarKind.isWord(scalar(text, before: start).value)
  }

  private static func whitespaceStart(
    _ text: UnsafeBufferPointer<UInt8>, before end: Int
  ) -> Int {
    var start = end
    while start > 0 {
      let (value, length) = scalar(text, before: start)
      guard ScalarKind.isWhitespace(value) else { break }
      start -= length
    }
    return start
  }

  private static func whitespaceEnd(_ text: UnsafeBufferPointer<UInt8>, from start: Int) -> Int {
    var end = start
    while end < text.count {
      let (value, length) = scalar(text, at: end)
      guard ScalarKind.isWhitespace(value) else { break }
      end += length
    }
    return end
  }

  private static func scalar(
    _ text: UnsafeBufferPointer<UInt8>, at index: Int
  ) -> (value: UInt32, length: Int) {
    let length = max(1, UTF8Sequence.length(in: text, at: index))
    return (UTF8Sequence.scalar(in: text, at: index, length: length), length)
  }

  private static func scalar(
    _ text: UnsafeBufferPointer<UInt8>, before end: Int
  ) -> (value: UInt32, length: Int) {
    var start = end - 1
    while start > 0, text[start] & 0xC0 == 0x80 { start -= 1 }
    let (value, _) = scalar(text, at: start)
    return (value, end - start)
  }
}
