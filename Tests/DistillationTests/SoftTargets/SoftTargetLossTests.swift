import Distillation
import Tensors
import Testing

struct SoftTargetLossTests {
  private typealias Oracle = DivergenceOracle

  private func rows(_ tensor: Tensor, columns: Int? = nil) -> [[Double]] {
    (0..<tensor.rows).map { row in
      (0..<(columns ?? tensor.columns)).map { Double(tensor.floats[row * tensor.columns + $0]) }
    }
  }

  @Test(arguments: everyDivergence, [1.0, 2.5])
  func valuesAndGradientsAreThoseOfTheDefinitions(
    _ divergence: DistillationDivergence, _ temperature: Double
  ) throws {
    var numbers = NormalNumbers(21)
    let progress = 0.3
    for columns in [1, 2, 7, 19, 40] {
      let student = numbers.tensor([3, columns], scale: 2)
      let teacher = numbers.tensor([3, columns], scale: 2)
      let weights: [Float] = [0.5, 0, 2]
      let loss = try SoftTargetLoss(divergence, temperature: temperature)
      let result = try LossOnRows(
        loss, student: student, teacher: .logits(teacher), weights: weights, factor: 3,
        progress: progress)
      var value = 0.0
      var gradient: [Double] = []
      for (index, (q, p)) in zip(rows(student), rows(teacher)).enumerated() {
        let weight = Double(weights[index])
        value +=
          weight
          * Oracle.value(
            divergence, student: q, teacher: p, temperature: temperature, progress: progress)
        gradient += Oracle.gradient(
          divergence, student: q, teacher: p, temperature: temperature, progress: progress
        ).map { 3 * weight * $0 }
      }
      #expect(abs(result.value - value) < 3e-6 * max(1, value))
      let scale = gradient.reduce(1) { max($0, abs($1)) }
      #expect(largestDifference(result.gradient, gradient) < 3e-6 * scale)
    }
  }

  @Test func gradientsAddToWhatIsThere() throws {
    let student = Tensor([1, 2, 3], shape: [1, 3]), teacher = Tensor([3, 1, 1], shape: [1, 3])
    let loss = try SoftTargetLoss()
    let fresh = try LossOnRows(loss, student: student, teacher: .logits(teacher))
    var gradient: [Float] = [10, 20, 30]
    let rows = LogitRows(student: student, teacher: .logits(teacher), targets: [0], weights: [1])
    _ = try gradient.withUnsafeMutableBufferPointer { buffer in
      try buffer.baseAddress.map { try loss.accumulate(rows, factor: 1, into: $0) }
    }
    #expect(gradient == zip(fresh.gradient, [10, 20, 30]).map { $0 + $1 })
  }

  @Test func halvedJensenShannonTendsToTheKLs() throws {
    var numbers = NormalNumbers(22)
    let student = numbers.tensor([1, 30]), teacher = TeacherRows.logits(numbers.tensor([1, 30]))
    func result(_ divergence: DistillationDivergence) throws -> LossOnRows {
      try LossOnRows(SoftTargetLoss(divergence), student: student, teacher: teacher)
    }
    let small = 1e-3
    for (limit, near) in [
      (DistillationDivergence.forwardKL, DistillationDivergence.jensenShannon(beta: small)),
      (.reverseKL, .jensenShannon(beta: 1 - small)),
    ] {
      let (exact, approached) = (try result(limit), try result(near))
      #expect(abs(approached.value / small / exact.value - 1) < 0.02)
      let scaled = approached.gradient.map { Double($0) / small }
      #expect(largestDifference(exact.gradient, scaled) < 0.02)
    }
    #expect(try result(.jensenShannon(beta: 0)).gradient == result(.forwardKL).gradient)
    #expect(try result(.jensenShannon(beta: 1)).gradient == result(.reverseKL).gradient)
  }

  @Test func skewsTendToTheKLs() throws {
    var numbers = NormalNumbers(23)
    let student = numbers.tensor([1, 30]), teacher = TeacherRows.logits(numbers.tensor([1, 30]))
    func result(_ divergence: DistillationDivergence) throws -> LossOnRows {
      try LossOnRows(SoftTargetLoss(divergence), student: student, teacher: teacher)
    }
    for (limit, near, same) in [
      (
        DistillationDivergence.forwardKL, DistillationDivergence.skewForwardKL(alpha: 1e-4),
        DistillationDivergence.skewForwardKL(alpha: 0)
      ),
      (.reverseKL, .skewReverseKL(alpha: 1e-4), .skewReverseKL(alpha: 0)),
    ] {
      let (exact, approached) = (try result(limit), try result(near))
      #expect(abs(approached.value / exact.value - 1) < 5e-3)
      #expect(largestDifference(exact.gradient, approached.gradient.map(Double.init)) < 5e-3)
      #expect(try result(same).gradient == exact.gradient)
    }
  }

