public import Codecs
package import Quantization

/// What the user wants done to a model, before any model is looked at: stages in order.
public struct Recipe: Sendable, Equatable {
  public var name: String
  /// Recorded, and the source of every random choice a method makes.
  public var seed: UInt64
  public var stages: [Stage]

  public init(name: String, seed: UInt64 = 0, stages: [Stage]) {
    self.name = name
    self.seed = seed
    self.stages = stages
  }

  public enum Stage: Sendable, Equatable {
    case quantize(QuantizeStage)
    case cut(CutStage)
    case distill(DistillStage)
    case rotate(RotateStage)
  }

  /// The recipe in parts that one pass each carries out: quantizations together, a cut
  /// or a distillation alone.
  package var passes: [Pass] {
    var passes: [Pass] = []
    var pending: [Stage] = []
    func flush() {
      guard !pending.isEmpty else { return }
      passes.append(.compress(Recipe(name: name, seed: seed, stages: pending)))
      pending = []
    }
    for stage in stages {
      switch stage {
      case .quantize: pending.append(stage)
      case .cut(let cut):
        flush()
        passes.append(.cut(cut))
      case .distill(let distill):
        flush()
        passes.append(.distill(distill))
      case .rotate(let rotate):
        flush()
        passes.append(.rotate(rotate))
      }
    }
    flush()
    return passes
  }

  package enum Pass: Sendable {
    case compress(Recipe)
    case cut(CutStage)
    case distill(DistillStage)
    case rotate(RotateStage)
  }

  /// Whether one pass over the weights carries the recipe out, which can be planned tensor by tensor.
  public var isOnePass: Bool {
    stages.allSatisfy { if case .quantize = $0 { true } else { false } }
  }
}

/// One rounding of some of the model's matrices.
public struct QuantizeStage: Sendable, Equatable {
  /// How values become integers.
  public enum Method: String, Sendable, CaseIterable {
    /// Round to nearest.
    case rtn
  }

  public enum Clipping: String, Sendable, CaseIterable {
    /// The grid spans each group's least and greatest value.
    case minmax
    /// The grid shrinks to the range with the least squared error.
    case mse
  }

  /// What happens to a matrix whose input dimension the group size does not divide.
  public enum Indivisible: String, Sendable, CaseIterable {
    /// The largest group size below that divides it, from 16 up; else per channel.
    case smaller
    case channel
    /// The matrix stays as it is.
    case skip
  }

  public var method = Method.rtn
  public var bits = 4
  public var granularity = AffineGroups.Granularity.group(128)
  public var isSymmetric = true
  public var clipping = Clipping.minmax
  public var targets: [Target] = [Target("linear")]
  public var blocks: ClosedRange<Int>?
  public var ignore: [Target] = []
  public var indivisible = Indivisible.smaller
  public var format = AffineGroups.Layout.packed
  /// Line of the recipe file where the stage begins.
  public var line: Int?

  public init() {}

  /// `W4 g128 symmetric`, as tables print it.
  public var summary: String {
    let grid =
      switch granularity {
      case .group(let size): "g\(size)"
      case .channel: "per channel"
      case .tensor: "per tensor"
      }
    return "\(method.rawValue) \(bits) bits \(grid) \(isSymmetric ? "symmetric" : "asymmetric")"
      + (clipping == .mse ? " mse" : "")
  }

  /// The method with these settings, for a matrix stored under a scheme.
  package func method(_ codec: AffineGroups) -> RoundToNearest {
    switch method {
    case .rtn:
      RoundToNearest(codec: codec, clipping: clipping == .mse ? .meanSquareError() : .minMax)
    }
  }

  /// - Throws: `RecipeError.contradiction` for settings that no codec or format can honour.
  package func validate() throws(RecipeError) {
    guard AffineGroups.supportedBits.contains(bits) else {
      throw .badSetting(
        "bits", value: String(bits), expected: "one of 2, 3, 4, 5, 6, 8", line: line)
    }
    if case .group(let size) = granularity, !AffineGroups.supportedGroupSizes.contains(size) {
      throw .badSetting(
        "group_size", value: String(size), expected: "16 to 256, or -1 for per channel", line: line)
    }
    if format == .int8, bits != 8 {
      throw .contradiction(
        "int-quantized stores one byte per weight, so \(bits) bits would save nothing; "
          + "use pack-quantized or 8 bits", line: line)
    }
    if format == .int8, case .group = granularity {
      throw .contradiction(
        "int-quantized is read with one scale per channel or tensor; set group_size: -1 or use "
          + "pack-quantized", line: line)
    }
    if let blocks, blocks.lowerBound < 0 {
      throw .badSetting(
        "blocks", value: "\(blocks)", expected: "first-last, counted from 0", line: line)
    }
  }
}
