public import Codecs

/// What the user wants done to a model, before any model is looked at: stages in order.
public struct Recipe: Sendable, Equatable {
  public var name: String
  /// Recorded, and the source of every random choice a method makes.
  public var seed: UInt64
  /// On what activations are measured, where a method looks at them.
  public var calibration = CalibrationRequest()
  public var stages: [Stage]

  public init(name: String, seed: UInt64 = 0, stages: [Stage]) {
    self.name = name
    self.seed = seed
    self.stages = stages
  }

  public enum Stage: Sendable, Equatable {
    case smooth(SmoothStage)
    case quantize(QuantizeStage)
    case correct(CorrectStage)
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
      var part = Recipe(name: name, seed: seed, stages: pending)
      part.calibration = calibration
      passes.append(.compress(part))
      pending = []
    }
    for stage in stages {
      switch stage {
      case .smooth, .quantize, .correct: pending.append(stage)
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
    passes.count == 1 && passes.allSatisfy { if case .compress = $0 { true } else { false } }
  }

  /// Whether a method looks at activations, for which samples must pass the model.
  public var needsCalibration: Bool {
    stages.contains { stage in
      switch stage {
      case .smooth: true
      case .quantize(let stage):
        stage.method.needsCalibration || stage.allocation != nil
          || stage.activations == .int8Static
      case .correct(let stage): stage.space == .outputs
      case .rotate, .cut, .distill: false
      }
    }
  }

  /// Of the product that is added to every quantized matrix; nil where none is.
  package var correctionRank: Int? {
    for case .correct(let stage) in stages { return stage.rank }
    return nil
  }

  /// Whether results are stored in forms that compressed-tensors has no words for.
  package var hasForms: Bool {
    stages.contains { stage in
      switch stage {
      case .correct: true
      case .quantize(let stage): stage.method.hasFormOfItsOwn || stage.format == .nf4
      case .smooth, .rotate, .cut, .distill: false
      }
    }
  }

  /// - Throws: `RecipeError.contradiction` for stages in an order that cannot work.
  package func validate() throws(RecipeError) {
    try calibration.validate()
    var isRounded = false
    for stage in stages {
      switch stage {
      case .smooth(let smooth):
        guard !isRounded else {
          throw .contradiction(
            "smooth moves factors between channels of weights that are rounded already; put it "
              + "before the quantize stages", line: smooth.line)
        }
      case .quantize: isRounded = true
      case .correct(let correct):
        try correct.validate()
        guard isRounded else {
          throw .contradiction(
            "correct makes up for what a rounding lost; put a quantize stage before it",
            line: correct.line)
        }
        guard stages.count(where: { if case .correct = $0 { true } else { false } }) == 1 else {
          throw .contradiction("one correct stage serves all roundings", line: correct.line)
        }
      case .cut(let cut):
        guard !isRounded else {
          throw .contradiction(
            "cut leaves out channels of weights that are rounded already; put it before the "
              + "quantize stages", line: cut.line)
        }
      case .rotate(let rotate):
        guard !isRounded else {
          throw .contradiction(
            "rotate mixes channels of weights that are rounded already; put it before the quantize "
              + "stages", line: rotate.line)
        }
      case .distill: break
      }
    }
    if case .smooth(let last) = stages.last {
      throw .contradiction(
        "smooth changes nothing by itself; let a quantize stage follow", line: last.line)
    }
  }
}

/// One rounding of some of the model's matrices.
public struct QuantizeStage: Sendable, Equatable {
  /// How values become integers.
  public enum Method: String, Sendable, CaseIterable {
    /// Round to nearest.
    case rtn
    /// Column after column, errors passed on to the columns that follow.
    case gptq
    /// As gptq, aiming at the outputs of the uncompressed model.
    case gptaq
    /// Channels scaled by their activations, ranges clipped for the outputs' sake, then rounded.
    case awq
    /// Outliers moved from activations into weights, then rounded; 8 bits on both sides.
    case smoothquant
    /// Half-quadratic quantization: zero points for heavy-tailed weights, without any data.
    case hqq
    /// Roundings and clippings learned block by block with sign gradients.
    case autoround
    /// Clippings and factors between channels learned block by block.
    case omniquant
    /// Weights learned block by block, rounded with their tokens.
    case zeroquant
    /// 3-4 bits with coded scales, outliers kept apart in 16 bits.
    case spqr
    /// Signs, those of salient columns twice.
    case billm
    /// -1, 0 and 1 times a scale for each group.
    case ternary
    /// Signs times a product of two vectors.
    case onebit
    /// 8 bits, input columns with large activations multiplied apart in 16.
    case llmInt8 = "llm-int8"

