import CKernels
import Foundation
import Testing

/// The fast kernels against their double-precision references.
struct DivergenceKernelTests {
  static let kinds: [pare_divergence_loss] = [
    kernel(PARE_FORWARD_KL), kernel(PARE_REVERSE_KL), kernel(PARE_JEFFREYS),
    kernel(PARE_TOTAL_VARIATION), kernel(PARE_MIXTURE, 0.5, 0.5, 0.5),
    kernel(PARE_MIXTURE, 0.01, 0.01, 0.99), kernel(PARE_MIXTURE, 0.1, 1, 0),
    kernel(PARE_MIXTURE, 0.9, 0, 1), kernel(PARE_FORWARD_KL, target: 0.4),
    kernel(PARE_FORWARD_KL, target: 0),
  ]

  static func kernel(
    _ kind: pare_divergence_kind, _ share: Float = 0, _ teacher: Float = 0, _ student: Float = 0,
    target: Float = 1
  ) -> pare_divergence_loss {
    .init(
      kind: kind, temperature: 1, share: share, teacher_part: teacher, student_part: student,
      target_share: target)
  }

  private struct Outcome {
    var value = 0.0
    var gradient: [Float]
  }

  private func compare(
    _ loss: pare_divergence_loss, _ student: [Float], _ teacher: [Float], ids: [Int32]? = nil
  ) -> (fast: Outcome, reference: Outcome) {
    let count = student.count
    var fast = Outcome(gradient: [Float](repeating: 0.25, count: count))
    var reference = fast
    if let ids {
      var scratch = [Float](repeating: .nan, count: count + 6 * (ids.count + 1))
      fast.value = pare_divergence_loss_top(
        loss, student, count, ids, teacher, ids.count, 0.7, &fast.gradient, &scratch)
      reference.value = pare_divergence_loss_top_ref(
        loss, student, count, ids, teacher, ids.count, 0.7, &reference.gradient)
    } else {
      var scratch = [Float](repeating: .nan, count: 3 * count)
      fast.value = pare_divergence_loss(
        loss, student, teacher, count, 0.7, &fast.gradient, &scratch)
      reference.value = pare_divergence_loss_ref(
        loss, student, teacher, count, 0.7, &reference.gradient)
    }
    return (fast, reference)
  }

  private func expectAgreement(
    _ both: (fast: Outcome, reference: Outcome), _ note: String, within tolerance: Double = 3e-6
  ) {
    let (fast, reference) = both
    #expect(
      abs(fast.value - reference.value) <= tolerance * max(1, abs(reference.value)),
      "\(note): \(fast.value), \(reference.value)")
    let scale = reference.gradient.reduce(1) { max($0, abs($1)) }
    let worst = largestDifference(fast.gradient, reference.gradient.map(Double.init))
    #expect(worst <= tolerance * Double(scale), "\(note): \(worst)")
  }

  @Test(arguments: kinds.indices) func kernelsAgreeWithTheirReferencesAtEveryLength(_ index: Int) {
    var numbers = NormalNumbers(11)
    for count in Array(1...40) + [63, 64, 65, 127, 1023, 1024, 1025, 2049, 5003] {
      for temperature: Float in [1, 0.5, 3] {
        var loss = Self.kinds[index]
        loss.temperature = temperature
        let student = numbers.floats(count, scale: 3), teacher = numbers.floats(count, scale: 3)
        expectAgreement(compare(loss, student, teacher), "\(count) at \(temperature)")
      }
    }
  }

  @Test(arguments: kinds.indices) func topKernelsAgreeWithTheirReferences(_ index: Int) {
    var numbers = NormalNumbers(12)
    for count in Array(1...40) + [1023, 1025, 2049] {
      for k in Set([1, 2, count / 2, count - 1, count]) where k >= 1 && k <= count {
        for temperature: Float in [1, 2] {
          var loss = Self.kinds[index]
          loss.temperature = temperature
          let student = numbers.floats(count, scale: 3)
          let teacher = numbers.floats(count, scale: 3).map(Double.init)
          let p = DivergenceOracle.softmax(teacher)
          let ids = p.indices.sorted { p[$0] > p[$1] }.prefix(k)
          let logs = ids.map { Float(log(p[$0])) }
          expectAgreement(
            compare(loss, student, logs, ids: ids.map(Int32.init)), "\(k) of \(count)")
        }
      }
    }
  }

  @Test(arguments: kinds.indices) func extremeLogitsGiveFiniteNumbers(_ index: Int) {
    let infinity = Float.infinity
    let rows: [[Float]] = [
      [80, -80, 0, 3, -7, 12, 1, 0, 2], [-80, 80, 0, 3, -7, 12, 1, 0, 2],
      [-infinity, 4, -infinity, 1, 2, 3, -infinity, 0, 1],
      [-infinity, -infinity, -infinity, 0, -infinity, -infinity, -infinity, -infinity, -infinity],
      [Float](repeating: 3e4, count: 9),
      [-3e38, 2, 3, -3e38, 1, 1, 1, 1, 1],
      [Float](repeating: .leastNonzeroMagnitude, count: 8) + [-.leastNonzeroMagnitude],
    ]
    for temperature: Float in [1, 0.25, 4] {
      for (i, student) in rows.enumerated() {
        for (j, teacher) in rows.enumerated() {
          var loss = Self.kinds[index]
          loss.temperature = temperature
          let both = compare(loss, student, teacher)
          let note = "student \(i), teacher \(j) at \(temperature)"
          #expect(both.fast.value.isFinite && both.fast.value >= 0, "\(note)")
          #expect(both.fast.gradient.allSatisfy { $0.isFinite }, "\(note)")
          // A log-ratio of 200, less a mean of 200, has the rounding of 200.
          expectAgreement(both, note, within: 2e-4)
        }
      }
    }
  }

  @Test(arguments: kinds.indices) func nanIsNotHidden(_ index: Int) {
    let both = compare(Self.kinds[index], [1, .nan, 2], [1, 2, 3])
    #expect(both.fast.value.isNaN)
  }
}
