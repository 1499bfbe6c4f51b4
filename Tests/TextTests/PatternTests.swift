import Testing
import Text

@Suite struct PatternTests {
  private func matches(_ source: String, _ text: String) throws -> [String] {
    let bytes = Array(text.utf8)
    return try Pattern(source).matches(in: bytes).map { String(decoding: bytes[$0], as: UTF8.self) }
  }

  @Test func theFirstAlternativeThatMatchesWins() throws {
    #expect(try matches("a|ab|abc", "abc") == ["a"])
    #expect(try matches("abc|ab|a", "abab") == ["ab", "ab"])
    #expect(try matches("(?:a|ab)(?:c|bcd)", "abcd") == ["abcd"])
    #expect(try matches("(?:a|b)*?b|x", "aab") == ["aab"])
    #expect(try matches("a{2,3}?|a", "aaaa") == ["aa", "aa"])
    #expect(try matches("a{2,3}|a", "aaaa") == ["aaa", "a"])
  }

  @Test func lookaheadSeesOneCharacterOrTheEnd() throws {
    #expect(try matches(#"\s+(?!\S)|\s+"#, "a   b  ") == ["  ", " ", "  "])
    #expect(try matches(#"\d+(?=a|$)"#, "12a34b56") == ["12", "56"])
    #expect(try matches(#"x\z|x(?=\n)"#, "x x\nx") == ["x", "x"])
  }

  @Test func possessiveQuantifiersGiveNothingBack() throws {
    #expect(try matches("a++a|b", "aaab") == ["b"])
    #expect(try matches("a*+b", "aabab") == ["aab", "ab"])
    #expect(try matches("a?+a", "aab") == ["aa"])
  }

  @Test func emptyMatchesCountUnlessTheyTouchTheLastOne() throws {
    #expect(try Pattern("a*").matches(in: Array("baac".utf8)) == [0..<0, 1..<3, 4..<4])
    #expect(try Pattern("").matches(in: Array("é".utf8)) == [0..<0, 2..<2])
    #expect(try Pattern("x?").matches(in: []) == [0..<0])
  }

  @Test func classesNestIntersectAndNegate() throws {
    #expect(try matches(#"[a-c[x-z]&&[^b]]+"#, "abcxyz") == ["a", "cxyz"])
    #expect(try matches(#"[^\d\s-]+"#, "ab-1 c") == ["ab", "c"])
    #expect(try matches(#"[]a]+"#, "]a[") == ["]a"])
    #expect(try matches(#"[\]\-\\]"#, #"a-]\"#) == ["-", "]", #"\"#])
    #expect(try matches("(?i)[k-l]", "kKLl\u{212A}m") == ["k", "K", "L", "l", "\u{212A}"])
  }

  @Test func illFormedBytesMatchAsReplacementCharacters() throws {
    let pattern = try Pattern(#"\p{L}+|[^\p{L}]"#)
    #expect(pattern.matches(in: [0x61, 0xFF, 0xC3, 0x62]) == [0..<1, 1..<2, 2..<3, 3..<4])
  }

  @Test(arguments: [
    (#"(a)\1"#, "a back-reference"), (#"\k<x>"#, "a back-reference"), ("^a", "the anchor `^`"),
    (#"\bword"#, "the word boundary"), (#"\Aa"#, "the anchor"), ("(?>a)", "an atomic group"),
    ("(?<=a)b", "a lookbehind"), ("(?<!a)b", "a lookbehind"), ("(?<n>a)", "a named group"),
    ("(?P<n>a)", "a named group"), ("(?#x)a", "a comment"), ("(?x: a)", "the group"),
    ("(?im:a)", "a group with options"), ("a(?=bc)", "a lookahead over more than one character"),
    (#"\p{Klingon}"#, #"the property `\p{Klingon}`"#), ("[[:nope:]]", "the POSIX class"),
    (#"\X"#, #"the escape `\X`"#), ("(?:ab)++", "a possessive quantifier"),
    ("a{2}?", "`{n}?`"), ("a{5000}", "an interval beyond 1000"), ("(?=a)*", "a repeated lookahead"),
    ("(?i)aß", "`ß` without regard to case"),
  ])
  func whatIsNotSupportedIsNamed(_ source: String, _ construct: String) {
    #expect {
      try Pattern(source)
    } throws: { error in
      guard case .unsupported(source, let named) = error as? PatternError else { return false }
      return named.hasPrefix(construct)
    }
  }

  @Test(arguments: [
    "(", ")", "(?", "(?:", "[", "[a", "[]", "[z-a]", "*", "a|*", "\\", #"\x{110000}"#, #"\x{"#,
    #"\xg"#, #"\p{"#, #"\p"#, "(a", "a)", "[a-", "a{3,2}", "[[:alpha:", #"\ud800"#,
    String(repeating: "(", count: 100_000), String(repeating: "[", count: 100_000),
  ])
  func whatIsMalformedIsRefused(_ source: String) {
    #expect(throws: PatternError.self) { try Pattern(source) }
  }

  @Test(arguments: ["(?:a{1000}){1000}", "(?:(?:a|b)*a(?:a|b){20})"])
  func anAutomatonTooLargeIsRefusedInTime(_ source: String) {
    let elapsed = ContinuousClock().measure {
      #expect {
        try Pattern(source)
      } throws: { error in
        if case .tooComplex = error as? PatternError { true } else { false }
      }
    }
    #expect(elapsed < .seconds(10))
  }

  @Test(arguments: [
    ("a+b|a", "a"), ("[a-z]+[0-9]|[a-z]", "ab"), (#"(?:\p{L}+ )*\p{L}+;|\S"#, "ab "),
    ("(?:aa)+b|(?:aaa)+c|a", "a"), (".*z|é", "é"),
  ])
  func matchingIsLinearWhereEveryRunFails(_ source: String, _ unit: String) throws {
    let pattern = try Pattern(source)
    let text = Array(String(repeating: unit, count: (1 << 20) / unit.utf8.count).utf8)
    var count = 0
    let elapsed = ContinuousClock().measure {
      text.withUnsafeBufferPointer { pattern.forEachMatch(in: $0) { _, _ in count += 1 } }
    }
    #expect(count > 1 << 18)
    #expect(elapsed < .seconds(5), "\(source) took \(elapsed)")
  }

  /// The memo of failed runs must not change what is found.
  @Test(arguments: ["a+b|a|b+", "(?:ab)+c|a|b", "[ab]{40,}c|[ab]", "a*c|(?:ab)*d|."])
  func longRunsMatchLikeShortOnes(_ source: String) throws {
    let pattern = try Pattern(source)
    var random = SystemRandomNumberGenerator()
    let seed = UInt64.random(in: 0...(.max), using: &random)
    var state = seed
    for _ in 0..<30 {
      var text: [UInt8] = []
      for _ in 0..<400 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        text.append([0x61, 0x61, 0x61, 0x62, 0x61, 0x62, 0x61, 0x63][Int(state >> 61)])
      }
      // From each end of a match on, a fresh search must find the next match.
      var expected: [Range<Int>] = []
      var start = 0
      while let next = pattern.matches(in: Array(text[start...].prefix(400))).first {
        expected.append(next.lowerBound + start..<next.upperBound + start)
        start += next.upperBound
      }
      #expect(pattern.matches(in: text) == expected, "seed \(seed)")
    }
  }
}
