import Checkpoints
import Distillation
import Training

extension DistillationRequest {
  /// The soft targets of a method, as flags or keys state them.
  public struct Soft: Sendable {
    public var divergence: String?
    public var beta: Double?
    public var alpha: Double?
    public var temperature: Double
    /// The teacher's share; the labels' is the rest.
    public var weight: Double

    public init(
      divergence: String? = nil, beta: Double? = nil, alpha: Double? = nil,
      temperature: Double = 1, weight: Double = 0.5
    ) {
      self.divergence = divergence
      self.beta = beta
      self.alpha = alpha
      self.temperature = temperature
      self.weight = weight
    }
  }

  /// How methods that learn from samples make them.
  public struct Samples: Sendable {
    public var studentShare: Double
    public var temperature: Float
    public var maxNewTokens: Int
    public var promptTokens: Int
    public var prompts: Int?

    public init(
      studentShare: Double = 0.5, temperature: Float = 0.9, maxNewTokens: Int = 128,
      promptTokens: Int = 16, prompts: Int? = nil
    ) {
      self.studentShare = studentShare
      self.temperature = temperature
      self.maxNewTokens = maxNewTokens
      self.promptTokens = promptTokens
      self.prompts = prompts
    }
  }

  /// - Parameters:
  ///   - methodName: one of `methodNames`.
  ///   - lossesYAML: losses in place of the method's.
  ///   - soft: how the method's own losses are set.
  /// - Throws: `DistillationError`, `RecipeError` for settings that cannot be.
  public init(
    training: TrainingRequest, teachers: [String], student: Student, methodName: String,
    lossesYAML: String? = nil, soft: Soft = .init(), samples: Samples = .init(),
    teacherDecay: Double = 0.999
  ) throws {
    let divergence = try soft.divergence.map {
      try DistillationDivergence(named: $0, beta: soft.beta, alpha: soft.alpha)
    }
    guard
      let own = Self.losses(
        of: methodName, divergence: divergence, temperature: soft.temperature,
        softWeight: soft.weight)
    else {
      throw DistillationError.badSetting(
        "--method", value: methodName,
        expected: "one of " + Self.methodNames.joined(separator: ", "))
    }
    self.init(
      training: training, teachers: teachers, student: student,
      losses: try lossesYAML.map { try LossEntry.list(yaml: $0) } ?? own)
    self.methodName = methodName
    method =
      switch methodName {
      case "sequence": .sequence
      case "gkd": .gkd(share: samples.studentShare)
      case "minillm": .miniLLM
      case "distillm": .distiLLM
      case "ema": .average(decay: teacherDecay)
      case "exits": .exits
      default: .text
      }
    continuation.temperature = samples.temperature
    continuation.maxNewTokens = samples.maxNewTokens
    continuation.promptTokens = samples.promptTokens
    continuation.prompts = samples.prompts
  }
}

// MARK: - Generations

extension DistillationRun {
  /// One training of a chain in which each student teaches the next.
  public struct Generation: Sendable {
    public var number: Int
    public var request: DistillationRequest
  }

  /// Born-again networks (Furlanello et al. 2018, arXiv:1805.04770): generations that are not there yet
  /// are trained one after the other into `OUTPUT.generations/generation-N`; the last becomes the output.
  ///
  /// - Parameter train: carries one generation's request out.
  public static func bornAgain(
    generations: Int, request: DistillationRequest, train: (Generation) throws -> Void
  ) throws {
    guard let teacher = request.teachers.first, request.teachers.count == 1 else {
      throw DistillationError.badSetting(
        "--teacher", value: "\(request.teachers.count) models", expected: "one for born-again")
    }
    let folder = request.training.output + ".generations"
    try FileProbe.makeFolder(folder)
    let chain = try BornAgain(generations: generations, seed: request.training.settings.seed)
    let plan = chain.plan(teacher: teacher, in: folder)
    for generation in plan where !FileProbe.exists(generation.output) {
      var next = request
      next.teachers = [generation.teacher]
      next.training.settings.seed = generation.seed
      let isLast = generation.number == plan.last?.number
      next.training.output = isLast ? request.training.output : generation.output
      // Of a chain that was stopped, only the generation it was stopped in goes on.
      let begun = try !TrainingCheckpoint.all(in: next.training.workFolder).isEmpty
      next.training.resumes = request.training.resumes && begun
      try train(Generation(number: generation.number, request: next))
    }
  }
}
