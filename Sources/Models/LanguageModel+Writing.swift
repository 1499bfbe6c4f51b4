package import Checkpoints
package import Codecs
package import Tensors
import Text

extension LanguageModel {
  /// A tensor of a model's checkpoint folder: its declaration, and its bytes when they are wanted.
  private struct Stored {
    var declaration: TensorDeclaration
    var tensor: () -> Tensor
  }

  /// Writes this model as a Hugging Face folder: config, tokenizer and the other files of the model
  /// it came from, and the numbers that it holds now.
  ///
  /// - Parameters:
  ///   - directory: where; `finish` is left to the caller.
  ///   - dtype: of dense matrices, norms and biases; nil for the type each has.
  /// - Returns: SHA-256 of each tensor's bytes as written.
  /// - Throws: `CheckpointError`; `ModelError.notStorable` for matrices in a form that the layout has
  ///   no place for.
  @discardableResult
  package func write(
    to directory: OutputDirectory, dtype: DType? = nil,
    shardByteLimit: Int = SafetensorsWriter.defaultShardByteLimit
  ) throws -> [String: String] {
    let stored = try storedTensors(dtype)
    var writer = try SafetensorsWriter(
      folder: directory.path, tensors: stored.map(\.declaration), shardByteLimit: shardByteLimit)
    for entry in stored { try writer.append(entry.declaration.name, entry.tensor()) }
    let digests = try writer.finish()
    for name in checkpoint.sideFiles where name != "config.json" && name != "pare.json" {
      try directory.write(name, checkpoint.readSideFile(name))
    }
    try directory.write("config.json", config(dtype))
    return digests
  }

  /// What happens to the inputs of matrices first, by their module's name.
  package var inputQuantizers: [String: ActivationQuantizer] {
    var list: [String: ActivationQuantizer] = [:]
    let linears =
      blocks.flatMap(\.linears) + [embedding.projection, headProjection].compactMap { $0 }
    for linear in linears { list[linear.configuration.name] = linear.inputQuantizer }
    if !configuration.head.isTied { list[configuration.head.name] = headQuantizer }
    return list
  }

  /// Says before a long work that its result could not be written.
  /// - Throws: `ModelError.notStorable`, as `write` does.
  package func checkStorable() throws(ModelError) {
    var wrong: String?
    _ = mapped(
      matrix: { declaration, weight in
        let isStorable =
          weight is DenseWeight || weight is TransposedWeight || weight.isInCodes
        if !isStorable { wrong = wrong ?? declaration.name }
        return weight
      }, vector: { $1 })
    if let wrong { throw .notStorable(name: wrong, path: checkpoint.path) }
  }

  /// `config.json` with the element type that the matrices have now.
  private func config(_ dtype: DType?) throws -> [UInt8] {
    let config = try Self.config(of: checkpoint)
    guard case .object(var fields) = config else { return config.serialized(pretty: true) }
    let stored = try Self.quantization(config, path: checkpoint.path)
    if let described = try described() {
      // A description of compressed-tensors that was read stays as it was written.
      if !(stored is CompressedTensors) {
        fields["quantization"] = nil
        fields["quantization_config"] = described.quantizationConfig
      }
    } else {
      for key in ["quantization_config", "compression_config", "quantization"] {
        fields[key] = nil
      }
      fields["quantization_config"] = stored?.transformsAlone?.quantizationConfig
    }
    guard let dtype else { return JSON.object(fields).serialized(pretty: true) }
    let key = fields["torch_dtype"] != nil ? "torch_dtype" : "dtype"
    fields[key] = JSON(dtype.pythonName)
    return JSON.object(fields).serialized(pretty: true)
  }

  /// How the quantized matrices are stored; nil where there are none.
  private func described() throws -> CompressedTensors? {
    var modules: [(tensor: ModelTensor, scheme: CompressedTensors.Scheme?)] = []
    _ = mapped(
      matrix: { declaration, weight in
        modules.append((declaration, CompressedTensors.Scheme(of: weight)))
        return weight
      }, vector: { $1 })
    return try CompressedTensors(
      describing: modules, tiedHead: configuration.head.isTied ? configuration.head.name : nil)
  }

  private func storedTensors(_ dtype: DType?) throws -> [Stored] {
    var list: [Stored] = []
    func add(_ name: String, _ tensor: Tensor) {
      let type = tensor.dtype.isFloatingPoint ? dtype ?? tensor.dtype : tensor.dtype
      list.append(
        Stored(
          declaration: TensorDeclaration(name: name, dtype: type, shape: tensor.shape),
          tensor: {
            type == tensor.dtype ? tensor.detached : tensor.detached.converted(to: type)
          }))
    }
    let quantizers = inputQuantizers
    _ = try mapped(
      matrix: { declaration, weight in
        switch weight {
        case let dense as DenseWeight: add(declaration.name, dense.tensor)
        case let transposed as TransposedWeight: add(declaration.name, transposed.tensor)
        case let codes as any StoredWeight where weight.isInCodes:
          let inputs = quantizers[declaration.module]?.encoded() ?? []
          for (suffix, tensor) in codes.encoded() + inputs {
            list.append(
              Stored(
                declaration: TensorDeclaration(
                  name: "\(declaration.module).\(suffix)", dtype: tensor.dtype,
                  shape: tensor.shape),
                tensor: { tensor }))
          }
        default: throw ModelError.notStorable(name: declaration.name, path: checkpoint.path)
        }
        return weight
      },
      vector: { declaration, tensor in
        add(declaration.name, tensor)
        return tensor
      })
    return list
  }
}

extension Weight {
  /// Whether compressed-tensors has a place for it.
  fileprivate var isInCodes: Bool { self is GroupQuantizedWeight || self is FloatGroupsWeight }
}

extension DType {
  /// What transformers calls the type.
  package var pythonName: String {
    switch self {
    case .bfloat16: "bfloat16"
    case .float16: "float16"
    case .float64: "float64"
    default: "float32"
    }
  }
}
