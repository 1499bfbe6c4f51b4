import Testing
import Text
import Tokenizers

@Suite struct GoldenTests {
  static let encodings = Golden.cases("encoding") + Golden.cases("added-tokens")
  static let components = Golden.cases("components")

  @Test func theGoldenFilesAreWhole() {
    #expect(Golden.texts.count > 50)
    #expect(Self.encodings.count > 30)
    #expect(Self.components.count > 50)
  }

  @Test(arguments: encodings) func encodesAsHuggingFace(_ golden: Golden.Case) throws {
    let tokenizer = try Tokenizer(json: golden.document)
    let expected = golden.ids("ids")
    #expect(expected.count == Golden.texts.count)
    for (text, ids) in zip(Golden.texts, expected) {
      #expect(try tokenizer.encode(text) == ids, "\(shown(text))")
    }
    for (text, ids) in zip(Golden.texts, golden.ids("plainIDs")) {
      #expect(try tokenizer.encode(text, addSpecialTokens: false) == ids, "\(shown(text))")
    }
  }

  @Test(arguments: encodings) func decodesAsHuggingFace(_ golden: Golden.Case) throws {
    let tokenizer = try Tokenizer(json: golden.document)
    for (key, skips) in [("decoded", true), ("decodedWithSpecial", false)] {
      for (text, (ids, expected)) in zip(Golden.texts, zip(golden.ids("ids"), golden.texts(key))) {
        let decoded = try tokenizer.decode(ids, skipSpecialTokens: skips)
        #expect(decoded == expected ?? text, "\(shown(decoded)) for \(shown(expected ?? text))")
      }
    }
    for (ids, expected) in zip(golden.ids("drawnIDs"), golden.texts("drawnDecoded")) {
      let decoded = try tokenizer.decode(ids, skipSpecialTokens: false)
      #expect(decoded == expected, "\(shown(decoded)) for \(shown(expected)) of \(ids)")
    }
  }

  @Test(arguments: components) func cutsAsHuggingFace(_ golden: Golden.Case) throws {
    let tokenizer = try Tokenizer(json: golden.document)
    let expected = golden.record["pieces"]?.array ?? []
    #expect(expected.count == Golden.texts.count)
    for (text, row) in zip(Golden.texts, expected) {
      let pieces = tokenizer.pieces(of: text)
      let golden = row.array?.compactMap(\.bytes) ?? []
      #expect(pieces == golden, "\(pieces.map { shown($0) }) for \(golden.map { shown($0) })")
    }
  }
}
