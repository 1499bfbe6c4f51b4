public import Checkpoints
import Codecs
package import Tensors
public import Text

extension LanguageModel {
  /// Opens a checkpoint folder in Hugging Face layout, safetensors or `pytorch_model.bin`, or a
  /// GGUF file.
  ///
  /// - Throws: `CheckpointError` where files are missing or damaged, `JSONError` where a config is
  ///   not JSON, `ModelError` where config and tensors do not fit each other, `CodecError` where
  ///   packed weights are malformed.
  public static func load(_ path: String) throws -> LanguageModel {
    try LanguageModel(checkpoint: Checkpoint.openModel(path))
  }

  /// - Parameter checkpoint: as `Checkpoint.openModel` gives it.
  public init(checkpoint: Checkpoint) throws {
    let source = try WeightSource(checkpoint)
    try self.init(source: source)
    endTokens = try Self.endTokens(of: checkpoint, source.configuration)
  }

  /// The parsed `config.json`.
  public static func config(of checkpoint: Checkpoint) throws -> JSON {
    guard checkpoint.sideFiles.contains("config.json") else {
      throw ModelError.missingConfiguration(path: checkpoint.path)
    }
    let bytes = try checkpoint.readSideFile("config.json")
    return try JSON.parse(bytes, name: "\(checkpoint.path)/config.json")
  }

  /// How the checkpoint is quantized, if it is.
  public static func quantization(_ config: JSON, path: String) throws -> (any Quantization)? {
    try readQuantization(config, path: path)
  }

  /// Models list several ids that end a turn in `generation_config.json` only.
  package static func endTokens(of checkpoint: Checkpoint, _ configuration: ModelConfiguration)
    throws -> [Int]
  {
    var ids = configuration.endTokens
    if checkpoint.sideFiles.contains("generation_config.json") {
      let name = "\(checkpoint.path)/generation_config.json"
      let json = try JSON.parse(checkpoint.readSideFile("generation_config.json"), name: name)
      if let fields = json.object {
        var reader = ConfigReader(fields: fields, path: checkpoint.path)
        for id in try reader.tokens("eos_token_id") where !ids.contains(id) { ids.append(id) }
      }
    }
    return ids
  }

  private init(source: WeightSource) throws {
    let configuration = source.configuration
    self.configuration = configuration
    checkpoint = source.checkpoint
    endTokens = configuration.endTokens

    let table = LinearConfiguration(
      name: configuration.embedding.name, role: .embedding,
      outputs: configuration.vocabularySize, inputs: configuration.embedding.width, hasBias: false)
    embedding = Embedding(
      configuration: configuration.embedding, table: try source.weight(table),
      norm: try configuration.embedding.norm.map(source.norm),
      projection: try configuration.embedding.projection.map(source.linear),
      positions: try configuration.embedding.positions.map { learned in
        try source.tensor("\(learned.name).weight")
      })
    blocks = try configuration.blocks.map(source.block)
    finalNorm = try configuration.finalNorm.map(source.norm)
    headProjection = try configuration.head.projection.map(source.linear)
    if configuration.head.isTied {
      head = embedding.table
    } else {
      var matrix = table
      matrix.name = configuration.head.name
      matrix.role = .head
      head = try source.weight(matrix)
      headQuantizer = try source.inputQuantizer(matrix)
    }
  }
}

extension WeightSource {
  package func tensor(_ name: String) throws -> Tensor { try checkpoint.tensor(storedName(name)) }

  /// A bias or norm weight: small, so widened once.
  func vector(_ name: String) throws -> Tensor { try tensor(name).widened() }

  /// The matrix of a declared tensor, in whatever form it is stored.
  package func matrix(_ tensor: ModelTensor) throws -> any Weight {
    try weight(
      LinearConfiguration(
        name: tensor.module, role: tensor.role, outputs: tensor.outputs, inputs: tensor.inputs,
        hasBias: false, isTransposed: tensor.isTransposed))
  }

