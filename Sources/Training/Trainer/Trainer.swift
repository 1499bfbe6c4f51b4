import CKernels
package import Checkpoints
package import Models
import Runtime
package import Tensors
package import Text

/// Changes a model's parameters step by step so that an objective becomes smaller, and can be
/// stopped anywhere: what a step computes depends on the settings, the data and the step before alone,
/// so a run that is resumed ends in the same bytes.
package final class Trainer {
  /// Whose computations record.
  package let model: LanguageModel
  /// The same parameters, recording nothing.
  package let measured: LanguageModel
  package let parameters: [Parameter]
  package let settings: TrainingSettings
  package let optimizer: any Optimizer
  package let average: WeightAverage?
  /// Steps done.
  package private(set) var step = 0
  /// Tokens whose prediction counted, so far.
  package private(set) var tokens = 0
  package private(set) var lastCheckpoint: TrainingCheckpoint?

  /// What a checkpoint keeps of the model: by default the whole of it, as a model folder.
  package var save: (LanguageModel, OutputDirectory) throws -> Void = { try $0.write(to: $1) }

  private var objective: any Objective
  private var stream: TrainingStream
  private let heldOut: TrainingStream?
  /// Where checkpoints go; nil for a run that keeps none.
  private let folder: String?
  /// What a resumed run must agree on besides the settings: data, model.
  private let identity: JSONObject

  /// - Parameters:
  ///   - model: as `LanguageModel.withParameters` gives it, with its parameters.
  ///   - stream: batches of `settings.rowsAtOnce` rows.
  ///   - heldOut: text to measure on; passed from its start each time.
  ///   - identity: named digests of whatever else decides the run's numbers.
  package init(
    model: LanguageModel, parameters: [Parameter], objective: any Objective,
    stream: TrainingStream, heldOut: TrainingStream? = nil, settings: TrainingSettings,
    folder: String? = nil, identity: JSONObject = JSONObject()
  ) throws {
    try settings.validate(contextLength: model.configuration.contextLength)
    // Every step asks for the same activations again.
    pare_keep_freed_memory()
    self.model = model
    measured = model.detached
    self.parameters = parameters
    self.objective = objective
    self.stream = stream
    self.heldOut = heldOut
    self.settings = settings
    self.folder = folder
    var options = settings.optimizerOptions
    options.seed = settings.seed
    optimizer = try settings.optimizer.makeOptimizer(for: parameters, options: options)
    average = try settings.averageDecay.map { try WeightAverage(of: parameters, decay: $0) }
    self.identity = JSONObject(
      (settings.identity.pairs + identity.pairs).map { (String(decoding: $0, as: UTF8.self), $1) })
  }

  /// What one step was like.
  package struct StepReport: Sendable {
    /// From 1.
    package var step: Int
    /// The objective's `loss`, a mean over the step's counted tokens, and whatever else it watches.
    package var values: [String: Double]
    package var gradientNorm: Double
    package var learningRateFactor: Double
    /// Whose prediction counted.
    package var tokens: Int
    package var seconds: Double
    /// Nats per token on held-out text, where it was measured after this step.
    package var heldOutLoss: Double?

    package var loss: Double { values["loss"] ?? .nan }
  }

  /// Trains up to the last step, with checkpoints on the way and after it.
  ///
  /// - Parameter onStep: sees each step; returning false stops after a checkpoint.
  /// - Throws: `TrainingError.diverged` when a loss or gradient is not finite; whatever reading the
  ///   data or writing a checkpoint throws. The newest checkpoint stays good.
  package func run(onStep: (StepReport) throws -> Bool = { _ in true }) throws {
    while step < settings.steps {
      var report = try takeStep()
      let isLast = step == settings.steps
      if isLast || settings.evaluateEvery.map({ step % $0 == 0 }) ?? false {
        report.heldOutLoss = try heldOutLoss()
        guard report.heldOutLoss?.isFinite ?? true else { throw try divergence([], step: step) }
      }
      let goesOn = try onStep(report)
      if isLast || !goesOn || step % settings.checkpointEvery == 0 { try checkpoint() }
      if !goesOn { return }
    }
  }

  /// One step: the gradient of the mean loss over a batch, and the optimizer's answer.
  package func takeStep() throws -> StepReport {
    let clock = ContinuousClock()
    let start = clock.now
    var batches: [TrainingBatch] = []
    for _ in 0..<(settings.batchSize / settings.rowsAtOnce) {
      guard let batch = try stream.next() else { break }
      batches.append(batch)
    }
    // All batches are known before the first passes through, so that every token of the step counts
    // alike however it is cut.
    let weight = batches.reduce(0.0) { $0 + $1.weights.reduce(0.0) { $0 + Double($1) } }
    guard weight > 0 else { throw TrainingError.nothingCounts(step: step + 1) }
    for parameter in parameters { parameter.clearGradient() }
    var values: [String: Double] = [:]
    for batch in batches {
      let part = try objective.accumulate(
        model, batch,
        .init(
          scale: 1 / weight, step: step, steps: settings.steps, seed: settings.seed,
          recomputes: settings.recomputes))
      values.merge(part, uniquingKeysWith: +)
    }
    guard values.values.allSatisfy(\.isFinite) else {
      throw try divergence(batches, step: step + 1)
    }
    let norm = try gradientNorm()
    let factor = settings.schedule.factor(step: step, total: settings.steps)
    optimizer.step(
      learningRateFactor: factor,
      gradientFactor: settings.clipNorm.map { GradientClipping.factor(norm: norm, limit: $0) } ?? 1)
    for parameter in parameters { parameter.clearGradient() }
    average?.update()
    objective.didStep(model: measured, step: step)
    step += 1
    let counted = batches.reduce(0) { $0 + $1.predictions }
    tokens += counted
    return StepReport(
      step: step, values: values, gradientNorm: norm, learningRateFactor: factor, tokens: counted,
      seconds: (clock.now - start).inSeconds)
  }

  private func gradientNorm() throws(TrainingError) -> Double {
    do throws(TrainingError) {
      return try GradientClipping.globalNorm(parameters)
    } catch {
      guard case .gradientNotFinite(let parameter) = error else { throw error }
      throw .diverged(
        step: step + 1, place: "the gradient of \(parameter)", checkpoint: lastCheckpoint?.path)
    }
  }

  /// The mean negative log-likelihood of held-out text, nats per token; nil where none is held out.
  /// Measured with the averaged weights where there are such.
  package func heldOutLoss() throws -> Double? {
    guard let heldOut else { return nil }
    func measure() throws -> Double {
      var stream = heldOut
      var sum = 0.0, count = 0
      while let batch = try stream.next() {
        sum += try LanguageModeling.summedLoss(measured, batch)
        count += batch.predictions
      }
      return sum / Double(max(count, 1))
    }
    return try average.map { try $0.withAverages { try measure() } } ?? measure()
  }

  /// The first place where numbers are not finite, found by running the step's batches again.
  private func divergence(_ batches: [TrainingBatch], step: Int) throws -> TrainingError {
    func error(_ place: String) -> TrainingError {
      .diverged(step: step, place: place, checkpoint: lastCheckpoint?.path)
    }
    if let broken = brokenParameter { return error(broken.name) }
    for batch in batches {
      var first: Int?
      var observer = PassObserver()
      observer.onBlock = { if first == nil, !$1.isFinite { first = $0 } }
      let hidden = try measured.hidden(
        tokens: batch.inputs, segments: batch.segments, observer: observer)
      if let first { return error(model.blocks[first].configuration.name) }
      if !hidden.isFinite { return error("the final norm") }
    }
    return error("the loss")
  }

  private var brokenParameter: Parameter? { parameters.first { !$0.tensor.isFinite } }
}

