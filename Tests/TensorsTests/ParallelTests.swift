import Synchronization
import Tensors
import Testing

/// One suite, serialized, because the number of threads is the process's.
@Suite(.serialized) struct ParallelTests {
  @Test func everyIndexRunsOnce() {
    for count in [0, 1, 2, 7, 64, 1000, 10_007] {
      let hits = Parallel.map(count) { $0 }
      #expect(hits == Array(0..<count))
    }
  }

  @Test func nestedJobsFinish() {
    let total = Atomic<Int>(0)
    Parallel.forEach(9) { outer in
      Parallel.forEach(11) { inner in total.add(outer * inner, ordering: .relaxed) }
    }
    #expect(total.load(ordering: .relaxed) == 36 * 55)
  }

  @Test func manySmallJobsFromManyCallersFinish() async {
    let sum = await withTaskGroup(of: Int.self) { group in
      for caller in 0..<8 {
        group.addTask {
          (0..<300).reduce(0) { $0 + Parallel.map($1 % 5) { $0 + caller }.reduce(0, +) }
        }
      }
      return await group.reduce(0, +)
    }
    let expected = (0..<8).reduce(0) { total, caller in
      total + (0..<300).reduce(0) { $0 + (0..<($1 % 5)).reduce(0) { $0 + $1 + caller } }
    }
    #expect(sum == expected)
  }

  @Test func resultsDoNotDependOnTheNumberOfThreads() {
    let before = Parallel.threads
    defer { Parallel.threads = before }
    var numbers = TestNumbers(12)
    let x = numbers.tensor([70, 96]), w = numbers.tensor([200, 96]).converted(to: .bfloat16)
    let stored = KeyValueRows(type: .float32, heads: 2, capacity: 1200, headDim: 24)
    stored.store(keys: numbers.tensor([1200, 48]), values: numbers.tensor([1200, 48]), at: 0)
    func everything() -> [[Float]] {
      [
        x.multiplied(byTransposeOf: w).array, x.rows(0..<2).multiplied(byTransposeOf: w).array,
        Tensor.attention(
          queries: x, stored: stored, start: 0, heads: 4,
          mask: AttentionMask(slidingWindow: 40, scale: 0.3)
        ).array,
        Tensor.attention(
          queries: x.rows(0..<1), stored: stored, start: 1199, heads: 4,
          mask: AttentionMask(scale: 0.3)
        ).array,
        x.rmsNormalized(weight: nil, epsilon: 1e-5).array, x.activated(.silu).array,
        x.logSumExpRows().map { Float($0) },
      ]
    }
    Parallel.threads = 1
    let expected = everything()
    for threads in [2, 3, 7, 16] {
      Parallel.threads = threads
      #expect(everything() == expected)
    }
  }
}

@Test func xoshiroGivesThePublishedSequence() {
  // State 1, 2, 3, 4: the first outputs of xoshiro256** as its authors' C program prints them.
  var random = Xoshiro256(state: (1, 2, 3, 4))
  #expect(
    (0..<5).map { _ in random.next() } == [
      11520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360,
    ])
}

@Test func uniformNumbersAreUniform() {
  var random = Xoshiro256(seed: 5)
  let values = (0..<50_000).map { _ in Double(random.uniform()) }
  #expect(values.allSatisfy { $0 >= 0 && $0 < 1 })
  let mean = values.reduce(0, +) / 50_000
  // Five standard deviations of the mean of a uniform variable.
  #expect(abs(mean - 0.5) < 5 * (1.0 / 12 / 50_000).squareRoot())
}
