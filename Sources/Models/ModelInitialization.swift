public import Checkpoints
import Tensors
public import Text

/// A new model of a given shape with random numbers, as transformers initializes one: matrices from a
/// normal distribution of deviation `initializer_range`, norms that pass their input on, biases zero.
public struct ModelInitialization: Sendable {
  public let configuration: ModelConfiguration
  private let config: JSON
  private let deviation: Double

  /// - Parameters:
  ///   - config: a parsed `config.json`.
  ///   - path: the folder or file it came from, for messages.
  /// - Throws: `ModelError` where the config does not describe a model.
  public init(config: JSON, path: String) throws(ModelError) {
    configuration = try ModelConfiguration(config: config, path: path)
    self.config = config
    deviation = config["initializer_range"]?.double ?? 0.02
    guard deviation > 0, deviation.isFinite else {
      throw .badField(
        "initializer_range", expected: "a positive number", found: "\(deviation)", path: path)
    }
  }

  /// Writes a folder with the config and float32 tensors. Each tensor has a generator of its own,
  /// seeded by the seed and its place, so that the numbers do not depend on the order of writing.
  ///
  /// - Throws: `CheckpointError` where the folder cannot be written.
  public func write(to directory: OutputDirectory, seed: UInt64) throws {
    let tensors = configuration.tensors
    var writer = try SafetensorsWriter(
      folder: directory.path,
      tensors: tensors.map { TensorDeclaration(name: $0.name, dtype: .float32, shape: $0.shape) })
    for (index, declaration) in tensors.enumerated() {
      var random = Xoshiro256(seed: seed &+ UInt64(index) &* 0x9e37_79b9_7f4a_7c15)
      try writer.append(declaration.name, values(of: declaration, &random))
    }
    _ = try writer.finish()
    try directory.write("config.json", config.serialized(pretty: true))
  }

  private func values(of declaration: ModelTensor, _ random: inout Xoshiro256) -> Tensor {
    switch declaration.role {
    case .bias: return .zeros(declaration.shape)
    case .norm:
      let value = declaration.name.hasSuffix(".bias") ? 0 : neutralFactor(of: declaration)
      return Tensor(shape: declaration.shape) { $0.initialize(repeating: value) }
    default:
      var deviation = deviation
      // What adds to the residual stream of GPT-2 is smaller the more such terms there are (Radford
      // et al. 2019, section 2.3).
      if configuration.modelType == "gpt2",
        declaration.role == .attentionOutput || declaration.role == .down
      {
        deviation /= Double(2 * configuration.blocks.count).squareRoot()
      }
      return Tensor(shape: declaration.shape) { target in
        for i in target.indices {
          target.initializeElement(at: i, to: Float(deviation * random.normal()))
        }
      }
    }
  }

  /// What a norm's weight is at the start: 1, or 0 where 1 is added to it (Gemma).
  private func neutralFactor(of declaration: ModelTensor) -> Float {
    let norms =
      [configuration.finalNorm, configuration.embedding.norm].compactMap { $0 }
      + configuration.blocks.flatMap(\.norms)
    guard let norm = norms.first(where: { "\($0.name).weight" == declaration.name }),
      case .rootMeanSquare(let offset) = norm.kind
    else { return 1 }
    return 1 - offset
  }
}