    public var needsCalibration: Bool {
      switch self {
      case .rtn, .hqq, .ternary, .onebit, .llmInt8: false
      default: true
      }
    }

    /// Whether results are stored in a form that compressed-tensors has no words for, and whose size
    /// may depend on the data.
    package var hasFormOfItsOwn: Bool {
      switch self {
      case .spqr, .billm, .ternary, .onebit, .llmInt8: true
      default: false
      }
    }
  }

  /// The order in which gptq takes the columns.
  public enum ActOrder: String, Sendable, CaseIterable {
    case none
    /// By falling second moment; groups stay as they lie.
    case `static`
    /// By falling second moment, groups formed in that order.
    case group
  }

  /// What layers round their inputs to.
  public enum Activations: String, Sendable, CaseIterable {
    /// 8 bits on each token's own grid.
    case int8
    /// 8 bits on one grid that calibration finds.
    case int8Static = "int8-static"
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
  public var format = StoredFormat.packed
  /// How codes lie in a file, and what they stand for.
  public enum StoredFormat: String, Sendable, CaseIterable {
    case packed = "pack-quantized"
    case int8 = "int-quantized"
    /// FP8, E4M3.
    case float8 = "float-quantized"
    case nvfp4 = "nvfp4-pack-quantized"
    case mxfp4 = "mxfp4-pack-quantized"
    /// Of bitsandbytes, scales quantized too.
    case nf4

    package var layout: AffineGroups.Layout { self == .int8 ? .int8 : .packed }
    /// Nil for integers.
    package var floats: FloatGroups.Format? { FloatGroups.Format(rawValue: rawValue) }
    package var isOfFloats: Bool { floats != nil || self == .nf4 }
  }

  /// Nil: inputs stay as they are.
  public var activations: Activations?
  /// gptq: what is added to the second moment's diagonal, as a share of its mean.
  public var dampingFraction = 0.01
  /// gptq: columns between two updates of all that follow.
  public var blockSize = 128
  public var actOrder = ActOrder.none
  /// gptq: whether grids come from the original weights rather than from what errors made of them.
  public var usesStaticGroups = false
  /// What all matrices may take together, in place of `bits`.
  public var allocation: BitAllocation?
  /// autoround: steps for each block; nil: the method's own number.
  public var iterations: Int?
  /// smoothquant: α; nil searches it.
  public var smoothingStrength: Double? = 0.5
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
    if let smoothingStrength, !(0...1).contains(smoothingStrength) {
      throw .badSetting(
        "smoothing_strength", value: "\(smoothingStrength)", expected: "0 to 1, or search",
        line: line)
    }
    if let allocation {
      let all = AffineGroups.supportedBits
      guard !allocation.candidates.isEmpty, allocation.candidates.allSatisfy(all.contains) else {
        throw .badSetting(
          "candidate_bits", value: "\(allocation.candidates)", expected: "some of 2, 3, 4, 5, 6, 8",
          line: line)
      }
      if format == .int8 {
        throw .contradiction("int-quantized has 8 bits for every weight", line: line)
      }
    }
    if activations != nil, method.hasFormOfItsOwn {
      throw .contradiction(
        "\(method.rawValue) stores matrices in a form of its own, whose inputs stay as they are; "
          + "leave activations out", line: line)
    }
    if actOrder == .group, method == .gptq || method == .gptaq {
      throw .contradiction(
        "actorder group would store an index of groups, which gptq does not write yet; use static",
        line: line)
    }
    if activations == .int8Static, blockMethod != nil {
      throw .contradiction(
        "\(method.rawValue) measures no ranges of inputs for activations int8-static; use int8",
        line: line)
    }
    if method == .llmInt8, bits != 8 {
      throw .badSetting("bits", value: String(bits), expected: "8 for llm-int8", line: line)
    }
    if method == .spqr {
      do {
        _ = try BilevelWeight.Settings(bits: bits, groupSize: spqrGroupSize)
      } catch {
        throw .contradiction("spqr: \(error.description)", line: line)
      }
    }
    if format.isOfFloats {
      guard method == .rtn, allocation == nil, activations == nil else {
        throw .contradiction(
          "\(format.rawValue) holds floating-point codes, which \(method.rawValue) does not choose; "
            + "use method rtn without activations and targets of size", line: line)
      }
      let wanted = format == .float8 ? 8 : 4
      guard bits == wanted else {
        throw .badSetting(
          "bits", value: String(bits), expected: "\(wanted) for \(format.rawValue)", line: line)
      }
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
