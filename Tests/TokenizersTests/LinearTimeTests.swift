import TestSupport
import Testing
import Text
import Tokenizers

/// Long texts that no pre-tokenizer cuts, in many shapes: quadratic work would take minutes.
@Suite struct LinearTimeTests {
  static let names = [
    "gpt2", "bytes without pattern", "llama 3", "qwen 2", "o200k", "deepseek", "llama 2", "gemma",
    "mistral, first, split True", "unigram", "unigram whole", "unigram with fallback",
    "longest of several", "byte-level normalizer", "strips left True, right True",
  ]

  static let units: [(name: String, unit: String)] = [
    ("one letter", "a"), ("letters", "theandouqusunlonapika"), ("spaces", " "),
    ("newlines", "\r\n"),
    ("digits", "0123456789"), ("marks", "\u{301}\u{323}"), ("emoji", "👩‍👩‍👧‍👦"), ("Han", "天気猫窓"),
    ("punctuation", "!?"), ("capitals", "AB"), ("unknown", "\u{10FFFF}"), ("mask", "[MASK"),
  ]

  private func check(_ name: String, _ kind: String, _ unit: String, count: Int) throws {
    let golden = try #require(GoldenTests.encodings.first { $0.description == name })
    let tokenizer = try Tokenizer(json: golden.document)
    let unit = Array(unit.utf8)
    let text = Array(repeatElement(unit, count: count / unit.count).joined())
    let clock = ContinuousClock()
    var ids: [Int] = []
    let encoding = try clock.measure { ids = try tokenizer.encode(text) }
    #expect(encoding < .seconds(5), "encoding \(kind) took \(encoding)")
    let decoding = try clock.measure { _ = try tokenizer.decode(ids) }
    #expect(decoding < .seconds(5), "decoding \(kind) took \(decoding)")
    if longTestsAreOn { print("\(name), \(kind): \(encoding), \(decoding)") }
  }

  @Test(arguments: [
    "bytes without pattern", "llama 3", "llama 2", "gemma", "unigram", "unigram with fallback",
  ])
  func oneMegabyteOfALetterTakesSeconds(_ name: String) throws {
    try check(name, "one letter", "a", count: 1 << 20)
  }

  @Test(arguments: names) func longRunsOfAnyKindTakeTheirShare(_ name: String) throws {
    for (kind, unit) in Self.units {
      try check(name, kind, unit, count: longTestsAreOn ? 1 << 20 : 1 << 15)
    }
  }

  @Test(arguments: ["a", "ab1 ", "é\u{301}天"]) func normalFormsOfLongRunsTakeTheirShare(
    _ unit: String
  ) {
    let text = Array(String(repeating: unit, count: (1 << 20) / unit.utf8.count).utf8)
    for form in NormalForm.allCases {
      let elapsed = ContinuousClock().measure { _ = form.normalized(text) }
      #expect(elapsed < .seconds(5), "\(form) took \(elapsed)")
    }
  }
}
