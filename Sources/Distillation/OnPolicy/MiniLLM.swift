package import Models
package import Tensors
package import Training

/// Reverse divergence between sequences, by policy gradient: MiniLLM (Gu et al. 2024,
/// arXiv:2306.08543, algorithm 1). The student and the teacher write together, the student's
/// probabilities move to where the teacher finds what was written likely, and plain text keeps it a
/// language model.
///
/// Each sample is learned from once, so the policy that wrote it is the one that learns, and PPO's
/// ratio is that of the importance weights alone. A student should have learned the task before, as
/// the paper's does: early samples of an untrained one teach little.
package struct MiniLLM: Objective {
  package let teacher: ModelTeacher
  package let gradient: PolicyGradient
  /// The divergence of single steps, KL(q ‖ p) over the vocabulary.
  package let reverseDivergence: any LogitLoss
  package let settings: ContinuationSettings
  /// On the mean loss of plain text, beside the mean over generated tokens.
  package let textWeight: Double
  /// Plain text; nil: the training data.
  private var text: TrainingStream?
  private var place = StepPlace()

  /// - Parameters:
  ///   - settings: of their temperature and filters nothing is used: samples are drawn from the
  ///     probabilities as they are, which the estimate depends on.
  /// - Throws: `badSetting`, `vocabulariesDiffer`.
  package init(
    teacher: LanguageModel, student: LanguageModel, reverseDivergence: any LogitLoss,
    gradient: PolicyGradient = PolicyGradient(),
    settings: ContinuationSettings = ContinuationSettings(), textWeight: Double = 1,
    text: TrainingStream? = nil
  ) throws(DistillationError) {
    guard gradient.teacherShare >= 0, gradient.teacherShare < 1 else {
      throw .badSetting(
        "the teacher's share in samples", value: "\(gradient.teacherShare)",
        expected: "at least 0 and below 1")
    }
    if let clip = gradient.clip, !(clip > 0) {
      throw .badSetting("the clip of weights", value: "\(clip)", expected: "above 0")
    }
    guard textWeight >= 0, textWeight.isFinite else {
      throw .badSetting("the weight of plain text", value: "\(textWeight)", expected: "at least 0")
    }
    let sizes = [student, teacher].map(\.configuration.vocabularySize)
    guard sizes[0] == sizes[1] else {
      throw .cannotCombine(sizes[0], sizes[1], use: "a policy gradient")
    }
    var settings = settings
    (settings.temperature, settings.topK, settings.topP) = (1, 0, 1)
    try settings.validate()
    self.teacher = ModelTeacher(teacher)
    self.gradient = gradient
    self.reverseDivergence = reverseDivergence
    self.settings = settings
    self.textWeight = textWeight
    self.text = text
  }

  /// Watches `reverse_kl`, the divergence of single steps; `policy`, PPO's surrogate of what later
  /// tokens add, whose gradient means something and its value little; and `text`.
  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    place.advance(to: context.step)
    var values = try learnFromSamples(model, batch, context)
    if textWeight > 0 {
      let text = try text?.next() ?? batch
      var context = context.replacing(batch, by: text)
      context.scale *= textWeight
      var modeling = LanguageModeling()
      let value = try modeling.accumulate(model, text, context)["loss"] ?? 0
      values["text"] = value / textWeight
      values["loss", default: 0] += value
    }
    return values
  }

  private func learnFromSamples(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    let sampler = try ContinuationSampler(
      model, mixedWith: teacher.model, share: gradient.teacherShare, settings)
    let prompts = batch.prompts(settings, longest: sampler.longestPrompt)
    guard !prompts.isEmpty else { return ["loss": 0] }
    let samples = TrainingBatch(
      try sampler.continuations(
        of: prompts, seeds: place.seeds(context.seed, count: prompts.count)))
    return try accumulate(
      model, samples: samples, context.replacing(batch, by: samples))
  }

  /// The gradient that given samples of the mixture contribute.
  package func accumulate(
    _ model: LanguageModel, samples: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    _ = try teacher.begin(samples, wanting: .none)
    let hidden = try model.hidden(
      tokens: samples.inputs, segments: samples.segments, recomputing: context.recomputes)
    let (single, future) = try factors(model.detached, hidden.detached, samples)
    var (divergence, policy) = (0.0, 0.0)
    let labels = LabelLoss()
    let (sum, derivative) = try model.headLoss(hidden, wanted: samples.wantedRows) { rows, logits in
      let places = Array(rows)
      var chunk = LogitRows(
        student: logits, teacher: try teacher.rows(places),
        targets: places.map { samples.targets[$0] },
        weights: places.map { single[$0] * Float(context.scale) })
      let gradient = Tensor.zeros(logits.shape)
      let target = UnsafeMutablePointer(mutating: gradient.floats)
      divergence += try reverseDivergence.accumulate(chunk, factor: 1, into: target)
      // future · −∇log q is the gradient of a likelihood loss with that weight. Its value is not
      // used: of weight · log q it is the weight that means something.
      chunk.weights = places.map { future[$0] * Float(context.scale) }
      _ = labels.accumulate(chunk, factor: 1, into: target)
      policy -= chunk.weights.reduce(0.0) { $0 + Double($1) }
      return (0, gradient)
    }
    Tape.backward([(hidden, derivative)])
    return ["loss": sum + divergence + policy, "reverse_kl": divergence, "policy": policy]
  }

  /// The policy gradient's factors at every place of the samples; zero where nothing was generated.
  ///
  /// - Parameter hidden: the student's, `[tokens, hidden]`; recorded nowhere.
  private func factors(_ student: LanguageModel, _ hidden: Tensor, _ samples: TrainingBatch) throws
    -> (single: [Float], future: [Float])
  {
    var own = [Double](repeating: 0, count: samples.inputs.count)
    var others = own
    let wanted = samples.wantedRows
    for first in stride(from: 0, to: wanted.count, by: student.headRows) {
      let places = Array(wanted[first..<min(first + student.headRows, wanted.count)])
      let targets = places.map { samples.targets[$0] }
      let logits = student.logits(hidden.rows(at: places))
      let judged = try teacher.rows(places).full(vocabulary: logits.columns, "a policy gradient")
      for (place, value) in zip(places, logits.logProbabilities(of: targets)) { own[place] = value }
      for (place, value) in zip(places, judged.logProbabilities(of: targets)) {
        others[place] = value
      }
    }
    var single = [Float](repeating: 0, count: own.count)
    var future = single
    for segment in samples.segments {
      let places = segment.filter { samples.weights[$0] != 0 }
      let factors = gradient.factors(
        student: places.map { own[$0] }, teacher: places.map { others[$0] })
      for (index, place) in places.enumerated() {
        single[place] = Float(factors.single[index])
        future[place] = Float(factors.future[index])
      }
    }
    return (single, future)
  }
}

// MARK: - In checkpoints

extension MiniLLM {
  private static let position = "minillm.text"

  /// The place in the plain text, where it has a stream of its own.
  package var state: [(name: String, tensor: Tensor)] {
    guard let position = text?.position else { return [] }
    return [
      (
        Self.position,
        ReplayBuffer.tensor([
          position.epoch, position.document, position.token, position.batch,
        ])
      )
    ]
  }

  package mutating func restore(from state: [String: Tensor]) throws {
    guard let text else { return }
    let numbers = try ReplayBuffer.numbers(Self.position, state)
    guard numbers.count == 4, numbers.allSatisfy({ $0 >= 0 }) else {
      throw DistillationError.badState(Self.position, problem: "it is not a place in a text")
    }
    self.text = try text.at(
      DataPosition(
        epoch: numbers[0], document: numbers[1], token: numbers[2], batch: numbers[3]))
  }
}
