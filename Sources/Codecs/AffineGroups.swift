public import Tensors

/// Integers on an affine grid, one grid per group of neighbouring columns, as compressed-tensors
/// stores them (`pack-quantized`, `int-quantized`).
///
/// With `low = -2^(bits-1)` and `high = 2^(bits-1) - 1`, also when asymmetric:
///
///     symmetric    scale = max|w| / ((high - low) / 2)          zero = 0
///     asymmetric   scale = (max - min) / (high - low)           zero = clamp(round(low - min / scale))
///     code         q = round(clamp(w / scale + zero, low, high))
///     value        (q - zero) * scale
///
/// where rounding is half to even, a range always includes 0, and the scale is rounded to its
/// stored type before any code is computed, so that the codes fit the scale a reader will see. An
/// all-zero group takes the type's epsilon as its scale. A symmetric scale spans `high - low` and
/// not `2 * high`: the largest positive weight is clamped (4 bits: to 0.933 of itself) and the most
/// negative one overshoots (1.067), which is the format's choice, not ours.
public struct AffineGroups: Codec, Hashable {
  /// What shares one scale.
  public enum Granularity: Sendable, Hashable {
    /// This many neighbouring columns of a row.
    case group(Int)
    /// A row, that is, an output channel.
    case channel
    case tensor
  }

  /// How codes lie in a file.
  public enum Layout: String, Sendable, Hashable {
    /// 32-bit words, an LSB-first stream per row: `weight_packed`.
    case packed = "pack-quantized"
    /// One signed byte per weight: `weight`.
    case int8 = "int-quantized"
  }

  public var bits: Int
  public var granularity: Granularity
  public var isSymmetric: Bool
  /// Type scales are stored in: float32, bfloat16 or float16.
  public var scaleType: DType
  public var layout: Layout
  /// Whether a row may end in a group shorter than the others. Our own consumers read it; those of
  /// compressed-tensors do not, so it is off unless asked for.
  public var allowsShortLastGroup: Bool

  public static let supportedBits = [2, 3, 4, 5, 6, 8]
  public static let supportedGroupSizes = 16...256

  /// - Throws: `CodecError.unsupportedSetting` naming the setting.
  public init(
    bits: Int, granularity: Granularity, isSymmetric: Bool = true, scaleType: DType = .bfloat16,
    layout: Layout = .packed, allowsShortLastGroup: Bool = false
  ) throws(CodecError) {
    guard Self.supportedBits.contains(bits) else {
      throw .unsupportedSetting("\(bits) bits are not supported; choose 2, 3, 4, 5, 6 or 8.")
    }
    if case .group(let size) = granularity, !Self.supportedGroupSizes.contains(size) {
      throw .unsupportedSetting(
        "a group size of \(size) is not supported; choose 16 to 256, per channel or per tensor.")
    }
    guard [.float32, .bfloat16, .float16].contains(scaleType) else {
      throw .unsupportedSetting(
        "scales cannot be stored as \(scaleType.rawValue); choose F32, BF16 or F16.")
    }
    self.bits = bits
    self.granularity = granularity
    self.isSymmetric = isSymmetric
    self.scaleType = scaleType
    self.layout = layout
    self.allowsShortLastGroup = allowsShortLastGroup
  }

  public var lowestCode: Int { -(1 << (bits - 1)) }
  public var highestCode: Int { (1 << (bits - 1)) - 1 }

  /// Columns that share a scale in a row of `inputs` columns.
  public func groupSize(inputs: Int) -> Int {
    if case .group(let size) = granularity { min(size, max(inputs, 1)) } else { max(inputs, 1) }
  }

  /// Scales in a row of `inputs` columns.
  public func groupCount(inputs: Int) -> Int {
    let size = groupSize(inputs: inputs)
    return max((inputs + size - 1) / size, 1)
  }

  /// `[outputs, groups]`, `[outputs, 1]` or `[1]`.
  public func scaleShape(outputs: Int, inputs: Int) -> [Int] {
    granularity == .tensor ? [1] : [outputs, groupCount(inputs: inputs)]
  }

  /// Names, types and shapes of what `GroupQuantizedWeight.encoded()` gives for a matrix of this
  /// size: a writer declares them, and a plan adds them up, before any data exists.
  public func componentShapes(outputs: Int, inputs: Int)
    -> [(suffix: String, dtype: DType, shape: [Int])]
  {
    var components: [(suffix: String, dtype: DType, shape: [Int])] = []
    let scale = (
      suffix: Suffix.scale, dtype: scaleType, shape: scaleShape(outputs: outputs, inputs: inputs)
    )
    switch layout {
    case .packed:
      let words = (inputs * bits + 31) / 32
      components.append((Suffix.packed, .int32, [outputs, words]))
      components.append(scale)
      components.append((Suffix.shape, .int64, [2]))
      if !isSymmetric {
        components.append(
          granularity == .tensor
            ? (Suffix.zeroPoint, .int8, [1])
            : (
              Suffix.zeroPoint, .int32,
              [(outputs * bits + 31) / 32, groupCount(inputs: inputs)]
            ))
      }
    case .int8:
      components.append((Suffix.weight, .int8, [outputs, inputs]))
      components.append(scale)
      if !isSymmetric { components.append((Suffix.zeroPoint, .int8, scale.shape)) }
    }
    return components
  }

  /// Bytes of a matrix of this size, scales and zero points included.
  public func storedBytes(outputs: Int, inputs: Int) -> Int {
    componentShapes(outputs: outputs, inputs: inputs)
      .reduce(0) { $0 + $1.shape.reduce(1, *) * $1.dtype.byteCount }
  }

  /// A group size up to `limit` that divides `inputs`: the largest power of two, which every
  /// consumer has a kernel for, else the largest multiple of 8. Nil when there is none from 16 up.
  public static func dividingGroupSize(inputs: Int, atMost limit: Int) -> Int? {
    let sizes = supportedGroupSizes.reversed().filter { $0 <= limit && inputs % $0 == 0 }
    return sizes.first { $0.nonzeroBitCount == 1 } ?? sizes.first { $0 % 8 == 0 }
  }

  enum Suffix {
    static let weight = "weight"
    static let packed = "weight_packed"
    static let scale = "weight_scale"
    static let shape = "weight_shape"
    static let zeroPoint = "weight_zero_point"
    static let groupIndex = "weight_g_idx"
  }
}
