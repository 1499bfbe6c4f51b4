import Codecs
import Quantization
public import Tensors
import Text
import Yams

/// A stage of a recipe that rotates a model, for a quantization to follow.
public struct RotateStage: Sendable, Equatable {
  public enum Method: String, Sendable, CaseIterable {
    /// Random Hadamard matrices.
    case quarot
    /// Rotations learned from those on.
    case spinquant
  }

  /// What rotations are learned on, and for which grid.
  public struct Learning: Sendable, Equatable {
    public var data = ""
    public var bits = 4
    /// -1 for one grid per row.
    public var groupSize = 128
    public var steps = 100
    public var learningRate = 1.5
    public var samples = 64
    public var length = 256
    public var batch = 8
    /// Bytes; the stage is refused where it needs more.
    public var memoryLimit: Int?

    public init() {}
  }

  public var method = Method.quarot
  /// Nil for the recipe's.
  public var seed: UInt64?
  /// Whether inputs of `down` are rotated at run time too.
  public var isOnline = false
  /// Whether values are rotated head by head.
  public var rotatesValues = true
  /// Only of spinquant.
  public var learning: Learning?
  /// Element type of what is written; nil keeps each tensor's.
  public var dtype: DType?
  /// Line of the recipe file where the stage begins.
  public var line: Int?

  public init() {}

  init(_ node: Node) throws(RecipeError) {
    var fields = try Fields(node, "rotate")
    line = fields.line
    method = try fields.choice("method") ?? method
    if let seed = try fields.integer("seed") {
      guard seed >= 0 else {
        throw .badSetting("seed", value: String(seed), expected: "0 or more", line: line)
      }
      self.seed = UInt64(seed)
    }
    isOnline = try fields.flag("online") ?? isOnline
    rotatesValues = try fields.flag("values") ?? rotatesValues
    if let text = try fields.text("dtype") {
      switch text {
      case "bf16": dtype = .bfloat16
      case "f16": dtype = .float16
      case "f32": dtype = .float32
      default:
        throw .badSetting(
          "dtype", value: text, expected: "bf16, f16 or f32", line: fields.line(of: "dtype"))
      }
    }
    if method == .spinquant { learning = try Learning(&fields) }
    try fields.finish()
  }

  /// - Parameter recipeSeed: for a stage without one of its own.
  func settings(recipeSeed: UInt64) -> QuaRot {
    var settings = QuaRot()
    settings.seed = seed ?? recipeSeed
    settings.isOnline = isOnline
    settings.rotatesValues = rotatesValues
    return settings
  }

  var json: JSON {
    var fields: [(String, JSON)] = [("method", JSON(method.rawValue))]
    if let seed { fields.append(("seed", JSON(Int(clamping: seed)))) }
    fields += [("online", JSON(isOnline)), ("values", JSON(rotatesValues))]
    if let learning { fields += learning.fields }
    switch dtype {
    case .bfloat16: fields.append(("dtype", "bf16"))
    case .float16: fields.append(("dtype", "f16"))
    case .some: fields.append(("dtype", "f32"))
    case nil: break
    }
    return .object(JSONObject(fields))
  }
}

extension RotateStage.Learning {
  fileprivate init(_ fields: inout Fields) throws(RecipeError) {
    self.init()
    guard let data = try fields.text("data") else {
      throw .malformed("rotate with method spinquant lacks data", line: fields.line)
    }
    self.data = data
    bits = try fields.integer("bits") ?? bits
    groupSize = try fields.integer("group_size") ?? groupSize
    steps = try fields.integer("steps") ?? steps
    learningRate = try fields.number("learning_rate") ?? learningRate
    samples = try fields.integer("samples") ?? samples
    length = try fields.integer("length") ?? length
    batch = try fields.integer("batch_size") ?? batch
    if let megabytes = try fields.integer("memory_limit_mb") { memoryLimit = megabytes * 1_000_000 }
    guard AffineGroups.supportedBits.contains(bits) else {
      throw .badSetting(
        "bits", value: String(bits), expected: "one of 2, 3, 4, 5, 6, 8", line: fields.line)
    }
    guard groupSize == -1 || AffineGroups.supportedGroupSizes.contains(groupSize) else {
      throw .badSetting(
        "group_size", value: String(groupSize), expected: "16 to 256, or -1 per row",
        line: fields.line)
    }
    guard steps > 0, samples > 0, length > 1, batch > 0, learningRate > 0 else {
      throw .malformed(
        "steps, samples, batch_size and learning_rate are positive, length is 2 or more",
        line: fields.line)
    }
  }

  fileprivate var fields: [(String, JSON)] {
    [
      ("data", JSON(data)), ("bits", JSON(bits)), ("group_size", JSON(groupSize)),
      ("steps", JSON(steps)), ("learning_rate", JSON(learningRate)), ("samples", JSON(samples)),
      ("length", JSON(length)), ("batch_size", JSON(batch)),
    ]
  }

  /// The grid that rounding is felt on; nil where it does not divide a matrix' columns.
  func codec(inputs: Int) -> AffineGroups? {
    guard groupSize == -1 || inputs % groupSize == 0 else { return nil }
    return try? AffineGroups(
      bits: bits, granularity: groupSize == -1 ? .channel : .group(groupSize), isSymmetric: true,
      scaleType: .float32, layout: .packed)
  }
}
