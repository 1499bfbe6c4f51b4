import Testing
import Text
import Tokenizers

@Suite struct StreamingTests {
  private func streamed(_ ids: [Int], _ tokenizer: Tokenizer, skips: Bool) throws -> [[UInt8]] {
    var decoder = tokenizer.streamingDecoder(skipSpecialTokens: skips)
    var parts = try ids.map { id throws(TokenizerError) in try decoder.push(id) }
    parts.append(decoder.finish())
    return parts
  }

  @Test(arguments: GoldenTests.encodings)
  func streamedPartsJoinToWhatDecodeReturns(_ golden: Golden.Case) throws {
    let tokenizer = try Tokenizer(json: golden.document)
    for ids in golden.ids("ids") {
      for skips in [true, false] {
        let parts = try streamed(ids, tokenizer, skips: skips)
        #expect(try Array(parts.joined()) == tokenizer.decode(ids, skipSpecialTokens: skips))
      }
    }
  }

  @Test(arguments: GoldenTests.encodings)
  func everyPartIsWholeCharacters(_ golden: Golden.Case) throws {
    let tokenizer = try Tokenizer(json: golden.document)
    for ids in golden.ids("ids") + golden.ids("drawnIDs") {
      for part in try streamed(ids, tokenizer, skips: false) {
        #expect(Array(String(decoding: part, as: UTF8.self).utf8) == part)
      }
    }
  }

  @Test func aCharacterComesWithItsLastByte() throws {
    let golden = try #require(
      GoldenTests.encodings.first { $0.description == "unigram with fallback" })
    let tokenizer = try Tokenizer(json: golden.document)
    let ids = try [0xF0, 0x9F, 0x98, 0x80].map { byte in
      try #require(tokenizer.id(of: "<0x\(String(byte, radix: 16, uppercase: true))>"))
    }
    let parts = try streamed(ids, tokenizer, skips: true)
    #expect(parts == [[], [], [], Array("😀".utf8), []])
    let broken = try streamed(Array(ids.dropLast()), tokenizer, skips: true)
    #expect(broken == [[], [], [], Array("\u{FFFD}\u{FFFD}\u{FFFD}".utf8)])
  }

  @Test func anIDOutsideTheVocabularyIsRefused() throws {
    let golden = try #require(GoldenTests.encodings.first)
    let tokenizer = try Tokenizer(json: golden.document)
    let size = tokenizer.vocabularySize
    for id in [size, -1, .max, .min] {
      var decoder = tokenizer.streamingDecoder()
      #expect(throws: TokenizerError.unknownID(id, vocabularySize: size)) { try decoder.push(id) }
      #expect(throws: TokenizerError.unknownID(id, vocabularySize: size)) {
        try tokenizer.decode([0, id])
      }
      #expect(tokenizer.token(id) == nil)
    }
  }
}
