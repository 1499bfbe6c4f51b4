import Checkpoints
package import Models
import Runtime
package import Tensors
package import Text
import Tokenizers
public import Training

/// A training from request to report: opens model and data, trains with checkpoints and logs in a
/// folder beside the output, and lets the output appear when it is whole.
public struct TrainingRun {
  public let request: TrainingRequest
  /// Where the training starts.
  package let start: LanguageModel
  package let student: LanguageModel
  package let parameters: [Parameter]
  public let data: TrainingData
  public let dataSummary: DataSummary
  public let memory: MemoryEstimate
  package let encoder: ExampleEncoder
  private let heldOutData: (TrainingData, TrainingData.Use)?
  private let folder: WorkFolder
  private let adapted: AdaptedModel?

  public var parameterCount: Int { parameters.reduce(0) { $0 + $1.count } }

  /// Opens and checks everything; writes nothing but, for a new model, its first numbers.
  ///
  /// - Parameter teacherBytes: of other models that will be in memory.
  /// - Throws: whatever is wrong with model, data or settings.
  public init(_ request: TrainingRequest, teacherBytes: Int = 0) throws {
    try self.init(request, teacherBytes: teacherBytes, folder: WorkFolder(request))
  }

  init(_ request: TrainingRequest, teacherBytes: Int, folder: WorkFolder) throws {
    self.request = request
    self.folder = folder
    start = try Self.startingModel(request, folder)
    try Self.checkOutput(request, start.checkpoint)
    try request.settings.validate(contextLength: start.configuration.contextLength)
    let tokenizer = try Self.tokenizer(start.checkpoint)
    guard tokenizer.vocabularySize <= start.configuration.vocabularySize else {
      throw TrainingError.badSetting(
        "vocab_size", value: String(start.configuration.vocabularySize),
        expected: "at least the tokenizer's \(tokenizer.vocabularySize)")
    }
    let checkpoint = start.checkpoint
    var encoder = try ExampleEncoder(
      tokenizer: tokenizer, template: try Self.template(request.chatTemplate, checkpoint),
      beginToken: start.configuration.beginToken, endTokens: start.endTokens)
    encoder.masksPrompts = request.masksPrompts
    self.encoder = encoder
    data = try TrainingData(
      request.sources, heldOut: request.heldOutSource == nil ? request.heldOut : .none,
      seed: request.settings.seed, partBytes: max(1 << 16, 16 * request.settings.length))
    if let source = request.heldOutSource {
      heldOutData = (try TrainingData([source], seed: 0), .training)
    } else {
      heldOutData = request.heldOut == .none ? nil : (data, .heldOut)
    }
    dataSummary = try data.summary(encoder)
    adapted = try request.adapters.map { [start] in try Self.adapted(start, $0, request) }
    if let adapted {
      (student, parameters) = (adapted.model, adapted.parameters)
    } else if request.trainsScales {
      (student, parameters) = try start.withTrainedScales()
    } else {
      let isTrained = try Self.selection(
        request.trained, start.configuration, path: request.model)
      (student, parameters) = start.withParameters(
        request.settings.parameterType, where: isTrained)
    }
    if adapted == nil { try student.settled.checkStorable() }
    guard !parameters.isEmpty else {
      throw TrainingError.badSetting(
        "--train", value: "\(request.trained.map(\.text))",
        expected: "a choice with tensors that are not quantized")
    }
    memory = MemoryEstimate(
      model: student, parameters: parameters, settings: request.settings,
      teacherBytes: teacherBytes)
    try memory.check(limit: request.memoryLimit, settings: request.settings)
  }

  /// Trains on the text itself.
  /// - Parameter onStep: sees each step; returning false stops after a checkpoint.
  /// - Returns: nil when stopped.
  public func train(
    command: String = "train", onStep: (TrainingMetrics) throws -> Bool = { _ in true }
  ) throws -> TrainingReport? {
    try run(objective: LanguageModeling(), command: command, onStep: onStep)
  }