  @Test func taidAtItsEndIsForwardKLAndAtZeroNothing() throws {
    var numbers = NormalNumbers(24)
    let student = numbers.tensor([2, 30]), teacher = TeacherRows.logits(numbers.tensor([2, 30]))
    let forward = try LossOnRows(SoftTargetLoss(), student: student, teacher: teacher)
    let end = try LossOnRows(
      SoftTargetLoss(.taid()), student: student, teacher: teacher, progress: 1)
    #expect(end.value == forward.value && end.gradient == forward.gradient)
    let start = try LossOnRows(
      SoftTargetLoss(.taid(start: 0)), student: student, teacher: teacher, progress: 0)
    #expect(start.value < 1e-6 && start.gradient.allSatisfy { abs($0) < 1e-6 })
  }

  /// With logits that are T times as large, temperature T sees the same distributions: what is left
  /// is T² in the value and T in the gradient.
  @Test(arguments: everyDivergence) func temperatureBringsItsSquare(
    _ divergence: DistillationDivergence
  ) throws {
    var numbers = NormalNumbers(25)
    let student = numbers.tensor([2, 30]), teacher = numbers.tensor([2, 30])
    func times4(_ tensor: Tensor) -> Tensor {
      Tensor(tensor.array.map { 4 * $0 }, shape: tensor.shape)
    }
    let one = try LossOnRows(
      SoftTargetLoss(divergence), student: student, teacher: .logits(teacher))
    let four = try LossOnRows(
      SoftTargetLoss(divergence, temperature: 4), student: times4(student),
      teacher: .logits(times4(teacher)))
    #expect(abs(four.value - 16 * one.value) < 1e-5 * (1 + four.value))
    #expect(largestDifference(four.gradient, one.gradient.map { 4 * Double($0) }) < 1e-5)
  }

  @Test(arguments: everyDivergence) func resultsDoNotDependOnThreads(
    _ divergence: DistillationDivergence
  ) throws {
    var numbers = NormalNumbers(26)
    let student = numbers.tensor([33, 301]), teacher = numbers.tensor([33, 301])
    let before = Parallel.threads
    defer { Parallel.threads = before }
    var results: [LossOnRows] = []
    for threads in [1, 2, 5] {
      Parallel.threads = threads
      results.append(
        try LossOnRows(SoftTargetLoss(divergence), student: student, teacher: .logits(teacher)))
    }
    for result in results.dropFirst() {
      #expect(result.value == results[0].value && result.gradient == results[0].gradient)
    }
  }

  @Test(arguments: [(9, 7, 7), (7, 9, 7), (7, 7, 5)])
  func paddedVocabulariesAreComparedOverTheirCommonTokens(
    _ student: Int, _ teacher: Int, _ common: Int
  ) throws {
    var numbers = NormalNumbers(27)
    let q = numbers.tensor([3, student]), p = numbers.tensor([3, teacher])
    let result = try LossOnRows(
      SoftTargetLoss(.jeffreys, commonVocabulary: common), student: q, teacher: .logits(p))
    let oracle = zip(rows(q, columns: common), rows(p, columns: common)).map {
      Oracle.value(.jeffreys, student: $0, teacher: $1)
    }
    #expect(abs(result.value - oracle.reduce(0, +)) < 1e-5)
    for row in 0..<3 {
      #expect(
        result.gradient[(row * student + common)..<((row + 1) * student)].allSatisfy { $0 == 0 })
    }
  }

  @Test func whatDoesNotFitIsRefused() throws {
    let row = Tensor([1, 2, 3], shape: [1, 3]), wider = Tensor([1, 2, 3, 4], shape: [1, 4])
    let top = TeacherRows.top(.init(k: 1, ids: [3], logProbabilities: [-1]))
    func message(_ body: () throws -> Void) -> String? {
      do { try body() } catch { return "\(error)" }
      return nil
    }
    let plain = try SoftTargetLoss()
    #expect(
      message { _ = try LossOnRows(plain, student: row, teacher: .logits(wider)) }
        == "The student predicts 3 tokens and the teacher 4. If the first ones are the same and the "
        + "rest is padding, say how many are in common.")
    #expect(message { _ = try LossOnRows(plain, student: row, teacher: top) } != nil)
    let topLoss = try SoftTargetLoss(teacherForm: .top)
    #expect(message { _ = try LossOnRows(topLoss, student: row, teacher: top) } != nil)
    let common = try SoftTargetLoss(commonVocabulary: 4)
    #expect(message { _ = try LossOnRows(common, student: row, teacher: .logits(wider)) } != nil)
    for divergence in [
      DistillationDivergence.jensenShannon(beta: 1.1), .skewForwardKL(alpha: 1),
      .skewReverseKL(alpha: -0.1), .taid(start: 0.5, end: 0.4), .taid(start: .nan),
    ] {
      #expect(throws: DistillationError.self) { try SoftTargetLoss(divergence) }
    }
    for temperature in [0, -1, .infinity, .nan] {
      #expect(throws: DistillationError.self) { try SoftTargetLoss(temperature: temperature) }
    }
    #expect(throws: DistillationError.self) { try SoftTargetLoss(commonVocabulary: 0) }
    #expect(throws: DistillationError.self) { try DistillationDivergence(named: "hellinger") }
    for name in DistillationDivergence.names {
      #expect(try DistillationDivergence(named: name).name == name)
    }
  }
}