  func weight(_ linear: LinearConfiguration) throws -> any Weight {
    let declaration = linear.tensors(block: nil)[0]
    guard let scheme = scheme(of: declaration) else {
      let matrix = try tensor(declaration.name)
      if let type = checkpoint.info(storedName(declaration.name))?.blockType {
        return try GGUFBlocks(type).decode(
          matrix, outputs: linear.outputs, inputs: linear.inputs)
      }
      return linear.isTransposed ? TransposedWeight(matrix) : DenseWeight(matrix)
    }
    let module = storedName(linear.name)
    var components: [String: Tensor] = [:]
    for suffix in scheme.componentSuffixes where checkpoint.contains("\(module).\(suffix)") {
      components[suffix] = try checkpoint.tensor("\(module).\(suffix)")
    }
    let weight: any StoredWeight
    do throws(CodecError) {
      weight = try scheme.decode(components: components)
    } catch {
      throw ModelError.badWeight(module: module, reason: error.description, path: checkpoint.path)
    }
    guard weight.outputs == linear.outputs, weight.inputs == linear.inputs else {
      throw ModelError.wrongShape(
        name: "\(module).weight", expected: [linear.outputs, linear.inputs],
        actual: [weight.outputs, weight.inputs], path: checkpoint.path)
    }
    return weight
  }

  func linear(_ linear: LinearConfiguration) throws -> Linear {
    Linear(
      configuration: linear, weight: try weight(linear),
      bias: linear.hasBias ? try vector("\(linear.name).bias") : nil,
      inputTransform: try inputTransform(linear), inputQuantizer: try inputQuantizer(linear))
  }

  private func inputTransform(_ linear: LinearConfiguration) throws(ModelError) -> BlockHadamard? {
    let module = storedName(linear.name)
    guard
      let size = (quantization as? CompressedTensors)?.hadamardSize(
        forModule: module, inputs: linear.inputs)
    else {
      return nil
    }
    guard size > 0, size & (size - 1) == 0, linear.inputs % size == 0 else {
      throw .unsupportedQuantization(
        reason: "transform_config: a Hadamard matrix of size \(size) for the \(linear.inputs) "
          + "inputs of \(module)", path: checkpoint.path)
    }
    return BlockHadamard(size: size)
  }

  /// What the checkpoint says happens to a layer's input.
  func inputQuantizer(_ linear: LinearConfiguration) throws -> ActivationQuantizer? {
    guard let scheme = scheme(of: linear.tensors(block: nil)[0])?.activations else { return nil }
    let module = storedName(linear.name)
    var components: [String: Tensor] = [:]
    for suffix in scheme.componentSuffixes where checkpoint.contains("\(module).\(suffix)") {
      components[suffix] = try checkpoint.tensor("\(module).\(suffix)")
    }
    do throws(CodecError) {
      return try ActivationQuantizer(scheme, components: components)
    } catch {
      throw ModelError.badWeight(module: module, reason: error.description, path: checkpoint.path)
    }
  }

  func norm(_ norm: NormConfiguration) throws -> Norm {
    var result = Norm(configuration: norm)
    for declaration in norm.tensors(block: nil) {
      let vector = try vector(declaration.name)
      if declaration.name.hasSuffix(".bias") {
        result.bias = vector
      } else {
        result.weight = vector
      }
    }
    return result
  }

  func block(_ block: BlockConfiguration) throws -> Block {
    func norms(_ norms: BranchNorms) throws -> Block.Norms {
      Block.Norms(
        before: try norms.before.map(norm), output: try norms.output.map(norm),
        after: try norms.after.map(norm))
    }
    return Block(
      configuration: block,
      attentionInputs: try block.attention.inputs.map(linear),
      attentionOutput: try linear(block.attention.output),
      feedForwardInputs: try block.feedForward.inputs.map(linear),
      feedForwardOutput: try linear(block.feedForward.down),
      attentionNorms: try norms(block.attentionNorms),
      feedForwardNorms: try norms(block.feedForwardNorms),
      queryNorm: try block.attention.queryNorm.map(norm),
      keyNorm: try block.attention.keyNorm.map(norm))
  }
}
