import CKernels
import Distillation
import Foundation
import Tensors
import TestSupport
import Testing

struct SortedProbabilityLossTests {
  private func logits(_ shape: [Int], _ random: inout Xoshiro256) -> Tensor {
    Tensor(shape: shape) { target in
      for index in target.indices {
        target.initializeElement(at: index, to: Float(2 * random.normal()))
      }
    }
  }

  private static func probabilities(_ logits: [Double], _ temperature: Double) -> [Double] {
    let top = logits.max() ?? 0
    let terms = logits.map { exp(($0 - top) / temperature) }
    return terms.map { $0 / terms.reduce(0, +) }
  }

  /// Written from the definition, in Double.
  private static func distance(
    _ student: [Double], _ teacher: [Double], _ temperature: Double
  ) -> Double {
    var p = probabilities(student, temperature).sorted(by: >)
    var q = probabilities(teacher, temperature).sorted(by: >)
    while p.count < q.count { p.append(0) }
    while q.count < p.count { q.append(0) }
    return zip(p, q).reduce(0) { $0 + abs($1.0 - $1.1) }
  }

  private func evaluate(
    _ loss: SortedProbabilityLoss, _ student: Tensor, _ teacher: Tensor, _ weights: [Float],
    factor: Float = 1
  ) throws -> (value: Double, gradient: [Float]) {
    var gradient = [Float](repeating: 0, count: student.count)
    let rows = LogitRows(
      student: student, teacher: .logits(teacher),
      targets: [Int](repeating: 0, count: student.rows), weights: weights)
    let value = try gradient.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return 0.0 }
      return try loss.accumulate(rows, factor: factor, into: base)
    }
    return (value, gradient)
  }

  @Test(arguments: [(1, 1), (2, 5), (5, 2), (17, 17), (33, 70), (70, 33)], [1.0, 2.0])
  func lossAndGradientAreThoseOfTheDefinition(
    _ size: (student: Int, teacher: Int), _ temperature: Double
  ) throws {
    var random = Xoshiro256(seed: UInt64(size.student * 100 + size.teacher))
    let loss = try SortedProbabilityLoss(temperature: temperature)
    let student = logits([3, size.student], &random)
    let teacher = logits([3, size.teacher], &random)
    let weights: [Float] = [1, 0.5, 2]
    func total(_ student: [Double]) -> Double {
      (0..<3).reduce(0) { sum, row in
        let (n, m) = (size.student, size.teacher)
        return sum + Double(weights[row])
          * Self.distance(
            Array(student[(row * n)..<(row * n + n)]),
            teacher.array[(row * m)..<(row * m + m)].map(Double.init), temperature)
      }
    }
    let found = try evaluate(loss, student, teacher, weights, factor: 3)
    let values = student.array.map(Double.init)
    #expect(abs(found.value - total(values)) < 1e-5)
    // Small enough that no order changes on the way, except by rare accident of the seed.
    let step = 1e-6
    for index in values.indices {
      var (up, down) = (values, values)
      up[index] += step
      down[index] -= step
      let slope = 3 * (total(up) - total(down)) / (2 * step)
      #expect(abs(Double(found.gradient[index]) - slope) < 1e-4)
    }
  }

  @Test func theFastKernelAgreesWithItsReferenceOverEveryLength() {
    var random = Xoshiro256(seed: 9)
    for count in 1...40 {
      for other in [1, count, 2 * count + 1] {
        let (a, b) = (logits([1, count], &random), logits([1, other], &random))
        var (fast, plain) = (
          [Float](repeating: 1, count: count), [Float](repeating: 1, count: count)
        )
        var scratch = [UInt64](repeating: 0, count: 3 * max(count, other))
        let x = pare_sorted_distance(a.floats, count, b.floats, other, 0.5, 2, &fast, &scratch)
        let y = pare_sorted_distance_ref(a.floats, count, b.floats, other, 0.5, 2, &plain, &scratch)
        #expect(abs(x - y) < 1e-5)
        #expect(zip(fast, plain).allSatisfy { abs($0 - $1) < 1e-5 })
      }
    }
  }

  @Test func equalPredictionsInAnyOrderHaveNoLoss() throws {
    var random = Xoshiro256(seed: 2)
    let student = logits([1, 50], &random)
    let shuffled = Tensor(student.array.shuffled(using: &random), shape: [1, 50])
    let found = try evaluate(try SortedProbabilityLoss(), student, shuffled, [1])
    #expect(found.value < 1e-6)
  }

  @Test func rowsOfWhichTheTeacherSaysNothingHaveNoLoss() throws {
    var random = Xoshiro256(seed: 4)
    let student = logits([2, 6], &random)
    var teacher = logits([2, 9], &random).array
    for index in 9..<18 { teacher[index] = .nan }
    let found = try evaluate(
      try SortedProbabilityLoss(), student, Tensor(teacher, shape: [2, 9]), [1, 1])
    #expect(found.value.isFinite && found.value > 0)
    #expect(found.gradient[6...].allSatisfy { $0 == 0 })
    #expect(found.gradient[..<6].contains { $0 != 0 })
  }

  @Test func badSettingsAreRefused() throws {
    #expect(throws: DistillationError.self) { try SortedProbabilityLoss(temperature: 0) }
    let rows = LogitRows(
      student: Tensor([0, 1], shape: [1, 2]),
      teacher: .top(TopProbabilities(k: 1, ids: [0], logProbabilities: [-1])), targets: [0],
      weights: [1])
    var gradient: [Float] = [0, 0]
    #expect(throws: DistillationError.self) {
      try SortedProbabilityLoss().accumulate(rows, factor: 1, into: &gradient)
    }
  }
}
