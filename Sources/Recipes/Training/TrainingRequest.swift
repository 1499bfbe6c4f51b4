import Checkpoints
public import Tensors
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
  /// Roles, modules or patterns of the tensors that are trained; empty: all that can be.
  public var trained: [Target] = []
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

  var isFromConfiguration: Bool { model.hasSuffix(".json") }
}
