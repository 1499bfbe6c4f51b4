import Distillation
import Foundation
import Tensors
import TestSupport
import Testing

struct TopRowCodeTests {
  private func logits(rows: Int, _ vocabulary: Int, seed: UInt64, spread: Double = 3) -> Tensor {
    var random = Xoshiro256(seed: seed)
    return Tensor(shape: [rows, vocabulary]) { target in
      for index in target.indices {
        target.initializeElement(at: index, to: Float(spread * random.normal()))
      }
    }
  }

  private func decoded(_ code: TopRowCode, _ bytes: [UInt8]) -> (ids: [Int], logP: [Double])? {
    guard let top = code.decode(bytes) else { return nil }
    return (top.ids.map(Int.init), top.logProbabilities.map(Double.init))
  }

  /// The stated bound: √g / resolution + 1 / (4 · resolution²), twice for the shift that makes the sum
  /// one, and the tail's own step.
  @Test(arguments: [(1, 7), (2, 2), (5, 98), (98, 98), (64, 2048), (128, 32_000), (127, 128)])
  func whatIsReadIsTheTopOfTheSoftmaxWithinTheStatedError(_ size: (k: Int, vocabulary: Int)) {
    let code = TopRowCode(k: size.k, vocabularySize: size.vocabulary, resolution: 64)
    let logits = logits(rows: 6, size.vocabulary, seed: 3)
    for (row, bytes) in code.encode(logits).enumerated() {
      let truth = CacheFixture.logProbabilities(logits, row)
      guard let bytes, let read = decoded(code, bytes) else {
        Issue.record("row \(row) does not come back")
        continue
      }
      let best = truth.indices.sorted { truth[$0] > truth[$1] }.prefix(size.k)
      #expect(Set(read.ids) == Set(best))
      #expect(zip(read.logP, read.logP.dropFirst()).allSatisfy { $0 >= $1 })
      let top = truth.max() ?? 0
      for (id, logP) in zip(read.ids, read.logP) {
        let bound = { (gap: Double) in gap.squareRoot() / 64 + 0.25 / 4096 }
        #expect(abs(logP - truth[id]) <= 2 * bound(top - truth[id]) + 0.012)
      }
      let tail = 1 - best.reduce(0) { $0 + exp(truth[$1]) }
      let readTail = 1 - read.logP.reduce(0) { $0 + exp($1) }
      #expect(abs(tail - readTail) < 0.0003 * tail + 1e-6)
    }
  }

  @Test func equalProbabilitiesKeepTheLowestIds() {
    let code = TopRowCode(k: 3, vocabularySize: 8, resolution: 64)
    let flat = Tensor([Float](repeating: 1, count: 8), shape: [1, 8])
    let read = code.encode(flat)[0].flatMap { decoded(code, $0) }
    #expect(read?.ids == [0, 1, 2])
    #expect(read?.logP.allSatisfy { abs($0 - log(1.0 / 8)) < 1e-3 } == true)
  }

  @Test func rowsThatAreNotFiniteAreToldApart() {
    let code = TopRowCode(k: 2, vocabularySize: 4, resolution: 64)
    for bad in [Float.nan, .infinity] {
      for place in 0..<4 {
        var row: [Float] = [1, 2, 3, 4]
        row[place] = bad
        #expect(code.encode(Tensor(row, shape: [1, 4]))[0] == nil)
      }
    }
    // A token that is excluded altogether is no reason to refuse.
    #expect(code.encode(Tensor([1, -.infinity, 3, 4], shape: [1, 4]))[0] != nil)
  }

  @Test func aRowThatIsCutShortIsNoticed() {
    let code = TopRowCode(k: 16, vocabularySize: 500, resolution: 64)
    guard let bytes = code.encode(logits(rows: 1, 500, seed: 1))[0] else {
      Issue.record("no row")
      return
    }
    for count in 0..<bytes.count { #expect(decoded(code, Array(bytes.prefix(count))) == nil) }
  }

  /// DistillKit's figure for 128 tokens is about 300 bytes.
  @Test func aRowOf128TokensTakesLessThan260Bytes() {
    let code = TopRowCode(k: 128, vocabularySize: 32_000, resolution: 64)
    let rows = code.encode(logits(rows: 16, 32_000, seed: 5, spread: 2)).compactMap { $0?.count }
    #expect(Double(rows.reduce(0, +)) / 16 < 260)
  }
}
