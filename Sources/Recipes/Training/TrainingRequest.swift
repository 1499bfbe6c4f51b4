import Checkpoints
public import Tensors
import Text
public import Training

/// What the user wants of a training.
public struct TrainingRequest: Sendable {
  /// A model's folder or GGUF file, or a `config.json` to start from random numbers.
  public var model: String
  /// The folder with the tokenizer's files, where `model` is a config alone.
  public var tokenizer: String?
  public var sources: [DataSource]
  /// Text to measure on; else `heldOut` of the data is.
  public var heldOutSource: DataSource?
  public var heldOut = HeldOut.none
  public var settings: TrainingSettings
  /// Roles, modules or patterns of the tensors that are trained; empty: all that can be. `scales`
  /// alone: the scales of a quantized model's matrices, and its norms.
  public var trained: [Target] = []
  /// Small matrices that are trained in place of the model's own.
  public var adapters: AdapterRequest?
  /// Whether of instructions and conversations only the responses count.
  public var masksPrompts = true
  /// Name of a chat template or a file that holds one; nil for the model's own.
  public var chatTemplate: String?
  public var output: String
  public var overwrite = false
  public var resumes = false
  /// Element type of the result; nil: as the model's.
  public var outputType: DType?
  public var memoryLimit: Int?
  /// Whether checkpoints stay after the result is written.
  public var keepsCheckpoints = false

  public init(model: String, sources: [DataSource], settings: TrainingSettings, output: String) {
    self.model = model
    self.sources = sources
    self.settings = settings
    self.output = output
  }

  /// Where checkpoints and logs lie while the training runs.
  public var workFolder: String {
    var path = output
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    return path + ".training"
  }

  var trainsScales: Bool { trained.map(\.text) == ["scales"] }
  var isFromConfiguration: Bool { model.hasSuffix(".json") }
}

/// What the user wants of a training that leaves the model itself as it is.
public struct AdapterRequest: Sendable {
  public var settings: AdapterSettings
  /// Roles, modules or patterns of the matrices that get adapters; empty: all inside blocks.
  public var targets: [Target] = []
  /// What the matrices inside blocks are held in meanwhile; nil for what they are in.
  public var base: Base?
  public var result = Result.merged

  public enum Base: String, Sendable, CaseIterable {
    /// 4-bit codes with quantized scales (QLoRA).
    case nf4
  }

  public enum Result: String, Sendable, CaseIterable {
    /// A model with the adapters multiplied in.
    case merged
    /// The adapters alone, as PEFT reads them.
    case adapter
  }

  public init(settings: AdapterSettings) { self.settings = settings }

  /// For the identity of a run and its report.
  var json: JSON {
    [
      "kind": JSON(settings.isWeightDecomposed ? "dora" : "lora"), "rank": JSON(settings.rank),
      "alpha": JSON(settings.alpha), "dropout": JSON(settings.dropout),
      "rank_stabilized": JSON(settings.isRankStabilized),
      "targets": .array(targets.map { JSON($0.text) }),
      "quantized_base": base.map { JSON($0.rawValue) } ?? .null,
    ]
  }
}
