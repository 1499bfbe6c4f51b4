package import Tensors

/// What a teacher says of some positions.
package enum TeacherRows: Sendable {
  /// `[rows, vocabulary]`, before any softmax.
  case logits(Tensor)
  /// The most probable tokens of each row and how probable they are; of the rest only the sum.
  case top(TopProbabilities)
}

/// The most probable tokens of some rows: log-probabilities at temperature 1, the rest as one mass.
package struct TopProbabilities: Sendable {
  /// Per row.
  package var k: Int
  /// `[rows · k]`, most probable first.
  package var ids: [Int32]
  /// `[rows · k]`, nats.
  package var logProbabilities: [Float]

  package init(k: Int, ids: [Int32], logProbabilities: [Float]) {
    precondition(ids.count == logProbabilities.count && k > 0 && ids.count % k == 0)
    self.k = k
    self.ids = ids
    self.logProbabilities = logProbabilities
  }

  package var rows: Int { ids.count / k }
}

/// Some positions as a loss on logits sees them.
package struct LogitRows: Sendable {
  /// `[rows, vocabulary]`
  package var student: Tensor
  /// nil where no loss asks a teacher.
  package var teacher: TeacherRows?
  /// The true next token of each row.
  package var targets: [Int]
  /// A factor on each row's loss.
  package var weights: [Float]
  /// The share of the training that is done, from 0 to 1.
  package var progress: Double

  package init(
    student: Tensor, teacher: TeacherRows?, targets: [Int], weights: [Float], progress: Double = 0
  ) {
    self.student = student
    self.teacher = teacher
    self.targets = targets
    self.weights = weights
    self.progress = progress
  }
}

/// A loss on the logits of single positions: a value that composes with others by a weighted sum.
package protocol LogitLoss: Sendable {
  /// As recipes and logs call it: `labels`, `soft`.
  var name: String { get }
  var needsTeacher: Bool { get }

  /// Adds `factor` times the derivative of the rows' weighted, summed loss to a gradient.
  ///
  /// - Parameter gradient: `[rows, vocabulary]`, holds what other losses have added.
  /// - Returns: the weighted sum over rows, without `factor`, nats.
  func accumulate(_ rows: LogitRows, factor: Float, into gradient: UnsafeMutablePointer<Float>)
    throws -> Double
}
