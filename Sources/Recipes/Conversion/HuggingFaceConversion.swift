import Checkpoints
import Codecs
import Models
public import Tensors
import Text

/// A model written out in Hugging Face layout, packed weights opened to plain numbers.
public struct HuggingFaceConversion: Conversion {
  public let plan: ConversionPlan
  /// Bytes after which a new shard begins.
  public var shardByteLimit = SafetensorsWriter.defaultShardByteLimit
  private let source: WeightSource
  private let config: JSON
  private let dtype: DType
  /// Each tensor as it is stored now and as it will be.
  private let tensors: [(stored: ModelTensor, written: ModelTensor)]

  /// - Parameters:
  ///   - path: a model in any format.
  ///   - dtype: the element type of all tensors; nil keeps that of the embedding, float16 where it
  ///     is packed.
  /// - Throws: `CheckpointError`, `JSONError`, `ModelError`.
  public init(model path: String, dtype stated: DType? = nil) throws {
    let checkpoint = try Checkpoint.openModel(path)
    config = try LanguageModel.config(of: checkpoint)
    let source = try WeightSource(checkpoint)
    self.source = source
    let written = try ModelConfiguration(config: config, path: path)
    let embedding = checkpoint.info(source.storedName("\(written.embedding.name).weight"))?.dtype
    let usual: DType =
      embedding.map { [.float32, .bfloat16].contains($0) ? $0 : .float16 } ?? .float16
    let dtype = stated ?? usual
    self.dtype = dtype
    tensors = zip(source.configuration.tensors, written.tensors).map { ($0, $1) }
    let rows = tensors.map { stored, written in
      let (name, bytes) = source.storage(of: stored)
      return ConversionPlan.Row(
        name: written.name, source: source.storedName(stored.name), shape: written.shape,
        from: name, to: dtype.rawValue, bytesBefore: bytes,
        bytesAfter: written.count * dtype.byteCount)
    }
    plan = ConversionPlan(
      model: path, modelType: written.modelType, format: "hf", type: dtype.rawValue, rows: rows,
      notes: [])
  }

  public func run(
    output: String, overwrite: Bool, onProgress: (Compression.Progress) throws -> Void
  ) throws -> ConversionReport {
    let clock = ContinuousClock()
    let start = clock.now
    let directory = try OutputDirectory(
      output, overwrite: overwrite, inputs: source.checkpoint.inputPaths)
    do {
      var writer = try SafetensorsWriter(
        folder: directory.path,
        tensors: tensors.map {
          TensorDeclaration(name: $0.written.name, dtype: dtype, shape: $0.written.shape)
        }, shardByteLimit: shardByteLimit)
      var done = 0
      for (row, tensor) in zip(plan.rows, tensors) {
        try onProgress(.init(what: row.name, done: done, total: plan.bytesBefore))
        try write(tensor.stored, as: tensor.written, to: &writer)
        try source.checkpoint.checkIntact()
        done += row.bytesBefore
      }
      let digests = try writer.finish()
      try onProgress(.init(what: "checking", done: done, total: plan.bytesBefore))
      try writeSideFiles(to: directory)
      try verify(directory.path, digests)
      try directory.finish()
      return ConversionReport(
        plan: plan, errors: plan.rows.map { _ in nil }, output: output,
        seconds: (clock.now - start).inSeconds,
        peakResidentBytes: ProcessMemory.peakResidentBytes, notes: directory.notes)
    } catch {
      directory.discard()
      throw error
    }
  }

  private func write(
    _ stored: ModelTensor, as written: ModelTensor, to writer: inout SafetensorsWriter
  ) throws {
    func plain(_ tensor: Tensor) throws -> Tensor {
      try tensor.stored(
        as: dtype, name: source.storedName(stored.name), path: source.checkpoint.path)
    }
    guard stored.isMatrix, stored.role.canBeQuantized else {
      try writer.append(written.name, try plain(source.tensor(stored.name)))
      return
    }
    if written.isTransposed {
      let stored = try MatrixReader(stored, in: source).weight.dequantized()
      try writer.append(written.name, try plain(stored.transposed()))
      return
    }
    try MatrixReader(stored, in: source).forEachPiece { piece in
      let rows = try plain(piece)
      try withExtendedLifetime(rows) { try writer.append(written.name, rows.bytes) }
    }
  }

  /// All side files, `config.json` without the quantization that is gone.
  private func writeSideFiles(to directory: OutputDirectory) throws {
    let checkpoint = source.checkpoint
    for name in checkpoint.sideFiles where name != "config.json" {
      try directory.write(name, checkpoint.readSideFile(name))
    }
    guard case .object(var fields) = config else { return }
    for key in ["quantization_config", "compression_config", "quantization"] { fields[key] = nil }
    fields["quantization_config"] = source.quantization?.transformsAlone?.quantizationConfig
    let key = fields["dtype"] == nil ? "torch_dtype" : "dtype"
    fields[key] = JSON(dtype.pythonName)
    try directory.write("config.json", JSON.object(fields).serialized(pretty: true))
  }

  private func verify(_ path: String, _ digests: [String: String]) throws {
    let written = try LanguageModel.load(path).checkpoint
    for (_, tensor) in tensors {
      guard try written.digest(of: tensor.name) == digests[tensor.name] else {
        throw RecipeError.verificationFailed(tensor: tensor.name)
      }
    }
    try written.checkIntact()
  }
}
