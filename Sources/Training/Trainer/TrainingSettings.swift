public import Tensors
public import Text

/// How a model is trained, whatever it is trained for.
public struct TrainingSettings: Sendable, Equatable {
  public var steps: Int
  /// Rows that one step's gradient is the mean over.
  public var batchSize = 8
  /// Tokens of a row.
  public var length = 256
  /// Rows that pass through the model together; gradients of several passes add up to one step's.
  /// nil: all of them.
  public var microBatchSize: Int?
  public var mode = TrainingStream.Mode.packed
  public var optimizer: OptimizerChoice
  public var optimizerOptions = OptimizerOptions()
  public var schedule = Schedule(.cosine(), warmupSteps: 0)
  /// Largest norm of a step's gradient; nil for no limit.
  public var clipNorm: Double? = 1
  /// Of an average of the weights that takes their place at the end; nil for none.
  public var averageDecay: Double?
  /// Of the parameters during training, float32 or bfloat16.
  public var parameterType = DType.float32
  /// Keeps each block's input only and computes the rest again on the way back.
  public var recomputes = false
  public var checkpointEvery = 500
  /// Checkpoints kept besides the newest.
  public var earlierCheckpoints = 1
  /// Steps between measurements on held-out text; nil: at the end only.
  public var evaluateEvery: Int?
  public var seed: UInt64 = 0

  public init(steps: Int, optimizer: OptimizerChoice) {
    self.steps = steps
    self.optimizer = optimizer
  }

  package var rowsAtOnce: Int { min(microBatchSize ?? batchSize, batchSize) }

  /// - Throws: `badSetting` for numbers out of range or that contradict each other.
  public func validate(contextLength: Int?) throws(TrainingError) {
    for (name, value) in [
      ("--steps", steps), ("--batch-size", batchSize), ("--checkpoint-every", checkpointEvery),
      ("--micro-batch-size", microBatchSize ?? 1), ("--evaluate-every", evaluateEvery ?? 1),
    ] where value < 1 {
      throw .badSetting(name, value: String(value), expected: "at least 1")
    }
    guard length >= 2 else {
      throw .badSetting("--length", value: String(length), expected: "at least 2")
    }
    if let contextLength, length > contextLength {
      throw .badSetting(
        "--length", value: String(length),
        expected: "at most \(contextLength), the model's context length")
    }
    guard batchSize % rowsAtOnce == 0 else {
      throw .badSetting(
        "--micro-batch-size", value: String(rowsAtOnce),
        expected: "a divisor of the batch size, \(batchSize)")
    }
    if let clipNorm, !(clipNorm > 0) {
      throw .badSetting("--clip-norm", value: "\(clipNorm)", expected: "above 0")
    }
    try schedule.validate(total: steps)
  }

  /// What a resumed run must agree on, by the names that users know.
  public var identity: JSONObject {
    JSONObject([
      ("steps", JSON(steps)), ("batch_size", JSON(batchSize)), ("length", JSON(length)),
      ("micro_batch_size", JSON(rowsAtOnce)), ("packing", JSON(mode.rawValue)),
      ("optimizer", JSON("\(optimizer)")), ("optimizer_options", JSON("\(optimizerOptions)")),
      ("schedule", JSON("\(schedule)")), ("clip_norm", clipNorm.map { JSON($0) } ?? .null),
      ("ema", averageDecay.map { JSON($0) } ?? .null),
      ("parameter_type", JSON("\(parameterType)")), ("recompute", JSON(recomputes)),
      ("seed", JSON(String(seed))),
    ])
  }
}
