import Checkpoints
import Codecs
import Models
public import Tensors
import Text

/// A quantized model carried into another layout of safetensors with its codes and zero points as
/// they are: compressed-tensors, GPTQ, AWQ or MLX.
///
/// What the target cannot hold is refused by name, or on request rounded anew. Only scales (and MLX's
/// biases, which are `-zero · scale`) may be rounded to the type the target stores; the plan says where.
public struct QuantizedConversion: Conversion {
  public let plan: ConversionPlan
  /// Bytes after which a new shard begins.
  public var shardByteLimit = SafetensorsWriter.defaultShardByteLimit
  private let source: WeightSource
  private let config: JSON
  private let target: QuantizedTarget
  private let dtype: DType?
  private let steps: [QuantizedStep]
  private let description: JSON?

  /// Opens every grid and checks that the target holds it; nothing is written.
  ///
  /// - Parameters:
  ///   - path: a model in any format, some matrices quantized.
  ///   - dtype: of dense tensors and of scales; nil keeps each as it is where the target has it.
  ///   - requantizes: rounds matrices anew that the target has no place for.
  /// - Throws: `ConversionError.refused` naming tensors and reasons; as opening a model does.
  public init(
    model path: String, to target: QuantizedTarget, dtype: DType? = nil, requantizes: Bool = false
  ) throws {
    let checkpoint = try Checkpoint.openModel(path)
    config = try LanguageModel.config(of: checkpoint)
    let source = try WeightSource(checkpoint)
    self.source = source
    self.target = target
    self.dtype = dtype
    let written = try ModelConfiguration(config: config, path: path)
    var planner = QuantizedPlanner(
      source: source, target: target, dtype: dtype, requantizes: requantizes)
    for (stored, written) in zip(source.configuration.tensors, written.tensors) {
      try planner.add(stored, written)
    }
    try planner.finish()
    steps = planner.steps
    plan = ConversionPlan(
      model: path, modelType: written.modelType, format: target.rawValue,
      type: planner.typeName, rows: planner.rows, notes: planner.notes)
    let tiedHead = written.head.isTied ? written.head.name : nil
    description = try planner.description(tiedHead: tiedHead)
  }

  // MARK: Writing

  public func run(
    output: String, overwrite: Bool, onProgress: (Compression.Progress) throws -> Void
  ) throws -> ConversionReport {
    let clock = ContinuousClock()
    let start = clock.now
    let directory = try OutputDirectory(
      output, overwrite: overwrite, inputs: source.checkpoint.inputPaths)
    do {
      var writer = try SafetensorsWriter(
        folder: directory.path, tensors: steps.flatMap(\.outputs),
        metadata: [("format", target == .mlx ? "mlx" : "pt")], shardByteLimit: shardByteLimit)
      var errors: [EncodingError?] = []
      var done = 0
      for (row, step) in zip(plan.rows, steps) {
        try onProgress(.init(what: row.name, done: done, total: plan.bytesBefore))
        errors.append(try write(step, to: &writer))
        try source.checkpoint.checkIntact()
        done += row.bytesBefore
      }
      let digests = try writer.finish()
      try onProgress(.init(what: "checking", done: done, total: plan.bytesBefore))
      try writeSideFiles(to: directory)
      try verify(directory.path, digests)
      try directory.finish()
      return ConversionReport(
        plan: plan, errors: errors, output: output, seconds: (clock.now - start).inSeconds,
        peakResidentBytes: ProcessMemory.peakResidentBytes, notes: directory.notes)
    } catch {
      directory.discard()
      throw error
    }
  }

  private func write(_ step: QuantizedStep, to writer: inout SafetensorsWriter) throws
    -> EncodingError?
  {
    let name = source.storedName(step.stored.name), path = source.checkpoint.path
    let layout: any WritableLayout
    var weight: (any AffineWeight)?
    var error: EncodingError?
    switch step.content {
    case .dense(let type):
      try writeDense(step, as: type, name: name, to: &writer)
      return nil
    case .carried(let stated):
      weight = try source.matrix(step.stored) as? any AffineWeight
      layout = stated
    case .requantized(let choice, let stated):
      layout = stated
      if let old = try source.matrix(step.stored) as? any StoredWeight {
        do throws(CodecError) {
          let result = try choice.apply(old)
          (weight, error) = (result.weight, result.error)
        } catch {
          throw RecipeError.badTensor(name, path: path, reason: error.description)
        }
      }
    }
    guard let weight else { return nil }
    do {
      for (suffix, tensor) in try layout.encode(weight.openGrid(), codes: weight.openCodes()) {
        try writer.append("\(step.written.module).\(suffix)", tensor)
      }
    } catch let fault as CodecError {
      throw RecipeError.badTensor(name, path: path, reason: fault.description)
    }
    weight.giveBack()
    return error
  }

  private func writeDense(
    _ step: QuantizedStep, as type: DType, name: String, to writer: inout SafetensorsWriter
  ) throws {
    let path = source.checkpoint.path
    guard step.stored.isMatrix, step.stored.role.canBeQuantized else {
      let tensor = try source.tensor(step.stored.name)
      try writer.append(step.written.name, try tensor.stored(as: type, name: name, path: path))
      return
    }
    let reader = try MatrixReader(step.stored, in: source)
    if step.written.isTransposed {
      let whole = reader.weight.dequantized().transposed()
      try writer.append(step.written.name, try whole.stored(as: type, name: name, path: path))
      return
    }
    try reader.forEachPiece { piece in
      let rows = try piece.stored(as: type, name: name, path: path)
      try withExtendedLifetime(rows) { try writer.append(step.written.name, rows.bytes) }
    }
  }

  /// All side files; `config.json` and, for GPTQ, `quantize_config.json` with the description.
  private func writeSideFiles(to directory: OutputDirectory) throws {
    let checkpoint = source.checkpoint
    for name in checkpoint.sideFiles where name != "config.json" {
      try directory.write(name, checkpoint.readSideFile(name))
    }
    guard case .object(var fields) = config else { return }
    for key in ["quantization_config", "compression_config", "quantization"] { fields[key] = nil }
    if let dtype {
      let key = fields["dtype"] == nil ? "torch_dtype" : "dtype"
      fields[key] = JSON(dtype.pythonName)
    }
    if let description {
      if target == .mlx { fields["quantization"] = description }
      fields["quantization_config"] = description
      if target == .gptq || target == .gptqV2 {
        try directory.write("quantize_config.json", description.serialized(pretty: true))
      }
    }
    try directory.write("config.json", JSON.object(fields).serialized(pretty: true))
  }

  /// Opens the output as any reader would and compares every tensor with what was in memory.
  private func verify(_ path: String, _ digests: [String: String]) throws {
    let written = try LanguageModel.load(path).checkpoint
    for name in steps.flatMap(\.outputs).map(\.name)
    where try written.digest(of: name) != digests[name] {
      throw RecipeError.verificationFailed(tensor: name)
    }
    try written.checkIntact()
  }
}
