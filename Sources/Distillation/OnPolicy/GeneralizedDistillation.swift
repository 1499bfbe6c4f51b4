package import Models
package import Tensors
package import Training

/// Learning from samples of the student itself: generalized knowledge distillation (Agarwal et al.
/// 2024, arXiv:2306.13649, algorithm 1). In a share λ of the steps the student continues the
/// prompts and the teacher judges what it wrote; in the others both read given outputs.
///
/// Gradients do not pass through the choice of samples, as in the paper.
package struct GeneralizedDistillation: Objective {
  /// What outputs are learned from when they are not the student's.
  package enum Given: Sendable {
    /// The training data.
    case data
    /// What this model writes: distillation on the level of sequences, made on the way.
    case outputs(of: LanguageModel)
  }

  /// What is computed on a batch: commonly a divergence between student and teacher.
  package private(set) var inner: any Objective
  package let given: Given
  /// λ
  package let studentShare: Double
  package let settings: ContinuationSettings
  private var place = StepPlace()

  /// - Throws: `badSetting`.
  package init(
    _ inner: any Objective, studentShare: Double = 0.5, given: Given = .data,
    settings: ContinuationSettings = ContinuationSettings()
  ) throws(DistillationError) {
    guard (0...1).contains(studentShare) else {
      throw .badSetting(
        "the share of the student's samples", value: "\(studentShare)", expected: "from 0 to 1")
    }
    try settings.validate()
    self.inner = inner
    self.given = given
    self.studentShare = studentShare
    self.settings = settings
  }

  /// Kim and Rush 2016, arXiv:1606.07947, section 3.2: the student learns the teacher's outputs as
  /// if they were the data.
  ///
  /// - Parameters:
  ///   - inner: `LanguageModeling()`, as in the paper, or a divergence on the teacher's outputs.
  ///   - settings: temperature 0 for the teacher's most probable tokens, in place of the paper's beam.
  package static func sequenceLevel(
    teacher: LanguageModel, _ inner: any Objective = LanguageModeling(),
    settings: ContinuationSettings
  ) throws(DistillationError) -> GeneralizedDistillation {
    try GeneralizedDistillation(
      inner, studentShare: 0, given: .outputs(of: teacher), settings: settings)
  }

  package var parameters: [Parameter] { inner.parameters }
  package var state: [(name: String, tensor: Tensor)] { inner.state }
  package mutating func restore(from state: [String: Tensor]) throws {
    try inner.restore(from: state)
  }
  package mutating func didStep(model: LanguageModel, step: Int) {
    inner.didStep(model: model, step: step)
  }

  /// Watched besides what the inner objective watches: `sampled`, the share of the step's tokens
  /// that were generated rather than read.
  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    place.advance(to: context.step)
    let writer: LanguageModel? =
      if place.uniform(context.seed) < studentShare {
        model
      } else if case .outputs(let teacher) = given {
        teacher
      } else {
        nil
      }
    var (read, context) = (batch, context)
    let share = context.scale * batch.weight
    var isSampled = false
    if let writer {
      let sampler = ContinuationSampler(writer, for: model, settings)
      let prompts = batch.prompts(settings, longest: sampler.longestPrompt)
      if !prompts.isEmpty {
        read = TrainingBatch(
          try sampler.continuations(
            of: prompts, seeds: place.seeds(context.seed, count: prompts.count)))
        context = context.replacing(batch, by: read)
        isSampled = true
      }
    }
    var values = try inner.accumulate(model, read, context)
    values["sampled"] = isSampled ? share : 0
    return values
  }
}
