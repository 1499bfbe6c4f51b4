import Checkpoints
import Models
import Text
import Tokenizers
import Training

extension TrainingRun {
  /// Makes the work folder, or finds that of the run to be resumed.
  static func prepareFolder(_ request: TrainingRequest) throws {
    let folder = request.workFolder
    let hasRun = try !TrainingCheckpoint.all(in: folder).isEmpty
    if request.resumes {
      guard hasRun else { throw TrainingError.noCheckpoint(folder: folder) }
      return
    }
    guard request.overwrite || !FileProbe.exists(request.output) else {
      throw CheckpointError.outputExists(path: request.output)
    }
    if hasRun, !request.overwrite { throw TrainingError.runExists(folder: folder) }
    FileProbe.remove(folder)
    try FileProbe.makeFolder(folder)
  }

  /// The model, or a new one of random numbers, kept in the work folder so that a resumed run starts
  /// from the same files.
  static func startingModel(_ request: TrainingRequest) throws -> LanguageModel {
    guard request.isFromConfiguration else { return try LanguageModel.load(request.model) }
    let folder = request.workFolder + "/initial"
    if !FileProbe.exists(folder) {
      guard let tokenizer = request.tokenizer else {
        throw TrainingError.badSetting(
          "--tokenizer", value: "missing",
          expected: "a folder with tokenizer.json, as a config alone "
            + "has none")
      }
      let config = try JSON.parse(try FileProbe.read(request.model), name: request.model)
      let initialization = try ModelInitialization(config: config, path: request.model)
      let directory = try OutputDirectory(folder, overwrite: true)
      do {
        try initialization.write(to: directory, seed: request.settings.seed)
        let names = try FileProbe.names(in: tokenizer)
        guard names.contains("tokenizer.json") else {
          throw TrainingError.badSetting(
            "--tokenizer", value: tokenizer, expected: "a folder with tokenizer.json")
        }
        for name in names where SideFiles.isTokenizer(name) {
          try directory.write(name, try FileProbe.read("\(tokenizer)/\(name)"))
        }
        try directory.finish()
      } catch {
        directory.discard()
        throw error
      }
    }
    return try LanguageModel.load(folder)
  }

  static func tokenizer(_ checkpoint: Checkpoint) throws -> Tokenizer {
    guard checkpoint.sideFiles.contains("tokenizer.json") else {
      throw TrainingError.badSetting(
        "the model's tokenizer.json", value: "missing",
        expected: "there: copy it from the original model")
    }
    return try Tokenizer(
      bytes: checkpoint.readSideFile("tokenizer.json"),
      name: "\(checkpoint.folder)/tokenizer.json")
  }

  static func template(_ request: TrainingRequest, _ checkpoint: Checkpoint) throws -> ChatTemplate?
  {
    guard let name = request.chatTemplate else {
      return try ChatTemplate.find { name in
        checkpoint.sideFiles.contains(name) ? try checkpoint.readSideFile(name) : nil
      }
    }
    if let builtIn = try ChatTemplate.builtIn(name) { return builtIn }
    return try ChatTemplate(FileProbe.read(name))
  }

  /// Which tensors a list of targets means.
  /// - Throws: `RecipeError` for a target that matches nothing.
  static func selection(
    _ targets: [Target], _ configuration: ModelConfiguration, path: String
  ) throws -> (ModelTensor) -> Bool {
    guard !targets.isEmpty else { return { _ in true } }
    let matchers = try targets.map { try $0.matcher() }
    for (target, matcher) in zip(targets, matchers)
    where !configuration.tensors.contains(where: { matcher.matches($0, module: $0.module) }) {
      throw TrainingError.badSetting(
        "--train", value: target.text, expected: "a role, module or pattern that \(path) has")
    }
    return { tensor in matchers.contains { $0.matches(tensor, module: tensor.module) } }
  }
}

/// The files a training writes while it runs.
struct Logs {
  private let metrics: MetricsLog
  private let events: TensorBoardLog

  /// - Parameter step: the step to go on after; nil for a new run.
  init(folder: String, after step: Int?) throws {
    metrics = try MetricsLog("\(folder)/metrics.jsonl", resumingAfter: step)
    events = try TensorBoardLog(directory: folder, resumingAfter: step)
  }

  func append(_ values: TrainingMetrics) throws {
    try metrics.append(values)
    try events.append(values)
  }

  func all() throws -> [TrainingMetrics] { try MetricsLog.read(metrics.path) }
}
