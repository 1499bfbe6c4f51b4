import Testing
import Text
import Tokenizers

/// A megabyte that no pre-tokenizer cuts, in many shapes: quadratic work would take minutes.
@Suite struct LinearTimeTests {
  static let names = [
    "gpt2", "bytes without pattern", "llama 3", "qwen 2", "o200k", "deepseek", "llama 2", "gemma",
    "mistral, first, split True", "unigram", "unigram whole", "unigram with fallback",
    "longest of several", "byte-level normalizer", "strips left True, right True",
  ]

  static let texts: [(name: String, unit: String)] = [
    ("one letter", "a"), ("letters", "theandouqusunlonapika"), ("spaces", " "),
    ("newlines", "\r\n"),
    ("digits", "0123456789"), ("marks", "\u{301}\u{323}"), ("emoji", "👩‍👩‍👧‍👦"), ("Han", "天気猫窓"),
    ("punctuation", "!?"), ("capitals", "AB"), ("unknown", "\u{10FFFF}"), ("mask", "[MASK"),
  ]

  @Test(arguments: names) func aMegabyteIsEncodedInSeconds(_ name: String) throws {
    let golden = try #require(GoldenTests.encodings.first { $0.description == name })
    let tokenizer = try Tokenizer(json: golden.document)
    let clock = ContinuousClock()
    for (kind, unit) in Self.texts {
      let unit = Array(unit.utf8)
      var text: [UInt8] = []
      while text.count < 1 << 20 { text += unit }
      var ids: [Int] = []
      let elapsed = try clock.measure { ids = try tokenizer.encode(text) }
      #expect(elapsed < .seconds(5), "\(kind) took \(elapsed)")
      let decoding = try clock.measure { _ = try tokenizer.decode(ids) }
      #expect(decoding < .seconds(5), "decoding \(kind) took \(decoding)")
    }
  }
}
