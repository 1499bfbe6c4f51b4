import Foundation
import TestSupport
import Testing
import Text

/// Random JSON and patterns, with Foundation as the second opinion. Quick runs do a fixed number of
/// rounds from fixed seeds; `PARE_LONG_TESTS=1 PARE_FUZZ_SECONDS=600` goes on for that long. When a
/// round ends the process, its seed is in `pare-fuzz-NAME.seed` of the temporary folder.
@Suite struct FuzzTests {
  private static let seconds =
    longTestsAreOn
    ? Double(ProcessInfo.processInfo.environment["PARE_FUZZ_SECONDS"] ?? "") ?? 10 : 0

  private func rounds(_ count: Int, _ name: String, _ body: (inout Draw) throws -> Void) throws {
    let end = Date().addingTimeInterval(Self.seconds)
    let file = FileManager.default.temporaryDirectory.appending(path: "pare-fuzz-\(name).seed")
    var seed: UInt64 = 0
    while seed < UInt64(count) || Date() < end {
      if Self.seconds > 0 { try "\(seed)".write(to: file, atomically: false, encoding: .utf8) }
      var draw = Draw(seed: seed)
      try body(&draw)
      seed += 1
    }
    if Self.seconds > 0 { print("fuzzing \(name): \(seed) rounds") }
  }

  private static let words = [
    "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "\"é\":1,", "null", "true", "false", "0",
    "-1", "1.5e3", "-0.0", "9223372036854775808", "1e", " ", "\n", "\t", "\\", "\\u00e9", "\\ud83d",
    "\\ude00", "\u{1}", "[[[[", "]]]]", "{\"b\":[1,2,{\"c\":\"\\n\"}]}",
  ].map { Array($0.utf8) }

