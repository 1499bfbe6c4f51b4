import Tensors
package import Training

/// A teacher with more or fewer rows than the student, of the same tokens: seen through the student's
/// number of rows.
package final class PaddedTeacher: Teacher {
  package let vocabularySize: Int
  private let base: any Teacher

  /// A token that the teacher does not know is as much less probable than its best one, in nats. Not
  /// infinitely, so that no direction of any divergence becomes infinite.
  package static let unknownGap: Float = 40

  package init(_ base: any Teacher, vocabularySize: Int) {
    self.base = base
    self.vocabularySize = vocabularySize
  }

  package func begin(_ batch: TrainingBatch, wanting wish: StateWish) throws -> PassStates? {
    try base.begin(batch, wanting: wish)
  }

  package func rows(_ places: [Int]) throws -> TeacherRows {
    switch try base.rows(places) {
    case .logits(let logits):
      if logits.columns == vocabularySize { return .logits(logits) }
      if logits.columns > vocabularySize { return .logits(logits.columns(0..<vocabularySize)) }
      let (rows, known, width) = (logits.rows, logits.columns, vocabularySize)
      return .logits(
        Tensor(shape: [rows, width]) { target in
          guard let base = target.baseAddress else { return }
          for row in 0..<rows {
            let source = UnsafeBufferPointer(start: logits.floats + row * known, count: known)
            (base + row * width).update(from: logits.floats + row * known, count: known)
            let floor = (source.max() ?? 0) - Self.unknownGap
            (base + row * width + known).update(repeating: floor, count: width - known)
          }
        })
    case .top(let top):
      guard top.ids.allSatisfy({ $0 < vocabularySize }) else {
        throw DistillationError.badSetting(
          "the cached teacher's vocabulary", value: "larger than the student's",
          expected: "one whose probable tokens the student has")
      }
      return .top(top)
    }
  }
}
