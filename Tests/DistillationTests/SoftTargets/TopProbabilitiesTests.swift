import Distillation
import Foundation
import Tensors
import Testing

/// Soft targets of teachers that give their most probable tokens only.
struct TopProbabilitiesTests {
  private typealias Oracle = DivergenceOracle

  private struct Case {
    var student: [Double]
    var teacher: [Double]
    var ids: [Int]

    init(_ numbers: inout NormalNumbers, columns: Int, k: Int) {
      student = numbers.floats(columns, scale: 2).map(Double.init)
      teacher = numbers.floats(columns, scale: 2).map(Double.init)
      let order = teacher.indices.sorted { [teacher] in teacher[$0] > teacher[$1] }
      ids = Array(order.prefix(k))
    }

    var studentRow: Tensor { Tensor(student.map { Float($0) }, shape: [1, student.count]) }

    private var logProbabilities: [Float] {
      let p = Oracle.softmax(teacher)
      return ids.map { Float(log(p[$0])) }
    }

    var top: TeacherRows {
      .top(.init(k: ids.count, ids: ids.map(Int32.init), logProbabilities: logProbabilities))
    }

    /// The teacher's outcomes as its rounded numbers have them: the rest is what is left to 1.
    var target: [Double] {
      let listed = logProbabilities.map(Double.init)
      return listed + [log(1 - listed.reduce(0) { $0 + exp($1) })]
    }

    /// A distribution's logarithms, as logits of its outcomes.
    func logits(_ values: [Double]) -> [Double] {
      Oracle.coarse(Oracle.softmax(values), ids).map { log(max($0, 1e-300)) }
    }
  }

  @Test(arguments: everyDivergence, [1.0, 2.5])
  func theDivergenceIsOverTheTokensAndTheRest(
    _ divergence: DistillationDivergence, _ temperature: Double
  ) throws {
    var numbers = NormalNumbers(31)
    for (columns, k) in [(2, 1), (7, 3), (40, 5), (40, 39)] {
      let sample = Case(&numbers, columns: columns, k: k)
      let loss = try SoftTargetLoss(divergence, temperature: temperature, teacherForm: .top)
      let result = try LossOnRows(
        loss, student: sample.studentRow, teacher: sample.top, progress: 0.3)
      let target = sample.target, constant = sample.logits(sample.student)
      func value(_ student: [Double]) -> Double {
        Oracle.value(
          divergence, student: sample.logits(student), teacher: target, temperature: temperature,
          progress: 0.3, constant: constant)
      }
      let exact = value(sample.student)
      #expect(abs(result.value - exact) < 1e-5 * max(1, exact))
      let gradient = Oracle.derivative(sample.student, value)
      let scale = gradient.reduce(1) { max($0, abs($1)) }
      #expect(largestDifference(result.gradient, gradient) < 1e-5 * scale)
    }
  }

  @Test(arguments: everyDivergence, [1.0, 2.0]) func kOfTheWholeVocabularyIsTheFullDivergence(
    _ divergence: DistillationDivergence, _ temperature: Double
  ) throws {
    var numbers = NormalNumbers(32)
    let sample = Case(&numbers, columns: 37, k: 37)
    let top = try LossOnRows(
      SoftTargetLoss(divergence, temperature: temperature, teacherForm: .top),
      student: sample.studentRow, teacher: sample.top)
    let full = try LossOnRows(
      SoftTargetLoss(divergence, temperature: temperature), student: sample.studentRow,
      teacher: .logits(Tensor(sample.teacher.map { Float($0) }, shape: [1, 37])))
    #expect(abs(top.value - full.value) < 1e-5 * max(1, full.value))
    #expect(largestDifference(top.gradient, full.gradient.map(Double.init)) < 1e-5)
  }

  /// Merging outcomes can only lose differences.
  @Test(arguments: [1, 3, 10, 36]) func fewerOutcomesDivergeNoMore(_ k: Int) throws {
    var numbers = NormalNumbers(33)
    for divergence in [
      DistillationDivergence.forwardKL, .reverseKL, .jensenShannon(), .totalVariation,
      .skewForwardKL(),
    ] {
      let sample = Case(&numbers, columns: 37, k: k)
      let top = try LossOnRows(
        SoftTargetLoss(divergence, teacherForm: .top), student: sample.studentRow,
        teacher: sample.top)
      let full = Oracle.value(divergence, student: sample.student, teacher: sample.teacher)
      // The rest of 36 in 37 is known to the rounding of what it is left from.
      #expect(top.value <= full * (1 + 1e-4))
    }
  }

  @Test func tokensBeyondTheCommonOnesAreLeftOut() throws {
    let student = Tensor([1, 0, 2, 9], shape: [1, 4])
    let p = [0.4, 0.3, 0.2]  // of tokens 1, 5 and 2; 0.1 is the rest's
    let loss = try SoftTargetLoss(teacherForm: .top, commonVocabulary: 3)
    let result = try LossOnRows(
      loss, student: student,
      teacher: .top(.init(k: 3, ids: [1, 5, 2], logProbabilities: p.map { Float(log($0)) })))
    let q = Oracle.softmax([1, 0, 2])
    let exact = Oracle.kl([0.4 / 0.7, 0.2 / 0.7, 0.1 / 0.7], [q[1], q[2], q[0]])
    #expect(abs(result.value - exact) < 1e-6)
    #expect(result.gradient[3] == 0)
    let nothing = try LossOnRows(
      loss, student: student,
      teacher: .top(
        .init(k: 2, ids: [5, 7], logProbabilities: [Float(log(0.6)), Float(log(0.4))])))
    #expect(nothing.value == 0 && nothing.gradient.allSatisfy { $0 == 0 })
  }

  @Test(arguments: everyDivergence) func certainTeachersGiveFiniteNumbers(
    _ divergence: DistillationDivergence
  ) throws {
    for student in [[-80, 80, 0, 1], [80, -80, 0, 1], [0, 0, 0, 0]] as [[Float]] {
      let result = try LossOnRows(
        SoftTargetLoss(divergence, teacherForm: .top), student: Tensor(student, shape: [1, 4]),
        teacher: .top(.init(k: 2, ids: [0, 2], logProbabilities: [0, -.infinity])))
      #expect(result.value.isFinite && result.gradient.allSatisfy { $0.isFinite })
    }
  }

  @Test func theNameSaysThatItIsOverTopTokens() throws {
    #expect(try SoftTargetLoss().name == "kl")
    #expect(try SoftTargetLoss(teacherForm: .top).name == "kl_topk")
    #expect(try SoftTargetLoss(.jensenShannon(), teacherForm: .top).name == "jsd_topk")
  }
}