  @Test func jsonIsWhatFoundationAcceptsAndSurvivesAnotherTrip() throws {
    let whole = Array(#"{"a":[1,-2.5e3,"x\u00e9\n",{"b":null,"c":[true,false]}],"é":"😀"}"#.utf8)
    try rounds(10_000, "json") { draw in
      var bytes = draw.next(2) == 0 ? whole : []
      for _ in 0...draw.next(6) {
        let place = draw.next(bytes.count + 1)
        switch draw.next(4) {
        case 0 where place < bytes.count: bytes[place] = UInt8(truncatingIfNeeded: draw.next(256))
        case 1 where place < bytes.count: bytes.remove(at: place)
        case 2 where place < bytes.count: bytes.removeSubrange(place...)
        default: bytes.insert(contentsOf: Self.words[draw.next(Self.words.count)], at: place)
        }
      }
      let json: JSON
      do throws(JSONError) {
        json = try JSON.parse(bytes, name: "fuzz.json")
      } catch {
        #expect(error.description.contains("fuzz.json"))
        return
      }
      for pretty in [true, false] {
        let again = try JSON.parse(json.serialized(pretty: pretty), name: "again")
        #expect(again == json, "seed \(draw.seed)")
      }
      guard Self.isInRange(json) else { return }  // Foundation refuses 1e400
      #expect(throws: Never.self, "seed \(draw.seed): \(String(decoding: bytes, as: UTF8.self))") {
        try JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed)
      }
    }
  }

  private static func isInRange(_ json: JSON) -> Bool {
    switch json {
    case .number(let number): number.double != nil
    case .array(let elements): elements.allSatisfy(isInRange)
    case .object(let object): object.values.allSatisfy(isInRange)
    default: true
    }
  }

  @Test func patternsOfAnyCharactersNeverEndTheProcess() throws {
    let parts = [
      "(", ")", "(?:", "(?i:", "(?!", "(?=", "[", "[^", "]", "a", "b", "-", "|", "*", "+", "?",
      "{2}",
      "{1,3}", "{,2}", "{2,}", "\\", "\\s", "\\p{L}", "\\P{Lu}", "\\w", ".", "$", "&&", "[:alpha:]",
      "é", "\\x{e9}", "\\u00e9", "{", "}", "^", "\\z", "(?i)", "ß", "\\p{", "0",
    ]
    let text = Array("ab éß A1 \n\u{301}aaab".utf8)
    try rounds(500, "patterns") { draw in
      let source = (0...draw.next(9)).map { _ in parts[draw.next(parts.count)] }.joined()
      let pattern: Pattern
      do throws(PatternError) {
        pattern = try Pattern(source)
      } catch {
        #expect(error.description.contains(source))
        return
      }
      var end = 0
      for match in pattern.matches(in: text) {
        #expect(match.lowerBound >= end && match.upperBound <= text.count, "\(source)")
        end = match.upperBound
      }
    }
  }

  /// Foundation's engine backtracks; ours is an automaton. Loops over what may be empty are left
  /// out: engines differ there.
  @Test func patternsMatchWhatABacktrackingEngineMatches() throws {
    try rounds(200, "engines") { draw in
      let source = Self.expression(&draw, depth: 3)
      let text = (0..<40).map { _ in ["a", "b", "c", "A", " ", "1", "\n", "é"][draw.next(8)] }
        .joined()
      let pattern: Pattern
      do throws(PatternError) {
        pattern = try Pattern(source)
      } catch {
        guard case .tooComplex = error else { throw error }
        return
      }
      let bytes = Array(text.utf8)
      let found = pattern.matches(in: bytes).filter { !$0.isEmpty }.map {
        String(decoding: bytes[$0], as: UTF8.self)
      }
      guard let expected = try Self.backtrackingMatches(source, text) else { return }
      #expect(found == expected, "seed \(draw.seed): \(source) on \(text.debugDescription)")
    }
  }

  /// Nil where the engine gave up: it bounds its steps and then passes a position over.
  private static func backtrackingMatches(_ source: String, _ text: String) throws -> [String]? {
    var matches: [String] = []
    var gaveUp = false
    let engine = try NSRegularExpression(pattern: source)
    engine.enumerateMatches(
      in: text, options: .reportCompletion, range: NSRange(location: 0, length: text.utf16.count)
    ) { result, flags, _ in
      if flags.contains(.internalError) { gaveUp = true }
      guard let range = result?.range, range.length > 0 else { return }
      matches.append((text as NSString).substring(with: range))
    }
    return gaveUp ? nil : matches
  }

  private static func expression(_ draw: inout Draw, depth: Int) -> String {
    (0...draw.next(3)).map { _ in
      (0...draw.next(3)).map { _ in item(&draw, depth: depth) }.joined()
    }.joined(separator: "|")
  }

  private static func item(_ draw: inout Draw, depth: Int) -> String {
    let sets = [
      "a", "b", "c", "é", " ", #"\s"#, #"\d"#, #"\p{L}"#, "[ab]", "[^a]", "[a-c1]", "[^\\s\\d]",
    ]
    let set = sets[draw.next(sets.count)]
    switch draw.next(8) {
    case 0 where depth > 0: return "(?:\(expression(&draw, depth: depth - 1)))"
    case 1 where depth > 0:
      return "(?:\(set)(?:\(expression(&draw, depth: depth - 1))))\(counted(&draw))"
    case 2: return "\(set)(?=\(sets[draw.next(sets.count)]))"
    case 3: return "\(set)(?!\(sets[draw.next(sets.count)]))"
    case 4: return set + ["*+", "++", "?+"][draw.next(3)]
    case 5: return "(?i:\(set))"
    default: return set + counted(&draw)
    }
  }

  private static func counted(_ draw: inout Draw) -> String {
    ["", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{2,}", "{0,2}?"][draw.next(12)]
  }
}

/// Numbers that depend on the seed alone.
private struct Draw {
  let seed: UInt64
  private var state: UInt64

  init(seed: UInt64) {
    self.seed = seed
    state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 1
  }

  mutating func next(_ bound: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    var mixed = state ^ state >> 33
    mixed = mixed &* 0xFF51_AFD7_ED55_8CCD
    return Int((mixed ^ mixed >> 33) % UInt64(bound))
  }
}