// MARK: - Checkpoints

extension Trainer {
  private static let parameterPrefix = "parameter."

  /// Writes a checkpoint of this moment and removes those that are older than the settings keep.
  /// - Throws: `TrainingError.diverged` rather than to replace good numbers by others.
  package func checkpoint() throws {
    // The gradient that made them may have been finite still.
    if let broken = brokenParameter {
      throw TrainingError.diverged(
        step: step, place: broken.name, checkpoint: lastCheckpoint?.path)
    }
    guard let folder else { return }
    let position: JSON = [
      "step": JSON(step), "tokens": JSON(tokens), "data": stream.position.json,
      "settings": .object(identity),
    ]
    let state =
      parameters.map { (Self.parameterPrefix + $0.name, $0.tensor) } + optimizer.state
      + (average?.state ?? []) + objective.state
    lastCheckpoint = try TrainingCheckpoint.write(
      step: step, in: folder, state: state, position: position
    ) { try save(measured, $0) }
    let all = try TrainingCheckpoint.all(in: folder)
    for old in all.dropLast(1 + settings.earlierCheckpoints) { old.remove() }
  }

  /// Goes on from the newest checkpoint.
  /// - Throws: `TrainingError.noCheckpoint`, `.differentRun`, `.badCheckpoint`.
  package func resume() throws {
    guard let folder, let checkpoint = try TrainingCheckpoint.all(in: folder).last else {
      throw TrainingError.noCheckpoint(folder: folder ?? "The run")
    }
    let (state, position) = try checkpoint.read()
    guard let stored = position["settings"]?.object, let step = position["step"]?.int,
      let tokens = position["tokens"]?.int, let data = position["data"]
    else {
      throw TrainingError.badCheckpoint(path: checkpoint.path, reason: "its state is incomplete")
    }
    for (key, present) in identity.pairs {
      let name = String(decoding: key, as: UTF8.self)
      guard stored[name] == present else {
        throw TrainingError.differentRun(
          setting: name, stored: Self.text(stored[name]), present: Self.text(present),
          checkpoint: checkpoint.path)
      }
    }
    for parameter in parameters {
      guard let values = state[Self.parameterPrefix + parameter.name],
        values.dtype == parameter.tensor.dtype, values.shape == parameter.shape
      else {
        throw TrainingError.badCheckpoint(
          path: checkpoint.path, reason: "it lacks \(parameter.name)")
      }
    }
    try optimizer.restore(from: state)
    try average?.restore(from: state)
    try objective.restore(from: state)
    stream = try stream.at(DataPosition(json: data))
    for parameter in parameters {
      if let values = state[Self.parameterPrefix + parameter.name] { parameter.assign(values) }
    }
    (self.step, self.tokens, lastCheckpoint) = (step, tokens, checkpoint)
  }

  private static func text(_ json: JSON?) -> String {
    json.map { $0.string ?? String(decoding: $0.serialized(), as: UTF8.self) } ?? "nothing"
  }
}

extension JSONObject {
  fileprivate var pairs: [(key: [UInt8], value: JSON)] { map { ($0.0, $0.1) } }
}

extension Tensor {
  /// Whether no number is NaN or infinite.
  fileprivate var isFinite: Bool {
    switch dtype {
    case .float32: UnsafeBufferPointer(start: floats, count: count).allSatisfy(\.isFinite)
    default: detached.widened().isFinite
    }
  }
}
