import Testing
import Text
import Tokenizers

@Suite struct TokenizerTests {
  private func tokenizer(_ name: String) throws -> Tokenizer {
    let golden = try #require(GoldenTests.encodings.first { $0.description == name })
    return try Tokenizer(json: golden.document)
  }

  @Test func tokensAreFoundByTextAndByID() throws {
    let tokenizer = try tokenizer("llama 2")
    #expect(tokenizer.id(of: "<s>") == 1)
    #expect(tokenizer.token(1) == Array("<s>".utf8))
    #expect(tokenizer.isSpecial(1))
    #expect(tokenizer.id(of: "no such token") == nil)
    #expect(tokenizer.token(tokenizer.vocabularySize) == nil)
    for id in 0..<tokenizer.vocabularySize {
      let token = try #require(tokenizer.token(id))
      #expect(tokenizer.id(of: token) == id)
    }
  }

  /// A vocabulary is compared as bytes: Swift's strings take these two for one.
  @Test func canonicallyEquivalentTokensStayApart() throws {
    let document: JSON = [
      "model": ["type": "BPE", "vocab": ["\u{E9}": 0, "e": 1, "\u{301}": 2], "merges": []],
      "decoder": ["type": "Fuse"],
    ]
    let tokenizer = try Tokenizer(json: document)
    #expect(try tokenizer.encode("\u{E9}e\u{301}") == [0, 1, 2])
    #expect(try tokenizer.decode([1, 2]) == [0x65, 0xCC, 0x81])
  }

  @Test(arguments: ["llama 3", "llama 2", "unigram"])
  func manyTasksEncodeAlike(_ name: String) async throws {
    let tokenizer = try tokenizer(name)
    let texts = Golden.texts
    let expected = try texts.map { text throws(TokenizerError) in try tokenizer.encode(text) }
    try await withThrowingTaskGroup(of: [[Int]].self) { group in
      for _ in 0..<16 {
        group.addTask {
          try texts.map { text throws(TokenizerError) in try tokenizer.encode(text) }
        }
      }
      for try await ids in group { #expect(ids == expected) }
    }
  }

  /// More different words than the cache of words holds, each twice.
  @Test(arguments: ["gpt2", "unigram with fallback"])
  func aFullCacheOfWordsIsStillRight(_ name: String) throws {
    let tokenizer = try tokenizer(name)
    let words = (0..<150_000).map { " w\(String($0, radix: 26))" }
    let once = try tokenizer.encode(words.joined(), addSpecialTokens: false)
    let again = try tokenizer.encode((words + words).joined(), addSpecialTokens: false)
    #expect(again.prefix(once.count) == once[...])
    for start in stride(from: 0, to: words.count, by: 29_989) {
      let fresh = try self.tokenizer(name)
      let part = words[start..<min(start + 40, words.count)].joined()
      #expect(
        try fresh.encode(part, addSpecialTokens: false)
          == tokenizer.encode(part, addSpecialTokens: false))
    }
  }
}
