import Checkpoints
import Distillation
import Models
import Tokenizers
import Training

extension DistillationRun {
  /// The objective that a request means, and how teacher's and student's vocabularies compare.
  static func objective(
    _ request: DistillationRequest, _ run: TrainingRun, _ teachers: [LanguageModel],
    onCache: (Int, Int) throws -> Void
  ) throws -> (any Objective, vocabularies: String) {
    let student = run.student
    switch request.method {
    case .average(let decay):
      let teacher = try AverageTeacher(of: student, run.parameters, decay: decay)
      let terms = try LossTerms(
        request.losses, student: student.configuration, teacher: student.configuration,
        form: .logits)
      return (
        AverageDistillation(
          DistillationObjective(
            teacher: teacher, logitLosses: terms.logits, stateLosses: terms.states),
          teacher: teacher), "equal"
      )
    case .exits:
      return (
        try SelfExits(of: student, soft: try softLoss(request, common: nil)), "equal"
      )
    default: break
    }
    let (teacher, common, vocabularies) = try teacher(request, run, teachers, onCache: onCache)
    let terms = try LossTerms(
      request.losses, student: student.configuration, teacher: teachers[0].configuration,
      form: request.cache == nil ? .logits : .top, common: common)
    let inner = DistillationObjective(
      teacher: teacher, logitLosses: terms.logits, stateLosses: terms.states)
    let objective: any Objective =
      switch request.method {
      case .text, .average, .exits: inner
      case .sequence:
        try GeneralizedDistillation.sequenceLevel(
          teacher: try one(teachers, "sequence"), inner, settings: request.continuation)
      case .gkd(let share):
        try GeneralizedDistillation(inner, studentShare: share, settings: request.continuation)
      case .miniLLM:
        try MiniLLM(
          teacher: try one(teachers, "minillm"), student: student,
          reverseDivergence: try softLoss(request, common: common),
          settings: request.continuation)
      case .distiLLM:
        try AdaptiveReplay(
          inner, validation: try run.heldOutBatches(4), continuation: request.continuation)
      }
    return (objective, vocabularies)
  }

  private static func one(_ teachers: [LanguageModel], _ method: String) throws -> LanguageModel {
    guard teachers.count == 1 else {
      throw DistillationError.badSetting(
        "--teacher", value: "\(teachers.count) models", expected: "one for \(method)")
    }
    return teachers[0]
  }

  /// The first divergence among the losses.
  private static func softLoss(_ request: DistillationRequest, common: Int?) throws
    -> SoftTargetLoss
  {
    for entry in request.losses {
      if case .soft(let divergence, let temperature) = entry.kind {
        return try SoftTargetLoss(
          divergence, temperature: temperature, commonVocabulary: common)
      }
    }
    return try SoftTargetLoss(.reverseKL)
  }

  /// One teacher, several as one, or a cache; with the tokens in common where vocabularies are padded.
  private static func teacher(
    _ request: DistillationRequest, _ run: TrainingRun, _ models: [LanguageModel],
    onCache: (Int, Int) throws -> Void
  ) throws -> (any Teacher, common: Int?, vocabularies: String) {
    let rows = run.student.configuration.vocabularySize
    let terms = try LossTerms(
      request.losses, student: run.student.configuration, teacher: models[0].configuration,
      form: request.cache == nil ? .logits : .top)
    var fitted: [any Teacher] = []
    var common: Int?
    var words = "equal"
    for model in models {
      let (teacher, match) = try Vocabularies.fit(
        model, tokenizer: try TrainingRun.tokenizer(model.checkpoint),
        student: (run.encoder.tokenizer, rows), losses: terms.logits.map(\.loss),
        readsStates: !terms.states.isEmpty)
      switch match {
      case .equal: break
      case .padded(let shared): (common, words) = (min(common ?? shared, shared), "padded")
      case .different: words = "different"
      }
      fitted.append(teacher)
    }
    if let cache = request.cache {
      guard request.method == .text else {
        throw DistillationError.badSetting(
          "--teacher-cache", value: cache,
          expected: "left out with \(request.methodName), whose texts are in no cache")
      }
      guard models.count == 1, words == "equal" else {
        throw DistillationError.badSetting(
          "--teacher-cache", value: cache,
          expected: "used with one teacher of the student's vocabulary")
      }
      return (try cached(request, run, models[0], path: cache, onCache: onCache), nil, words)
    }
    guard fitted.count > 1 else { return (fitted[0], common, words) }
    let ensemble: any Teacher =
      switch request.weighting {
      case .mean: try TeacherEnsemble(fitted)
      case .entropy: try TeacherEnsemble(fitted, .entropy())
      case .likelihood: try TeacherEnsemble(fitted, .likelihood)
      case .domain: try DomainTeachers(fitted)
      }
    return (ensemble, common, words)
  }

  /// The cache of a teacher over the run's batches, made first if it is not there.
  private static func cached(
    _ request: DistillationRequest, _ run: TrainingRun, _ model: LanguageModel, path: String,
    onCache: (Int, Int) throws -> Void
  ) throws -> CachedTeacher {
    let stream = try run.stream()
    let settings = request.training.settings
    let batches = settings.steps * (settings.batchSize / settings.rowsAtOnce)
    if !FileProbe.exists(path) {
      try TeacherCache.write(
        to: path, teacher: model, stream: stream, batches: batches,
        settings: .init(
          k: request.cacheTop, memoryLimit: request.training.memoryLimit ?? 4 << 30),
        onProgress: { try onCache($0, batches) })
    }
    return try CachedTeacher(
      CacheFile(path: path), expected: CacheIdentity(teacher: model, stream: stream))
  }
}
