package import Models
package import Tensors
package import Training

/// A student's own past as its teacher: a model with the exponential moving average of the
/// student's weights (Tarvainen and Valpola 2017, arXiv:1703.01780).
package final class AverageTeacher: Teacher {
  private let average: WeightAverage
  private let teacher: ModelTeacher

  /// Starts as the student is.
  ///
  /// - Parameter parameters: the student's, as `LanguageModel.withParameters` gives them. What is
  ///   no parameter is the same in both.
  /// - Throws: `TrainingError.badSetting` unless 0 ≤ decay < 1.
  package init(of student: LanguageModel, _ parameters: [Parameter], decay: Double = 0.999)
    throws(TrainingError)
  {
    average = try WeightAverage(of: parameters, decay: decay)
    // The averages are written where they lie, so the model sees each update.
    let weights = Dictionary(average.weights.map { ($0.name, $0.tensor) }) { first, _ in first }
    teacher = ModelTeacher(
      student.mapped(
        matrix: { declaration, weight in
          guard let tensor = weights[declaration.name] else { return weight }
          return weight is TransposedWeight ? TransposedWeight(tensor) : DenseWeight(tensor)
        }, vector: { weights[$0.name] ?? $1 }))
  }

  package var model: LanguageModel { teacher.model }
  package var vocabularySize: Int { teacher.vocabularySize }

  package func begin(_ batch: TrainingBatch, wanting wish: StateWish) throws -> PassStates? {
    try teacher.begin(batch, wanting: wish)
  }

  package func rows(_ places: [Int]) throws -> TeacherRows { try teacher.rows(places) }

  /// Takes the student's present weights in.
  package func update() { average.update() }

  private static let prefix = "teacher."

  /// Under names of their own: a training may average the student's weights besides.
  package var state: [(name: String, tensor: Tensor)] {
    average.state.map { (Self.prefix + $0.name, $0.tensor) }
  }

  package func restore(from state: [String: Tensor]) throws(TrainingError) {
    var own: [String: Tensor] = [:]
    for (name, tensor) in state where name.hasPrefix(Self.prefix) {
      own[String(name.dropFirst(Self.prefix.count))] = tensor
    }
    try average.restore(from: own)
  }
}

/// An objective whose teacher follows the student.
package struct AverageDistillation: Objective {
  package private(set) var inner: any Objective
  package let teacher: AverageTeacher

  /// - Parameter inner: asks `teacher`.
  package init(_ inner: any Objective, teacher: AverageTeacher) {
    self.inner = inner
    self.teacher = teacher
  }

  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    try inner.accumulate(model, batch, context)
  }

  package mutating func didStep(model: LanguageModel, step: Int) {
    inner.didStep(model: model, step: step)
    teacher.update()
  }

  package var parameters: [Parameter] { inner.parameters }
  package var state: [(name: String, tensor: Tensor)] { inner.state + teacher.state }
  package mutating func restore(from state: [String: Tensor]) throws {
    try inner.restore(from: state)
    try teacher.restore(from: state)
  }
}
