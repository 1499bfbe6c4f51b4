import Text

/// Decodes ids as they are generated: each call returns the text that is certain by now, always
/// whole UTF-8 characters. All of it together is what `decode` returns for the same ids, except
/// that a broken run of fallback bytes yields the characters it holds.
public struct StreamingDecoder: Sendable {
  private let tokenizer: Tokenizer
  private let skipsSpecialTokens: Bool
  private var pipeline: DecoderPipeline

  init(_ tokenizer: Tokenizer, skipsSpecialTokens: Bool) {
    self.tokenizer = tokenizer
    self.skipsSpecialTokens = skipsSpecialTokens
    pipeline = tokenizer.decoderPipeline(isEager: true)
  }

  /// The text that one more id completes; often empty in the middle of a character.
  /// - Throws: `unknownID` when the id lies outside the vocabulary.
  public mutating func push(_ id: Int) throws(TokenizerError) -> [UInt8] {
    guard let token = try tokenizer.decodedToken(id, skipsSpecialTokens: skipsSpecialTokens) else {
      return []
    }
    pipeline.push(token)
    let count = Self.completePrefix(of: pipeline.output)
    let text = UTF8Sequence.repaired(Array(pipeline.output[..<count]))
    pipeline.output.removeFirst(count)
    return text
  }

  /// What remains: an unfinished character becomes U+FFFD.
  public mutating func finish() -> [UInt8] {
    pipeline.finish()
    defer { pipeline.output = [] }
    return UTF8Sequence.repaired(pipeline.output)
  }

  /// The number of bytes before a last character that is still incomplete.
  private static func completePrefix(of bytes: [UInt8]) -> Int {
    for back in 1...3 where back <= bytes.count {
      let byte = bytes[bytes.count - back]
      if byte & 0xC0 == 0x80 { continue }
      let needed =
        switch byte {
        case 0xC2..<0xE0: 2
        case 0xE0..<0xF0: 3
        case 0xF0..<0xF5: 4
        default: 1
        }
      return needed > back ? bytes.count - back : bytes.count
    }
    return bytes.count
  }
}
