package import Checkpoints
package import Codecs
import Tensors

/// Finds a configuration's tensors in a checkpoint, after checking that both agree.
package struct WeightSource {
  package let checkpoint: Checkpoint
  package let configuration: ModelConfiguration
  package let quantization: (any Quantization)?
  private let stripsPrefix: Bool

  /// Checks every declared tensor's presence, shape and type, and that nothing else is there.
  package init(
    checkpoint: Checkpoint, configuration: ModelConfiguration, quantization: (any Quantization)?
  ) throws(ModelError) {
    self.checkpoint = checkpoint
    self.configuration = configuration
    self.quantization = quantization
    let prefix = configuration.basePrefix
    stripsPrefix = !checkpoint.names.contains { $0.hasPrefix(prefix) }
    try verify()
  }

  /// Reads and checks a model's own configuration.
  /// - Throws: `CheckpointError`, `JSONError`, `ModelError`.
  package init(_ checkpoint: Checkpoint) throws {
    let config = try LanguageModel.config(of: checkpoint)
    try self.init(
      checkpoint: checkpoint,
      configuration: try ModelConfiguration(config: config, path: checkpoint.path)
        .asStored(in: checkpoint),
      quantization: try LanguageModel.quantization(config, path: checkpoint.path))
  }

  /// The name a declared tensor has in this checkpoint.
  package func storedName(_ declared: String) -> String {
    stripsPrefix && declared.hasPrefix(configuration.basePrefix)
      ? String(declared.dropFirst(configuration.basePrefix.count)) : declared
  }

  /// How a module's matrix is stored if it is quantized.
  package func scheme(of declaration: ModelTensor) -> (any MatrixLayout)? {
    guard let quantization, declaration.isMatrix, declaration.role.canBeQuantized else {
      return nil
    }
    let module = storedName(declaration.module)
    return quantization.layout(of: module, className: declaration.className) {
      checkpoint.contains("\(module).\($0)")
    }
  }

  private func verify() throws(ModelError) {
    var expected: Set<String> = []
    var missing: [String] = []
    for declaration in configuration.tensors {
      let name = storedName(declaration.name)
      if let scheme = scheme(of: declaration) {
        // The codec checks shapes; here only what must exist.
        let module = storedName(declaration.module)
        for suffix in scheme.componentSuffixes { expected.insert("\(module).\(suffix)") }
        var required = scheme.requiredSuffixes
        if let activations = scheme.activations, declaration.role != .embedding {
          for suffix in activations.componentSuffixes { expected.insert("\(module).\(suffix)") }
          required += activations.requiredSuffixes
        }
        for suffix in required where !checkpoint.contains("\(module).\(suffix)") {
          missing.append("\(module).\(suffix)")
        }
        continue
      }
      expected.insert(name)
      guard let info = checkpoint.info(name) else {
        missing.append(name)
        continue
      }
      guard info.shape == declaration.shape else {
        throw .wrongShape(
          name: name, expected: declaration.shape, actual: info.shape, path: checkpoint.path)
      }
      let isMatrix = declaration.isMatrix && declaration.role.canBeQuantized
      guard info.dtype.isFloatingPoint || info.blockType != nil && isMatrix else {
        throw .wrongType(name: name, found: info.storage, path: checkpoint.path)
      }
    }
    guard missing.isEmpty else { throw .missingTensors(missing, path: checkpoint.path) }
    try verifyTie(&expected)
    let unexpected = checkpoint.names.filter { name in
      !expected.contains(name) && !isEmptyBias(name)
        && !configuration.inertSuffixes.contains { name.hasSuffix($0) }
    }
    guard unexpected.isEmpty else { throw .unexpectedTensors(unexpected, path: checkpoint.path) }
  }

  /// Early AutoGPTQ gave each of its layers a bias of zeros, also where the model has none.
  private func isEmptyBias(_ name: String) -> Bool {
    guard quantization is GPTQConfiguration, name.hasSuffix(".bias"),
      checkpoint.contains("\(name.dropLast(5)).qweight"),
      let bias = try? checkpoint.tensor(name)
    else { return false }
    return bias.bytes.allSatisfy { $0 == 0 }
  }

  /// Some checkpoints store a tied head again; it must then be the embedding, bit by bit.
  private func verifyTie(_ expected: inout Set<String>) throws(ModelError) {
    let head = "\(configuration.head.name).weight"
    guard configuration.head.isTied, let info = checkpoint.info(head) else { return }
    let embedding = storedName("\(configuration.embedding.name).weight")
    let isSame: Bool
    do {
      let (a, b) = (try checkpoint.tensor(head), try checkpoint.tensor(embedding))
      isSame =
        info.shape == a.shape && a.dtype == b.dtype && a.shape == b.shape
        && a.hasSameBytes(as: b)
      a.giveBack()
      b.giveBack()
    } catch {
      throw .malformedConfiguration(path: checkpoint.path, reason: "\(error)")
    }
    guard isSame else {
      throw .tiedTensorsDiffer(embedding: embedding, head: head, path: checkpoint.path)
    }
    expected.insert(head)
  }
}

extension ModelConfiguration {
  /// The configuration of what is in a checkpoint: matrices of blocks are `[out, in]` also in
  /// families that store `[in, out]`, since blocks lie along rows.
  fileprivate func asStored(in checkpoint: Checkpoint) -> ModelConfiguration {
    guard checkpoint.format == .gguf else { return self }
    var stored = self
    func turn(_ linear: inout LinearConfiguration) {
      if checkpoint.info("\(linear.name).weight")?.blockType != nil { linear.isTransposed = false }
    }
    for index in stored.blocks.indices {
      for i in stored.blocks[index].attention.inputs.indices {
        turn(&stored.blocks[index].attention.inputs[i])
      }
      turn(&stored.blocks[index].attention.output)
      for i in stored.blocks[index].feedForward.inputs.indices {
        turn(&stored.blocks[index].feedForward.inputs[i])
      }
      turn(&stored.blocks[index].feedForward.down)
    }
    return stored
  }
}

extension ModelTensor {
  /// What transformers calls the module, for targets that name classes.
  fileprivate var className: String {
    switch role {
    case .embedding, .positionEmbedding: "Embedding"
    default: isTransposed ? "Conv1D" : "Linear"
    }
  }
}

extension Role {
  /// Matrices that a quantization scheme may apply to.
  package var canBeQuantized: Bool {
    switch self {
    case .positionEmbedding, .norm, .bias: false
    default: true
    }
  }
}
