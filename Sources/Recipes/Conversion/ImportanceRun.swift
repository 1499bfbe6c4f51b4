import Calibration
public import Checkpoints
import Models
public import Text
import Tokenizers

/// Measures the importance of every matrix' columns on a text.
public struct ImportanceRun: Sendable {
  public var model: String
  /// What the text is called, in the file that is written.
  public var dataset: String
  /// Texts that are run, spread evenly over the data, and tokens of each.
  public var samples = 128
  public var length = 512

  public init(model: String, dataset: String) {
    self.model = model
    self.dataset = dataset
  }

  public struct Result: Sendable {
    public var matrix: ImportanceMatrix
    public var samples: Int
    public var length: Int
    public var distinctTokens: Int
    public var seconds: Double

    public func json(output: String) -> JSON {
      [
        "output": JSON(output), "entries": JSON(matrix.entries.count), "samples": JSON(samples),
        "length": JSON(length),
        "tokens": JSON(samples * length), "distinct_tokens": JSON(distinctTokens),
        "seconds": JSON(seconds),
      ]
    }
  }

  /// - Parameter text: UTF-8.
  /// - Throws: `CheckpointError`, `ModelError`, `ImportanceError` for too little text or a family that
  ///   GGUF has no names for.
  public func run(
    text: [UInt8], onProgress: (_ done: Int, _ total: Int) throws -> Void = { _, _ in }
  ) throws -> Result {
    let clock = ContinuousClock()
    let start = clock.now
    let model = try LanguageModel.load(model)
    let configuration = model.configuration
    guard
      let family = GGUFArchitecture.all.first(where: {
        $0.modelTypes.contains(configuration.modelType)
      })
    else { throw ImportanceError.noNames(modelType: configuration.modelType) }
    let tokens = try TrainingRun.tokenizer(model.checkpoint).encode(text, addSpecialTokens: false)
    let texts = try TextWindows(samples: samples, length: length).cut(tokens, configuration)
    // A tied head is the embedding's table, which some families' files hold twice.
    let tied = configuration.tensors.first { $0.role == .embedding }
    func names(_ tensor: ModelTensor) -> [String] {
      guard tensor.role == .head, configuration.head.isTied else {
        return family.ggufName(tensor).map { [$0.name] } ?? []
      }
      let table = tied.flatMap { family.ggufName($0)?.name }.map { [$0] } ?? []
      return table + (family.repeatsTiedHead ? ["output.weight"] : [])
    }
    var matrix = try ImportanceMatrix.measure(
      model, texts: texts, name: names, onProgress: { try onProgress($0, texts.count) })
    matrix.datasets = [dataset]
    return Result(
      matrix: matrix, samples: texts.count, length: texts[0].count,
      distinctTokens: Set(texts.joined()).count, seconds: (clock.now - start).inSeconds)
  }
}
