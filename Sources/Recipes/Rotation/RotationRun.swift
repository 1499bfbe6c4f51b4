import Checkpoints
import Models
public import Quantization
public import Tensors
public import Text

/// Writes a rotated model, tensor by tensor: never more than a tensor or two is in memory.
public struct RotationRun {
  public let model: String
  public let settings: QuaRot
  /// Bytes after which a new shard begins.
  public var shardByteLimit = SafetensorsWriter.defaultShardByteLimit
  private let source: WeightSource
  private let rotation: ModelRotation
  private let config: JSON
  private let tensors: [ModelTensor]
  private let dtype: DType?
  private let method: String

  /// - Parameters:
  ///   - path: an uncompressed model.
  ///   - dtype: of all tensors; nil keeps that of each, so that bfloat16 weights are rounded once more.
  /// - Throws: `RotationError` where the model's structure does not permit it; `CheckpointError`,
  ///   `JSONError`, `ModelError`.
  public init(model path: String, settings: QuaRot, dtype: DType? = nil) throws {
    try self.init(model: path, settings: settings, dtype: dtype, learned: nil)
  }

  /// - Parameter learned: rotations in place of random ones.
  package init(
    model path: String, settings: QuaRot, dtype: DType?, learned: LearnedRotations?
  ) throws {
    self.model = path
    self.settings = settings
    self.dtype = dtype
    method = learned == nil ? "quarot" : "spinquant"
    let checkpoint = try Checkpoint.openModel(path)
    let source = try WeightSource(checkpoint)
    self.source = source
    for tensor in source.configuration.tensors {
      let isPlain = checkpoint.info(source.storedName(tensor.name))?.blockType == nil
      guard source.scheme(of: tensor) == nil, isPlain else {
        throw RotationError.alreadyQuantized(tensor: tensor.name, path: path)
      }
    }
    guard source.quantization?.transforms.isEmpty ?? true else {
      throw RotationError.alreadyRotated(path: path)
    }
    rotation = try ModelRotation(
      settings, source.configuration, path: path, learned: learned,
      vector: { name in
        let values = try source.tensor(name).widened()
        return Array(UnsafeBufferPointer(start: values.floats, count: values.count))
      })
    config = try Self.config(
      of: checkpoint, source.configuration, rotation, dtype)
    tensors = try ModelConfiguration(config: config, path: path).tensors
  }

  /// Sentences about what differs from the original besides numbers.
  public var notes: [String] { rotation.notes }

  public func json(output: String) -> JSON {
    [
      "command": "rotate", "output": JSON(output), "method": JSON(method),
      "seed": JSON(Int(clamping: settings.seed)), "online": JSON(settings.isOnline),
      "values": JSON(settings.rotatesValues), "notes": .array(notes.map { JSON($0) }),
    ]
  }

  /// - Throws: as `HuggingFaceConversion.run`.
  public func run(
    output: String, overwrite: Bool, onProgress: (Compression.Progress) throws -> Void = { _ in }
  ) throws {
    let directory = try OutputDirectory(
      output, overwrite: overwrite, inputs: source.checkpoint.inputPaths)
    do {
      let declarations = tensors.map {
        TensorDeclaration(name: $0.name, dtype: storedType($0), shape: $0.shape)
      }
      let total = declarations.reduce(0) { $0 + $1.byteCount }
      var writer = try SafetensorsWriter(
        folder: directory.path, tensors: declarations, shardByteLimit: shardByteLimit)
      var done = 0
      for (tensor, declaration) in zip(tensors, declarations) {
        try onProgress(.init(what: tensor.name, done: done, total: total))
        try writer.append(tensor.name, try written(tensor, as: declaration.dtype))
        try source.checkpoint.checkIntact()
        done += declaration.byteCount
      }
      let digests = try writer.finish()
      try onProgress(.init(what: "checking", done: done, total: total))
      let skipped = ["config.json", "pare.json"]
      for name in source.checkpoint.sideFiles where !skipped.contains(name) {
        try directory.write(name, source.checkpoint.readSideFile(name))
      }
      try directory.write("config.json", config.serialized(pretty: true))
      let written = try LanguageModel.load(directory.path).checkpoint
      for tensor in tensors {
        guard try written.digest(of: tensor.name) == digests[tensor.name] else {
          throw RecipeError.verificationFailed(tensor: tensor.name)
        }
      }
      try written.checkIntact()
      try directory.finish()
    } catch {
      directory.discard()
      throw error
    }
  }

  // MARK: Tensors

  /// The original tensor that a written one comes from: for a head that was tied the embedding's.
  private func original(_ tensor: ModelTensor) -> ModelTensor {
    guard tensor.role == .head, source.configuration.head.isTied else { return tensor }
    return source.configuration.tensors.first { $0.role == .embedding } ?? tensor
  }

  private func storedType(_ tensor: ModelTensor) -> DType {
    dtype ?? source.checkpoint.info(source.storedName(original(tensor).name))?.dtype ?? .float32
  }

  private func written(_ tensor: ModelTensor, as type: DType) throws -> Tensor {
    let stored = try source.tensor(original(tensor).name)
    defer { stored.giveBack() }
    guard rotation.changes(tensor) else {
      return try stored.stored(as: type, name: tensor.name, path: model)
    }
    let values = try rotation.rotated(
      tensor, upright(stored, tensor),
      matrix: { upright(try source.tensor($0.name), $0) })
    return try (tensor.isTransposed ? values.transposed() : values)
      .stored(as: type, name: tensor.name, path: model)
  }

  /// Float32, `[outputs, inputs]`.
  private func upright(_ stored: Tensor, _ tensor: ModelTensor) -> Tensor {
    tensor.isTransposed ? stored.transposed().widened() : stored.widened()
  }

  private static func config(
    of checkpoint: Checkpoint, _ model: ModelConfiguration, _ rotation: ModelRotation,
    _ dtype: DType?
  ) throws -> JSON {
    let config = try LanguageModel.config(of: checkpoint)
    guard case .object(var fields) = config else { return config }
    if rotation.unties { fields["tie_word_embeddings"] = false }
    if let dtype {
      let key = fields["dtype"] == nil ? "torch_dtype" : "dtype"
      fields[key] = JSON(dtype.pythonName)
    }
    fields["compression_config"] = nil
    fields["quantization_config"] = nil
    if let size = rotation.onlineRuns, size > 1 {
      let modules = model.blocks.map(\.feedForward.down.name)
      fields["quantization_config"] = try CompressedTensors(
        groups: [], ignore: [], transforms: [.init(targets: modules, size: size)]
      ).quantizationConfig
    }
    return .object(fields)
  }
}