  /// - Parameters:
  ///   - objective: what is made smaller.
  ///   - identity: digests of what else decides the numbers, such as teachers.
  ///   - onStep: sees each step; returning false stops after a checkpoint, without an output.
  /// - Returns: nil when stopped.
  package func run(
    objective: any Objective, command: String, identity: [(String, JSON)] = [],
    onStep: (TrainingMetrics) throws -> Bool = { _ in true }
  ) throws -> TrainingReport? {
    let settings = request.settings
    var objective = objective
    if let dropout = adapted?.dropout {
      objective = AdapterObjective(objective, dropout: dropout)
    }
    folder.begin(keeping: start.checkpoint.folder)
    let trainer = try Trainer(
      model: student, parameters: parameters + objective.parameters, objective: objective,
      stream: try stream(), heldOut: try heldOutStream(), settings: settings,
      folder: request.workFolder,
      identity: JSONObject(
        [
          ("data", JSON(try data.contentHash())),
          ("model", .array(try start.checkpoint.fileHashes().map { JSON($0.sha256) })),
        ] + Self.identity(request) + identity))
    if request.trainsScales { trainer.save = { try $0.settled.write(to: $1) } }
    if let adapted {
      trainer.save = { [request] in
        try AdapterFolder.write($0, adapted.settings, into: $1, base: request.model)
      }
    }
    if folder.resumes { try trainer.resume() }
    let logs = try Logs(folder: request.workFolder, after: folder.resumes ? trainer.step : nil)
    let clock = ContinuousClock()
    let began = clock.now
    let firstStep = trainer.step
    var trained = 0
    var stepping = 0.0
    try trainer.run { step in
      trained += step.tokens
      stepping += step.seconds
      let metrics = Self.metrics(
        step, trainer: trainer, seconds: (clock.now - began).inSeconds)
      try logs.append(metrics)
      return try onStep(metrics)
    }
    guard trainer.step == settings.steps else { return nil }
    var report = TrainingReport(
      command: command, request: request, modelType: start.configuration.modelType,
      parameters: parameterCount, data: dataSummary, steps: trainer.step, tokens: trainer.tokens,
      metrics: try logs.all(), inputs: try start.checkpoint.fileHashes(),
      dataHash: try data.contentHash())
    if let adapters = request.adapters { report.details.append(("adapters", adapters.json)) }
    try write(trainer, &report)
    report.output = request.output
    report.seconds = (clock.now - began).inSeconds
    report.tokensPerSecond = stepping > 0 ? Double(trained) / stepping : 0
    report.resumedFrom = firstStep > 0 ? firstStep : nil
    report.peakResidentBytes = ProcessMemory.peakResidentBytes
    if !request.keepsCheckpoints { FileProbe.remove(request.workFolder) }
    return report
  }

  /// The batches of the run from the first on.
  package func stream() throws -> TrainingStream {
    let settings = request.settings
    return try TrainingStream(
      data, encoder: encoder,
      options: .init(rows: settings.rowsAtOnce, length: settings.length, mode: settings.mode),
      filler: start.endTokens.first ?? 0)
  }

  /// One pass over what is measured on; nil where nothing is held out.
  private func heldOutStream() throws -> TrainingStream? {
    let settings = request.settings
    return try heldOutData.map { data, use in
      try TrainingStream(
        data, encoder: encoder,
        options: .init(
          rows: settings.rowsAtOnce, length: settings.length, mode: .packed, use: use,
          isShuffled: false, passes: 1), filler: start.endTokens.first ?? 0)
    }
  }

  /// The first held-out batches; none where nothing is held out.
  package func heldOutBatches(_ count: Int) throws -> [TrainingBatch] {
    guard var stream = try heldOutStream() else { return [] }
    var batches: [TrainingBatch] = []
    while batches.count < count, let batch = try stream.next() { batches.append(batch) }
    return batches
  }

  private func write(_ trainer: Trainer, _ report: inout TrainingReport) throws {
    let directory = try OutputDirectory(
      request.output, overwrite: request.overwrite,
      inputs: Self.inputPaths(request, start.checkpoint))
    do {
      if let average = trainer.average {
        try average.withAverages { try write(trainer.measured, to: directory) }
      } else {
        try write(trainer.measured, to: directory)
      }
      try directory.write("loss.svg", Array(report.curve.svg().utf8))
      try directory.write("metrics.jsonl", report.metricsLines)
      try directory.write("pare.json", report.json(withTimings: false).serialized(pretty: true))
      try directory.finish()
      report.notes = directory.notes
    } catch {
      directory.discard()
      throw error
    }
  }

  /// Writes the result and reads it again.
  private func write(_ trained: LanguageModel, to directory: OutputDirectory) throws {
    if let adapted, request.adapters?.result == .adapter {
      try AdapterFolder.write(trained, adapted.settings, into: directory, base: request.model)
      _ = try AdapterFolder.read(directory.path, onto: start)
      return
    }
    let type = request.outputType ?? storedType
    let model =
      request.trainsScales
      ? trained.settled : adapted == nil ? trained : trained.merged(as: type)
    let digests = try model.write(to: directory, dtype: type)
    let written = try LanguageModel.load(directory.path).checkpoint
    let names = digests.keys.sorted()
    for (name, digest) in zip(names, try written.digests(of: names))
    where digest != digests[name] {
      throw RecipeError.verificationFailed(tensor: name)
    }
  }

  /// The type that most of the model's numbers have.
  private var storedType: DType {
    let type = start.checkpoint.info("\(start.configuration.embedding.name).weight")?.dtype
    guard let type, [.float32, .float16, .bfloat16].contains(type) else { return .float32 }
    return type
  }

  private static func metrics(
    _ step: Trainer.StepReport, trainer: Trainer, seconds: Double
  ) -> TrainingMetrics {
    var others = step.values.filter { $0.key != "loss" }.sorted { $0.key < $1.key }
      .map { TrainingMetrics.Named($0.key, $0.value) }
    if let loss = step.heldOutLoss {
      others.append(.init(TrainingMetrics.heldOutLossName, loss))
    }
    return TrainingMetrics(
      step: step.step, tokens: trainer.tokens, loss: step.loss,
      learningRate: step.learningRateFactor * trainer.settings.optimizer.learningRate,
      gradientNorm: step.gradientNorm,
      tokensPerSecond: step.seconds > 0 ? Double(step.tokens) / step.seconds : nil,
      seconds: seconds, residentBytes: ProcessMemory.residentBytes, others: others)
  }
}
