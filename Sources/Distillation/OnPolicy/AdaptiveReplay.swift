package import Models
package import Tensors
package import Training

/// Learning from samples of the student that are kept and used again: DistiLLM's adaptive
/// off-policy approach (Ko et al. 2024, arXiv:2402.03898, section 3.2). The inner objective is to
/// be a skew divergence, as in its section 3.1.
///
/// Samples take the data's place with a probability φ that starts at 0 and grows whenever the
/// student predicts validation text worse than it did before: noisy samples come in only once data
/// alone teaches no more. Of the steps on samples, fewer and fewer write new ones: in a share 1 −
/// t/T, or while the buffer has room.
package struct AdaptiveReplay: Objective {
  package struct Settings: Sendable, Equatable {
    /// φ at the start.
    package var probability = 0.0
    /// Added to φ when validation gets worse.
    package var increment = 0.1
    /// By how much the loss must rise, nats per token, to count as worse.
    package var tolerance = 0.1
    package var validateEvery = 100
    /// Texts in the buffer.
    package var capacity = 1000

    /// Defaults as in the authors' scripts, but for the interval, which there is an epoch.
    package init() {}
  }

  package private(set) var inner: any Objective
  package let replay: Settings
  package let continuation: ContinuationSettings
  package private(set) var buffer: ReplayBuffer
  /// φ
  package private(set) var probability: Double
  /// What later validations are compared with; nil before the first.
  private var reference: Double?
  /// Steps whose start was validated.
  private var validated = -1
  private let validation: [TrainingBatch]
  private var place = StepPlace()

  /// - Parameter validation: held-out text; without any, φ stays as it starts.
  /// - Throws: `badSetting`.
  package init(
    _ inner: any Objective, validation: [TrainingBatch], replay: Settings = Settings(),
    continuation: ContinuationSettings = ContinuationSettings()
  ) throws(DistillationError) {
    try continuation.validate()
    for (name, value) in [
      ("the probability of samples", replay.probability),
      ("the increment of the probability of samples", replay.increment),
    ] where !(0...1).contains(value) {
      throw .badSetting(name, value: "\(value)", expected: "from 0 to 1")
    }
    guard replay.tolerance >= 0 else {
      throw .badSetting(
        "the tolerated rise of the validation loss", value: "\(replay.tolerance)",
        expected: "at least 0")
    }
    for (name, value) in [
      ("the steps between validations", replay.validateEvery),
      ("the number of kept samples", replay.capacity),
    ] where value < 1 {
      throw .badSetting(name, value: "\(value)", expected: "at least 1")
    }
    self.inner = inner
    self.replay = replay
    self.continuation = continuation
    self.validation = validation
    buffer = ReplayBuffer(capacity: replay.capacity)
    probability = replay.probability
  }

  /// Watched besides what the inner objective watches, each times the batch's share in the step:
  /// `sampled`, whether it learned from samples, and `sample_probability`, φ.
  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    place.advance(to: context.step)
    try validate(model, context)
    let share = context.scale * batch.weight
    let chance = place.uniform(context.seed)
    var (read, context) = (batch, context)
    var isSampled = false
    if chance < probability {
      let rest = 1 - Double(context.step) / Double(max(context.steps, 1))
      let isNew = chance < probability * rest || buffer.texts.count < replay.capacity
      let texts = try isNew ? write(model, batch, context) : draw(batch, context)
      if !texts.isEmpty {
        read = TrainingBatch(texts)
        context = context.replacing(batch, by: read)
        isSampled = true
      }
    }
    var values = try inner.accumulate(model, read, context)
    values["sampled"] = isSampled ? share : 0
    values["sample_probability"] = probability * share
    return values
  }

  private mutating func write(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [TrainingExample] {
    let sampler = ContinuationSampler(model, continuation)
    let prompts = batch.prompts(continuation, longest: sampler.longestPrompt)
    let texts = try sampler.continuations(
      of: prompts, seeds: place.seeds(context.seed, count: prompts.count))
    buffer.add(texts)
    return texts
  }

  private func draw(_ batch: TrainingBatch, _ context: ObjectiveContext) -> [TrainingExample] {
    var random = place.random(context.seed)
    return buffer.sample(continuation.prompts ?? batch.rows, &random)
  }

  /// Before a step that begins an interval, which is after the step that ended one.
  private mutating func validate(_ model: LanguageModel, _ context: ObjectiveContext) throws {
    guard context.step % replay.validateEvery == 0, validated != context.step,
      !validation.isEmpty
    else { return }
    validated = context.step
    let model = model.detached
    let sum = try validation.reduce(0.0) { try $0 + LanguageModeling.summedLoss(model, $1) }
    observe(validationLoss: sum / Double(max(validation.reduce(0) { $0 + $1.predictions }, 1)))
  }

  /// A loss that is not worse changes nothing: later ones are compared with the last that counted
  /// as worse, or with the first.
  mutating func observe(validationLoss: Double) {
    guard let reference else {
      reference = validationLoss
      return
    }
    guard validationLoss >= reference + replay.tolerance else { return }
    probability = min(probability + replay.increment, 1)
    self.reference = validationLoss
  }
}

// MARK: - In checkpoints

extension AdaptiveReplay {
  private static let name = "replay"

  package var parameters: [Parameter] { inner.parameters }

  package mutating func didStep(model: LanguageModel, step: Int) {
    inner.didStep(model: model, step: step)
  }

  /// φ and the loss it is adapted by as bits, so that they come back exactly; and the buffer.
  package var state: [(name: String, tensor: Tensor)] {
    let numbers = [probability, reference ?? .nan].map { Int(bitPattern: UInt($0.bitPattern)) }
    return inner.state + [("\(Self.name).numbers", ReplayBuffer.tensor(numbers))]
      + buffer.state(Self.name)
  }

  package mutating func restore(from state: [String: Tensor]) throws {
    let numbers = try ReplayBuffer.numbers("\(Self.name).numbers", state)
      .map { Double(bitPattern: UInt64(UInt(bitPattern: $0))) }
    guard numbers.count == 2, (0...1).contains(numbers[0]) else {
      throw DistillationError.badState(Self.name, problem: "its numbers are not a probability")
    }
    var restored = buffer
    try restored.restore(Self.name, from: state)
    try inner.restore(from: state)
    buffer = restored
    probability = numbers[0]
    reference = numbers[1].isNaN ? nil : numbers[1]
  }
}
