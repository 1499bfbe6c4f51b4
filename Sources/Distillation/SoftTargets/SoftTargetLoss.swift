import CKernels
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A divergence between what teacher and student predict, both at a temperature T, times T².
///
/// The factor keeps gradients alike at every temperature, so that the loss can be weighed against
/// the true labels' (Hinton et al. 2015, section 2).
///
/// **Teachers that give top-k only.** The divergence is then over k + 1 outcomes: the k tokens, and
/// any other token as one. It is at most the divergence over the vocabulary, of which it is a
/// coarsening, and is named with `_topk`. A temperature applies to the k + 1 outcomes of both sides:
/// what tempering does to single tokens of the rest cannot be known from their sum. This is a
/// divergence of its own, zero where both sides agree on all k + 1 masses, and the full one where k
/// is the vocabulary.
package struct SoftTargetLoss: LogitLoss {
  /// What the teacher gives of a row.
  package enum TeacherForm: Sendable {
    case logits, top
  }

  package let divergence: DistillationDivergence
  package let temperature: Double
  package let teacherForm: TeacherForm
  /// How many leading tokens count, of both vocabularies, where one is padded: each side's
  /// probabilities are those among these tokens. nil where vocabularies are equal.
  package let commonVocabulary: Int?

  package var name: String { divergence.name + (teacherForm == .top ? "_topk" : "") }
  package var needsTeacher: Bool { true }

  /// - Throws: `badSetting`
  package init(
    _ divergence: DistillationDivergence = .forwardKL, temperature: Double = 1,
    teacherForm: TeacherForm = .logits, commonVocabulary: Int? = nil
  ) throws(DistillationError) {
    try divergence.validate()
    guard (0.01...1000).contains(temperature) else {
      throw .badSetting("temperature", value: "\(temperature)", expected: "from 0.01 to 1000")
    }
    if let commonVocabulary, commonVocabulary < 1 {
      throw .badSetting("commonVocabulary", value: "\(commonVocabulary)", expected: "at least 1")
    }
    self.divergence = divergence
    self.temperature = temperature
    self.teacherForm = teacherForm
    self.commonVocabulary = commonVocabulary
  }

  package func accumulate(
    _ rows: LogitRows, factor: Float, into gradient: UnsafeMutablePointer<Float>
  ) throws(DistillationError) -> Double {
    let kernel = divergence.kernel(temperature: temperature, progress: rows.progress)
    switch (rows.teacher, teacherForm) {
    case (.logits(let teacher), .logits):
      let count = try commonColumns(student: rows.student.columns, teacher: teacher.columns)
      precondition(teacher.rows == rows.student.rows)
      return sum(rows, factor, gradient, scratch: 3 * count) { row, weight, target, scratch in
        pare_divergence_loss(
          kernel, row.student, teacher.floats + row.index * teacher.columns, count, weight, target,
          scratch)
      }
    case (.top(let top), .top):
      let count = try commonColumns(student: rows.student.columns, teacher: nil)
      precondition(top.rows == rows.student.rows)
      if commonVocabulary == nil, let outside = top.ids.first(where: { !$0.isToken(below: count) })
      {
        throw .vocabulariesDiffer(student: count, teacher: Int(outside) + 1)
      }
      let size = count + 6 * (top.k + 1)
      return sum(rows, factor, gradient, scratch: size) { row, weight, target, scratch in
        let kept = top.row(row.index, below: count)
        return pare_divergence_loss_top(
          kernel, row.student, count, kept.ids, kept.logProbabilities, kept.ids.count, weight,
          target, scratch)
      }
    case (.logits, .top): throw .teacherForm(given: "logits", expected: "top-k probabilities")
    case (.top, .logits): throw .teacherForm(given: "top-k probabilities", expected: "logits")
    case (nil, _): preconditionFailure("a loss that needs a teacher is given its rows")
    }
  }

  private func commonColumns(student: Int, teacher: Int?) throws(DistillationError) -> Int {
    guard let commonVocabulary else {
      guard teacher == nil || teacher == student else {
        throw .vocabulariesDiffer(student: student, teacher: teacher ?? 0)
      }
      return student
    }
    let smaller = min(student, teacher ?? student)
    guard commonVocabulary <= smaller else {
      throw .badSetting(
        "commonVocabulary", value: "\(commonVocabulary)",
        expected: "at most \(smaller), the smaller vocabulary")
    }
    return commonVocabulary
  }

  private struct Row {
    var index: Int
    var student: UnsafePointer<Float>
  }

  /// Rows that share scratch memory, so that it stays in a core's cache and is rarely allocated.
  private static let rowsPerTask = 4

  /// The weighted losses of all rows, added in order whatever the number of threads.
  private func sum(
    _ rows: LogitRows, _ factor: Float, _ gradient: UnsafeMutablePointer<Float>, scratch size: Int,
    _ loss:
      @Sendable (Row, Float, UnsafeMutablePointer<Float>, UnsafeMutablePointer<Float>) -> Double
  ) -> Double {
    let count = rows.student.rows, columns = rows.student.columns
    let target = Unshared(gradient), student = rows.student
    let tasks = (count + Self.rowsPerTask - 1) / Self.rowsPerTask
    let sums = Parallel.map(tasks) { task in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: size) { memory in
        guard let scratch = memory.baseAddress else { return 0.0 }
        var sum = 0.0
        let first = task * Self.rowsPerTask
        for index in first..<min(first + Self.rowsPerTask, count) where rows.weights[index] != 0 {
          let weight = rows.weights[index], start = index * columns
          let row = Row(index: index, student: student.floats + start)
          sum += Double(weight) * loss(row, weight * factor, target.value + start, scratch)
        }
        return sum
      }
    }
    return sums.reduce(0, +)
  }
}

extension TopProbabilities {
  /// One row without the tokens from `count` on, as probabilities among those below it. Tokens beyond
  /// it that the row does not list cannot be told from the rest.
  fileprivate func row(_ index: Int, below count: Int) -> (
    ids: [Int32], logProbabilities: [Float]
  ) {
    let range = index * k..<(index + 1) * k
    guard ids[range].contains(where: { !$0.isToken(below: count) }) else {
      return (Array(ids[range]), Array(logProbabilities[range]))
    }
    var kept: (ids: [Int32], logProbabilities: [Float]) = ([], [])
    var dropped = 0.0
    for i in range {
      if ids[i].isToken(below: count) {
        kept.ids.append(ids[i])
        kept.logProbabilities.append(logProbabilities[i])
      } else {
        dropped += exp(Double(logProbabilities[i]))
      }
    }
    // With everything dropped nothing is known of the tokens in common, and the kept are none.
    guard dropped < 1 else { return ([], []) }
    let shift = Float(log1p(-dropped))
    return (kept.ids, kept.logProbabilities.map { $0 - shift })
  }
}

extension Int32 {
  fileprivate func isToken(below count: Int) -> Bool { self >= 0 && Int(self) < count }
}
