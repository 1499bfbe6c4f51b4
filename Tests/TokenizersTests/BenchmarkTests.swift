import Foundation
import Testing
import Text
import Tokenizers

private let benchmarkFolder = ProcessInfo.processInfo.environment["PARE_BENCHMARK"]

/// The Swift half of Benchmarks/tokenizers.py: prints megabytes per second, and judges only that
/// the ids are those of the other half.
@Suite(.serialized, .enabled(if: benchmarkFolder != nil, "run by Benchmarks/tokenizers.py"))
struct BenchmarkTests {
  @Test(arguments: ["byte-level", "gpt2", "sentencepiece", "unigram", "llama2"])
  func encoding(_ name: String) throws {
    let folder = try #require(benchmarkFolder)
    let text = Array(try Data(contentsOf: URL(filePath: "\(folder)/text.txt")))
    let lines = text.split(separator: 0x0A, omittingEmptySubsequences: false).map { Array($0) }
    let clock = ContinuousClock()
    func report(_ what: String, _ body: () throws -> Void) rethrows {
      let seconds = try clock.measure { try body() } / .seconds(1)
      print("pare, \(name), \(what): \((Double(text.count) / seconds / 1e5).rounded() / 10)")
    }
    for mode in ["whole", "lines"] {
      let tokenizer = try Tokenizer(path: "\(folder)/\(name).json")
      for state in ["cold", "warm"] {
        try report("\(mode), \(state)") {
          if mode == "whole" {
            _ = try tokenizer.encode(text, addSpecialTokens: false)
          } else {
            for line in lines { _ = try tokenizer.encode(line, addSpecialTokens: false) }
          }
        }
      }
      if mode == "whole" {
        let ids = try tokenizer.encode(text, addSpecialTokens: false)
        let expected = try String(contentsOfFile: "\(folder)/\(name).ids", encoding: .utf8)
        #expect(ids == expected.split(separator: " ").compactMap { Int($0) })
        try report("decoding") { _ = try tokenizer.decode(ids) }
      }
    }
    try report("loading, by size of the text") { _ = try Tokenizer(path: "\(folder)/\(name).json") }
  }
}
