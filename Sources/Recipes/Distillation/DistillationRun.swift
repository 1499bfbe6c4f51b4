import Checkpoints
import Distillation
import Models
import Runtime
import Tensors
import Text
import Tokenizers
public import Training

/// A distillation from request to report: opens teachers, makes the student if it is not there yet,
/// compares vocabularies, and trains.
public struct DistillationRun {
  public let request: DistillationRequest
  public let training: TrainingRun
  private let teachers: [LanguageModel]
  private let objective: any Objective
  /// Whether teacher and student read the same tokens: `equal`, `padded`, `different`.
  public let vocabularies: String

  /// - Parameter onCache: batches of the teacher's cache that are made.
  /// - Throws: whatever is wrong with models, data or settings.
  public init(
    _ request: DistillationRequest, onCache: (Int, Int) throws -> Void = { _, _ in }
  ) throws {
    guard !request.teachers.isEmpty || Self.teachesItself(request.method) else {
      throw DistillationError.badSetting("--teacher", value: "missing", expected: "a model")
    }
    self.request = request
    let folder = try WorkFolder(request.training)
    teachers = try request.teachers.map { try LanguageModel.load($0) }
    for teacher in teachers {
      if let context = teacher.configuration.contextLength,
        request.training.settings.length > context
      {
        throw DistillationError.badSetting(
          "--length", value: "\(request.training.settings.length)",
          expected: "at most \(context), the context length of \(teacher.checkpoint.path)")
      }
    }
    var training = request.training
    training.model = try Self.student(request, teacher: teachers.first, folder)
    let bytes = teachers.reduce(0) { total, teacher in
      total
        + teacher.checkpoint.names.reduce(0) {
          $0 + (teacher.checkpoint.info($1)?.byteCount ?? 0)
        }
    }
    let run = try TrainingRun(
      training, teacherBytes: request.cache == nil ? bytes : 0, folder: folder)
    self.training = run
    (objective, vocabularies) = try Self.objective(request, run, teachers, onCache: onCache)
  }

  /// - Parameter onStep: sees each step; returning false stops after a checkpoint.
  /// - Returns: nil when stopped.
  public func train(onStep: (TrainingMetrics) throws -> Bool = { _ in true }) throws
    -> TrainingReport?
  {
    let settings: [(String, JSON)] = [
      ("method", JSON(request.methodName)), ("procedure", JSON("\(request.method)")),
      ("losses", .array(request.losses.map { JSON($0.summary) })),
      ("weighting", JSON(request.weighting.rawValue)),
      ("sampling", JSON("\(request.continuation)")),
      ("cache", JSON(request.cache != nil)),
    ]
    let hashes = try teachers.map { JSON(try CacheIdentity.hash($0)) }
    let report = try training.run(
      objective: objective, command: "distill",
      identity: settings + [("teachers", .array(hashes))], onStep: onStep)
    guard var report else { return nil }
    report.details =
      settings + [
        ("vocabularies", JSON(vocabularies)),
        ("teacher_sha256", .array(hashes)),
      ]
    return report
  }

  private static func teachesItself(_ method: DistillationRequest.Method) -> Bool {
    switch method {
    case .average, .exits: true
    default: false
    }
  }
}

// MARK: - The student

extension DistillationRun {
  /// The student's folder; one that is made lies in the work folder, so that a resumed run starts from
  /// the same numbers.
  private static func student(
    _ request: DistillationRequest, teacher: LanguageModel?, _ work: WorkFolder
  ) throws -> String {
    let (shape, layers): (String, String?)
    switch request.student {
    case .model(let path): return path
    case .random(let text): (shape, layers) = (text, nil)
    case .cut(let text, let choice): (shape, layers) = (text, choice)
    }
    guard let teacher else {
      throw DistillationError.badSetting(
        "--student-shape", value: shape, expected: "used with a --teacher that it is a shape of")
    }
    let identity =
      "\(shape) \(layers ?? "random") \(request.training.settings.seed) "
      + "\(try CacheIdentity.hash(teacher)) \(request.training.sources)"
    let folder = work.initialModel(
      digest: Array(identity.utf8).withUnsafeBytes { SHA256.digest($0) })
    if FileProbe.exists(folder) { return folder }
    let directory = try OutputDirectory(folder, overwrite: true)
    do {
      let parsed = try StudentShape(parsing: shape)
      if let layers {
        let choice = try LayerChoice(parsing: layers)
        try StudentCut(
          teacher, shape: parsed, layers: choice,
          importance: try StudentImportance.measure(
            teacher, sources: request.training.sources,
            template: try TrainingRun.template(request.training.chatTemplate, teacher.checkpoint),
            length: request.training.settings.length, seed: request.training.settings.seed)
        ).write(to: directory)
      } else {
        try RandomStudent(teacher: teacher.checkpoint, shape: parsed)
          .write(to: directory, seed: request.training.settings.seed)
      }
      try directory.finish()
    } catch {
      directory.discard()
      throw error
    }
    return folder
  }
}
