import Tensors
package import Training

/// Several teachers, each for the texts it knows: every text of a batch has one of them.
package final class DomainTeachers: Teacher {
  /// The teacher of a text, by its place in the batch; nil where nothing is known of it.
  package typealias Assignment = (TrainingBatch, Range<Int>) -> Int?

  private let teachers: [any Teacher]
  private let assignment: Assignment
  /// The teacher of each place of the batch.
  package private(set) var owners: [Int] = []

  /// - Parameter assignment: tells texts of known domains; a text of none goes to the teacher that
  ///   predicts it best, the first of equals.
  /// - Throws: `badSetting`, `vocabulariesDiffer`.
  package init(_ teachers: [any Teacher], assignment: @escaping Assignment = { _, _ in nil })
    throws(DistillationError)
  {
    try TeacherEnsemble.check(teachers)
    self.teachers = teachers
    self.assignment = assignment
  }

  package var vocabularySize: Int { teachers[0].vocabularySize }

  /// - Throws: `noCommonStates`, `noSuchTeacher`; `partialTeacher` where losses must be compared
  ///   and a teacher keeps its most probable tokens only.
  package func begin(_ batch: TrainingBatch, wanting wish: StateWish) throws -> PassStates? {
    guard wish == .none || teachers.count == 1 else {
      throw DistillationError.noCommonStates(teachers: teachers.count)
    }
    var states: PassStates?
    for teacher in teachers { states = try teacher.begin(batch, wanting: wish) }
    let known = batch.segments.map { assignment(batch, $0) }
    for case let number? in known where !teachers.indices.contains(number) {
      throw DistillationError.noSuchTeacher(number, teachers: teachers.count)
    }
    let losses = known.contains(nil) && teachers.count > 1 ? try losses(batch) : []
    owners = [Int](repeating: 0, count: batch.inputs.count)
    for (segment, number) in zip(batch.segments, known) {
      let best = losses.indices.min { losses[$0][segment].sum() < losses[$1][segment].sum() }
      for place in segment { owners[place] = number ?? best ?? 0 }
    }
    return states
  }

  /// Every teacher's loss at every place, zero where nothing counts.
  private func losses(_ batch: TrainingBatch) throws -> [[Double]] {
    let wanted = batch.wantedRows
    let rows = max(16, (1 << 22) / vocabularySize)
    return try teachers.map { teacher in
      var losses = [Double](repeating: 0, count: batch.inputs.count)
      for first in stride(from: 0, to: wanted.count, by: rows) {
        let places = Array(wanted[first..<min(first + rows, wanted.count)])
        let logits = try teacher.rows(places).full(
          vocabulary: vocabularySize, "choosing a teacher by its loss")
        let values = logits.logProbabilities(of: places.map { batch.targets[$0] })
        for (place, value) in zip(places, values) {
          losses[place] = -value * Double(batch.weights[place])
        }
      }
      return losses
    }
  }

  /// - Throws: `partialTeacher` where places of several teachers are asked for and one keeps its
  ///   most probable tokens only.
  package func rows(_ places: [Int]) throws -> TeacherRows {
    let present = Set(places.map { owners[$0] }).sorted()
    if present.count == 1 { return try teachers[present[0]].rows(places) }
    let vocabulary = vocabularySize
    let target = Tensor.zeros([places.count, vocabulary])
    let base = UnsafeMutablePointer(mutating: target.floats)
    for number in present {
      let own = places.indices.filter { owners[places[$0]] == number }
      let logits = try teachers[number].rows(own.map { places[$0] })
        .full(vocabulary: vocabulary, "several teachers")
      withExtendedLifetime(logits) {
        for (row, place) in own.enumerated() {
          (base + place * vocabulary).update(
            from: logits.floats + row * vocabulary, count: vocabulary)
        }
      }
    }
    return .logits(target)
  }
}

extension ArraySlice<Double> {
  fileprivate func sum() -> Double { reduce(0, +) }
}
