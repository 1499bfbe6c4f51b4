import Checkpoints
import Codecs
import Models
import Text
import Tokenizers
import Training

extension TrainingRun {
  /// Whether the output can be written, known before the work rather than after it.
  static func checkOutput(_ request: TrainingRequest, _ start: Checkpoint) throws {
    try OutputDirectory(
      request.output, overwrite: request.overwrite, inputs: inputPaths(request, start)
    ).discard()
  }

  /// What the output must not take the place of.
  static func inputPaths(_ request: TrainingRequest, _ start: Checkpoint) -> [String] {
    start.inputPaths + (request.sources + [request.heldOutSource].compactMap { $0 }).map(\.path)
      + (request.isFromConfiguration ? [request.model] : [])
  }

  /// The model, or a new one of random numbers.
  static func startingModel(_ request: TrainingRequest, _ folder: WorkFolder) throws
    -> LanguageModel
  {
    guard request.isFromConfiguration else { return try LanguageModel.load(request.model) }
    guard let tokenizer = request.tokenizer else {
      throw TrainingError.badSetting(
        "--tokenizer", value: "missing",
        expected: "a folder with tokenizer.json, as a config alone has none")
    }
    let names = try FileProbe.names(in: tokenizer)
    guard names.contains("tokenizer.json") else {
      throw TrainingError.badSetting(
        "--tokenizer", value: tokenizer, expected: "a folder with tokenizer.json")
    }
    let config = try FileProbe.read(request.model)
    let files = try names.filter(SideFiles.isTokenizer).map {
      (name: $0, bytes: try FileProbe.read("\(tokenizer)/\($0)"))
    }
    let identity = [Array("\(request.settings.seed)".utf8), config] + files.map(\.bytes)
    let digests = identity.map { $0.withUnsafeBytes { SHA256.digest($0) } }.joined()
    let path = folder.initialModel(
      digest: Array(digests.utf8).withUnsafeBytes { SHA256.digest($0) })
    if !FileProbe.exists(path) {
      let initialization = try ModelInitialization(
        config: try JSON.parse(config, name: request.model), path: request.model)
      let directory = try OutputDirectory(path, overwrite: true)
      do {
        try initialization.write(to: directory, seed: request.settings.seed)
        for (name, bytes) in files { try directory.write(name, bytes) }
        try directory.finish()
      } catch {
        directory.discard()
        throw error
      }
    }
    return try LanguageModel.load(path)
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

  /// - Parameter name: of a built-in template or a file; nil for the model's own.
  static func template(_ name: String?, _ checkpoint: Checkpoint) throws -> ChatTemplate? {
    guard let name else {
      return try ChatTemplate.find { name in
        checkpoint.sideFiles.contains(name) ? try checkpoint.readSideFile(name) : nil
      }
    }
    if let builtIn = try ChatTemplate.builtIn(name) { return builtIn }
    return try ChatTemplate(FileProbe.read(name))
  }

  /// What decides a run's numbers besides its settings, data and starting model.
  static func identity(_ request: TrainingRequest) throws -> [(String, JSON)] {
    var template = request.chatTemplate
    if let name = template, try ChatTemplate.builtIn(name) == nil {
      template = try FileProbe.read(name).withUnsafeBytes { SHA256.digest($0) }
    }
    return [
      ("train", .array(request.trained.map { JSON($0.text) })),
      ("adapters", request.adapters?.json ?? .null),
      ("validation", JSON(request.heldOutSource?.path ?? "\(request.heldOut)")),
      ("chat_template", template.map { JSON($0) } ?? .null),
      ("mask_prompt", JSON(request.masksPrompts)),
    ]
  }

  /// The model with adapters, its base in codes if so wanted.
  static func adapted(
    _ start: LanguageModel, _ adapters: AdapterRequest, _ request: TrainingRequest
  ) throws -> AdaptedModel {
    let isTarget = try selection(
      adapters.targets, start.configuration, option: "--target", path: request.model)
    let matrices = start.configuration.tensors.filter { $0.isMatrix && isTarget($0) }
    return try start.withAdapters(
      adapters.settings,
      targets: adapters.targets.isEmpty
        ? AdapterSettings.allBlockMatrices : Set(matrices.map(\.role)),
      seed: request.settings.seed, quantizingBase: adapters.base == .nf4 ? .qlora : nil,
      where: isTarget)
  }

  /// Which tensors a list of targets means.
  /// - Throws: `TrainingError.badSetting` for a target that matches nothing.
  static func selection(
    _ targets: [Target], _ configuration: ModelConfiguration, option: String = "--train",
    path: String
  ) throws -> (ModelTensor) -> Bool {
    guard !targets.isEmpty else { return { _ in true } }
    let matchers = try targets.map { try $0.matcher() }
    for (target, matcher) in zip(targets, matchers)
    where !configuration.tensors.contains(where: { matcher.matches($0, module: $0.module) }) {
      throw TrainingError.badSetting(
        option, value: target.text, expected: "a role, module or pattern that \(path) has")
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
