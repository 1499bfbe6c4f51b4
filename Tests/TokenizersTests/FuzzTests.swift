import Foundation
import TestSupport
import Testing
import Text
import Tokenizers

/// Damages the golden tokenizers and asks that each is refused with an error or encodes and decodes
/// inside its vocabulary. Quick runs do a fixed number of rounds from fixed seeds;
/// `PARE_LONG_TESTS=1 PARE_FUZZ_SECONDS=600` goes on for that long. When a round ends the process,
/// its seed is in `pare-fuzz-tokenizers.seed` of the temporary folder.
@Suite struct FuzzTests {
  private static let seconds =
    longTestsAreOn
    ? Double(ProcessInfo.processInfo.environment["PARE_FUZZ_SECONDS"] ?? "") ?? 10 : 0

  /// What stands in for any value: other kinds, other components, extremes.
  private static let strays: [JSON] = {
    let text = #"""
      [null, true, 0, -1, 1, 7, 255, 1e300, 16777215, 9223372036854775807, "", "a", " ", "▁", "<unk>",
      "NFC", "ByteLevel", "Sequence", "é", "<0x41>", "\u0000", "always", "Removed", "MergedWithNext",
      [], {}, [[]], ["a", 1], ["a", "b"], {"a": 0}, {"Regex": "\\s+|a*"}, {"Regex": "(a"},
      {"String": ""}, {"String": "a"}, {"type": "ByteLevel"}, {"type": "Fuse"},
      {"type": "ByteFallback"}, {"type": "NFKC"}, {"type": "Metaspace"}, {"type": "Lowercase"},
      {"type": "Strip", "content": "a", "start": 1, "stop": 1}, {"type": "Digits"},
      {"type": "Replace", "pattern": {"Regex": "a|"}, "content": "aa"}, {"type": "StripAccents"},
      {"type": "Prepend", "prepend": ""}, {"type": "Punctuation", "behavior": "Contiguous"},
      {"type": "Precompiled", "precompiled_charsmap": "BAAAAP///38="}, {"type": "BPE"},
      {"id": 3, "content": "ab", "normalized": true, "lstrip": true, "rstrip": true}]
      """#
    return (try? JSON.parse(Array(text.utf8), name: "strays"))?.array ?? []
  }()

  @Test func damagedTokenizersAreRefusedOrStayInsideTheirVocabulary() throws {
    let end = Date().addingTimeInterval(Self.seconds)
    let file = FileManager.default.temporaryDirectory.appending(path: "pare-fuzz-tokenizers.seed")
    var accepted = 0
    var seed: UInt64 = 0
    while seed < 400 || Date() < end {
      if Self.seconds > 0 { try "\(seed)".write(to: file, atomically: false, encoding: .utf8) }
      var draw = Draw(seed: seed)
      let golden = GoldenTests.encodings[draw.next(GoldenTests.encodings.count)]
      var json = Self.trimmed(golden.document)
      for _ in 0...draw.next(3) { json = Self.damaged(json, &draw) }
      if try provoke(json, seed: seed, &draw) { accepted += 1 }
      seed += 1
    }
    #expect(accepted > 20)
    if Self.seconds > 0 { print("fuzzing tokenizers: \(seed) rounds, \(accepted) accepted") }
  }

  /// Whether the tokenizer was accepted.
  private func provoke(_ json: JSON, seed: UInt64, _ draw: inout Draw) throws -> Bool {
    let tokenizer: Tokenizer
    do throws(TokenizerError) {
      tokenizer = try Tokenizer(json: json)
    } catch {
      #expect(error.description.contains("tokenizer.json"), "seed \(seed)")
      return false
    }
    for _ in 0..<4 {
      let text = Golden.texts[draw.next(Golden.texts.count)]
      let ids: [Int]
      do throws(TokenizerError) {
        ids = try tokenizer.encode(text)
      } catch {
        guard case .noUnknownToken = error else {
          Issue.record("seed \(seed): \(error)")
          return true
        }
        continue
      }
      #expect(ids.allSatisfy { tokenizer.token($0) != nil }, "seed \(seed)")
      #expect(throws: Never.self, "seed \(seed)") { try tokenizer.decode(ids) }
    }
    if tokenizer.vocabularySize > 0 {
      let ids = (0..<20).map { _ in draw.next(tokenizer.vocabularySize) }
      #expect(throws: Never.self, "seed \(seed)") {
        var decoder = tokenizer.streamingDecoder(skipSpecialTokens: false)
        for id in ids { _ = try decoder.push(id) }
        _ = decoder.finish()
        _ = try tokenizer.decode(ids, skipSpecialTokens: false)
      }
    }
    return true
  }

  /// The document with a short vocabulary, so that damage meets the rest as often.
  private static func trimmed(_ document: JSON) -> JSON {
    guard var root = document.object, var model = root["model"]?.object else { return document }
    if let merges = model["merges"]?.array { model["merges"] = .array(Array(merges.prefix(20))) }
    root["model"] = .object(model)
    return .object(root)
  }

  /// Walks down to a random value and replaces, removes or doubles it.
  private static func damaged(_ json: JSON, _ draw: inout Draw) -> JSON {
    if draw.next(6) == 0 { return strays[draw.next(strays.count)] }
    switch json {
    case .array(var elements) where !elements.isEmpty:
      let index = draw.next(elements.count)
      switch draw.next(8) {
      case 0: elements.remove(at: index)
      case 1: elements.append(elements[index])
      default: elements[index] = damaged(elements[index], &draw)
      }
      return .array(elements)
    case .object(var object) where object.count > 0:
      let key = String(decoding: object.keys[draw.next(object.count)], as: UTF8.self)
      if draw.next(8) == 0 {
        object[key] = nil
      } else if let value = object[key] {
        object[key] = damaged(value, &draw)
      }
      return .object(object)
    default: return strays[draw.next(strays.count)]
    }
  }
}

/// Numbers that depend on the seed alone.
private struct Draw {
  private var state: UInt64

  init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 1 }

  mutating func next(_ bound: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    var mixed = state ^ state >> 33
    mixed = mixed &* 0xFF51_AFD7_ED55_8CCD
    return Int((mixed ^ mixed >> 33) % UInt64(bound))
  }
}
