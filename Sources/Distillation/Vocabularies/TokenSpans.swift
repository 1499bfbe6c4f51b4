package import Tokenizers

/// Where the tokens of a text end in its bytes.
package struct TokenSpans: Sendable {
  package let tokens: [Int]
  /// What the tokens spell, special ones left out.
  package let text: [UInt8]
  /// For a byte offset the first token after which the text so far is exactly the bytes before it.
  /// Offsets inside a character, or of none, are missing.
  package let tokenEnding: [Int: Int]

  /// - Throws: `TokenizerError` for an id outside the vocabulary.
  package init(_ tokens: [Int], _ tokenizer: Tokenizer) throws {
    var decoder = tokenizer.streamingDecoder()
    var text: [UInt8] = []
    var ends: [Int: Int] = [:]
    for (index, token) in tokens.enumerated() {
      let piece = try decoder.push(token)
      text += piece
      // A token that adds no text is special, or the first part of a character.
      if !piece.isEmpty || tokenizer.isSpecial(token), ends[text.count] == nil {
        ends[text.count] = index
      }
    }
    text += decoder.finish()
    self.tokens = tokens
    self.text = text
    tokenEnding = ends
  }

  /// For each of these tokens the one of another tokenization of the same text that ends with it: both
  /// have read the same bytes and say what comes next. None after the texts part, where a tokenizer
  /// changes what it reads or the other one was cut.
  package func aligned(with other: TokenSpans) -> [Int?] {
    var places = [Int?](repeating: nil, count: tokens.count)
    let common = zip(text, other.text).prefix { $0 == $1 }.count
    for (offset, index) in tokenEnding where offset <= common {
      places[index] = other.tokenEnding[offset]
    }
    return places
  }
}
