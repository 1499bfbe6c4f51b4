import Calibration
import Checkpoints
import Codecs
import Models
import Quantization
import Runtime
import Tensors
public import Text

/// Carries a plan out: reads tensor by tensor, writes shard by shard, and lets the output appear
/// under its name only when it is whole, reopened and equal to what was in memory.
public struct Compression {
  public let plan: Plan
  /// Bytes after which a new shard begins.
  public var shardByteLimit = SafetensorsWriter.defaultShardByteLimit
  /// What was measured to find each matrix's bits; goes into the report.
  public var allocation: JSON?
  public var walkSettings = WalkSettings()
  let source: WeightSource
  private let config: JSON

  /// Told before each step and at the end.
  public struct Progress: Sendable {
    /// The tensor or block, and what is done to it.
    public var what: String
    public var done: Int
    public var total: Int
    /// Whether `done` and `total` count bytes of the model.
    public var isOfBytes = true
  }

  /// Checks a checkpoint against its configuration and resolves the recipe; nothing is written.
  ///
  /// - Throws: `CheckpointError`, `JSONError`, `ModelError`, `RecipeError`.
  public init(_ recipe: Recipe, model path: String, consumer: Consumer = .transformers) throws {
    let checkpoint = try Checkpoint.openModel(path)
    config = try LanguageModel.config(of: checkpoint)
    source = try WeightSource(checkpoint)
    plan = try Plan(recipe, for: source, consumer: consumer)
  }

  /// - Parameters:
  ///   - evaluate: measures the finished but not yet renamed model at a path; what it returns
  ///     goes into the report under `measurements`.
  /// - Returns: what was really done.
  /// - Throws: as the initializer; `RecipeError.badTensor` for weights that are not finite,
  ///   `.verificationFailed` if the disk gives back other bytes than it was given.
  public func run(
    output: String, overwrite: Bool, onProgress: (Progress) throws -> Void = { _ in },
    evaluate: (String) throws -> JSON? = { _ in nil }
  ) throws -> Report {
    let clock = ContinuousClock()
    let start = clock.now
    let directory = try OutputDirectory(
      output, overwrite: overwrite, inputs: source.checkpoint.inputPaths)
    do {
      let walk =
        try plan.needsWalk ? walk(output: output, overwrite: overwrite, onProgress) : nil
      let outputs = try plan.rows.map { row in
        try treatedOutputs(row, walk)?.map {
          TensorDeclaration(name: $0.0, dtype: $0.1.dtype, shape: $0.1.shape)
        } ?? row.outputs
      }
      var (results, digests) = try writeTensors(outputs, walk, to: directory.path, onProgress)
      try writeSideFiles(to: directory, try forms(walk))
      try verify(directory.path, outputs.flatMap { $0 }, digests)
      let actual = plan.carriedOut(
        bytes: outputs.map { $0.reduce(0) { $0 + $1.byteCount } })
      for index in results.indices { results[index].row = actual.rows[index] }
      var report = Report(
        plan: actual, tensors: results, inputs: try source.checkpoint.fileHashes(),
        measurements: try evaluate(directory.path))
      report.allocation = allocation
      report.calibration = walk?.calibration
      report.blocks = walk?.files.map(\.report) ?? []
      try directory.write("pare.json", report.json(withTimings: false).serialized(pretty: true))
      try directory.finish()
      if let walk { FileProbe.remove(walk.folder) }
      report.output = output
      report.notes = directory.notes
      report.seconds = (clock.now - start).inSeconds
      report.peakResidentBytes = ProcessMemory.peakResidentBytes
      return report
    } catch {
      directory.discard()
      throw error
    }
  }

  private func writeTensors(
    _ outputs: [[TensorDeclaration]], _ walk: WalkResult?, to path: String,
    _ onProgress: (Progress) throws -> Void
  ) throws -> ([Report.TensorResult], digests: [String: String]) {
    var writer = try SafetensorsWriter(
      folder: path, tensors: outputs.flatMap { $0 }, shardByteLimit: shardByteLimit)
    var results: [Report.TensorResult] = []
    let clock = ContinuousClock()
    var done = 0
    for row in plan.rows {
      try onProgress(
        Progress(what: row.name, done: done, total: plan.bytesBefore))
      let start = clock.now
      done += row.bytesBefore
      if let tensors = try treatedOutputs(row, walk) {
        for (name, tensor) in tensors {
          try writer.append(name, tensor)
          tensor.giveBack()
        }
        results.append(
          Report.TensorResult(
            row: row, measured: row.tensor.block.flatMap { walk?.files[$0].report }))
        continue
      }
      let error = try write(row, to: &writer)
      try source.checkpoint.checkIntact()
      results.append(
        Report.TensorResult(row: row, error: error, seconds: (clock.now - start).inSeconds))
    }
    let digests = try writer.finish()
    try onProgress(Progress(what: "checking", done: done, total: plan.bytesBefore))
    return (results, digests)
  }

  private func write(_ row: Plan.Row, to writer: inout SafetensorsWriter) throws -> EncodingError? {
    switch row.action {
    case .drop: return nil
    case .keep:
      let tensor = try source.checkpoint.tensor(row.name)
      try writer.append(row.name, tensor)
      tensor.giveBack()
      return nil
    case .quantize(let codec, let stage):
      let stored = try source.checkpoint.tensor(row.name)
      do {
        let result = try stage.dataFreeMethod(codec, role: row.tensor.role)
          .compress(row.tensor.isTransposed ? stored.transposed() : stored)
        stored.giveBack()
        for (suffix, tensor) in result.weight.encoded() {
          try writer.append("\(row.module).\(suffix)", tensor)
        }
        return result.error
      } catch let error as CompressionError {
        // Zeros and worse appear where a file was cut short while it was read.
        try source.checkpoint.checkIntact()
        throw RecipeError.badTensor(
          row.name, path: source.checkpoint.path, reason: error.description)
      }
    }
  }

  /// `config.json` gains the quantization; everything else is carried over byte by byte.
  private func writeSideFiles(to directory: OutputDirectory, _ forms: JSON?) throws {
    for name in source.checkpoint.sideFiles where name != "config.json" && name != "pare.json" {
      try directory.write(name, source.checkpoint.readSideFile(name))
    }
    guard let layout = try plan.layout(), case .object(var fields) = config else {
      try directory.write("config.json", source.checkpoint.readSideFile("config.json"))
      return
    }
    fields["quantization_config"] =
      try forms ?? layout.keeping(transformsOf: source.quantization).quantizationConfig
    try directory.write("config.json", JSON.object(fields).serialized(pretty: true))
  }

  /// Reopens the output as any reader would and compares every tensor with what was in memory.
  private func verify(
    _ path: String, _ outputs: [TensorDeclaration], _ digests: [String: String]
  ) throws {
    let written = try LanguageModel.load(path).checkpoint
    let names = outputs.map(\.name)
    for (name, digest) in zip(names, try written.digests(of: names))
    where digest != digests[name] {
      throw RecipeError.verificationFailed(tensor: name)
    }
    try written.checkIntact()
  }
}
