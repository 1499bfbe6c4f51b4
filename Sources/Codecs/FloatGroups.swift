import CKernels
public import Tensors

/// Small floating-point numbers under a scale for each group, as compressed-tensors stores them.
///
///     float8   E4M3 codes, one byte each      scale = max|w| / 448 of a channel, group or tensor
///     nvfp4    E2M1 codes, two to a byte      scale = s / G for each 16 columns, with
///                                             G = 448 * 6 / max|W|,  s = E4M3(G * max|w| / 6)
///     mxfp4    E2M1 codes, two to a byte      scale = 2^(byte - 127) for each 32 columns
///
///     code = nearest(w / scale), half to even, saturating at 448 or 6
///     value = code's number * scale
///
/// (NVIDIA's NVFP4; OCP "Microscaling Formats Specification" 1.0, MXFP4.) The exponent of an mxfp4
/// scale is that of max|w| less 2, after adding a quarter of max|w|'s leading bit, so that maxima from
/// 1.75 on take the next one rather than saturate. Scales are rounded as stored before any code is
/// computed; a scale of 0 becomes its type's epsilon. The sign of 0 is kept.
public struct FloatGroups: Codec, Hashable {
  /// How a matrix lies in a file; raw values are compressed-tensors' names.
  public enum Format: String, Sendable, Hashable, CaseIterable {
    case float8 = "float-quantized"
    case nvfp4 = "nvfp4-pack-quantized"
    case mxfp4 = "mxfp4-pack-quantized"
  }

  public let format: Format
  /// What shares a scale: 16 columns in nvfp4, 32 in mxfp4.
  public let granularity: AffineGroups.Granularity
  /// Type scales are stored in.
  public let scaleType: DType

  private init(checked format: Format, _ granularity: AffineGroups.Granularity, _ type: DType) {
    self.format = format
    self.granularity = granularity
    scaleType = type
  }

  public static let nvfp4 = FloatGroups(checked: .nvfp4, .group(16), .float8e4m3)
  public static let mxfp4 = FloatGroups(checked: .mxfp4, .group(32), .uint8)

  /// E4M3 codes.
  /// - Throws: `CodecError.unsupportedSetting` naming the setting.
  public static func float8(
    _ granularity: AffineGroups.Granularity = .channel, scaleType: DType = .bfloat16
  ) throws(CodecError) -> FloatGroups {
    if case .group(let size) = granularity, !AffineGroups.supportedGroupSizes.contains(size) {
      throw .unsupportedSetting(
        "a group size of \(size) is not supported; choose 16 to 256, per channel or per tensor.")
    }
    guard [.float32, .bfloat16, .float16].contains(scaleType) else {
      throw .unsupportedSetting(
        "scales cannot be stored as \(scaleType.rawValue); choose F32, BF16 or F16.")
    }
    return FloatGroups(checked: .float8, granularity, scaleType)
  }

  /// A format with what it leaves open: nvfp4 and mxfp4 leave nothing.
  /// - Throws: as `float8`.
  public init(
    _ format: Format, granularity: AffineGroups.Granularity = .channel,
    scaleType: DType = .bfloat16
  ) throws(CodecError) {
    switch format {
    case .float8: self = try Self.float8(granularity, scaleType: scaleType)
    case .nvfp4: self = .nvfp4
    case .mxfp4: self = .mxfp4
    }
  }

  public var bits: Int { format == .float8 ? 8 : 4 }
  /// The largest number a code stands for.
  public var largestValue: Float { format == .float8 ? 448 : 6 }

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

  /// Names, types and shapes of what `FloatGroupsWeight.encoded()` gives for a matrix of this size.
  public func componentShapes(outputs: Int, inputs: Int)
    -> [(suffix: String, dtype: DType, shape: [Int])]
  {
    let scale = (
      suffix: Suffix.scale, dtype: scaleType, shape: scaleShape(outputs: outputs, inputs: inputs)
    )
    switch format {
    case .float8: return [(Suffix.weight, .float8e4m3, [outputs, inputs]), scale]
    case .mxfp4: return [(Suffix.packed, .uint8, [outputs, inputs / 2]), scale]
    case .nvfp4:
      return [
        (Suffix.packed, .uint8, [outputs, inputs / 2]), scale, (Suffix.globalScale, .float32, [1]),
      ]
    }
  }

  /// Endings of the stored tensors.
  public var componentSuffixes: [String] {
    componentShapes(outputs: 0, inputs: 0).map(\.suffix)
  }

  /// Bytes of a matrix of this size, scales included.
  public func storedBytes(outputs: Int, inputs: Int) -> Int {
    componentShapes(outputs: outputs, inputs: inputs)
      .reduce(0) { $0 + $1.shape.reduce(1, *) * $1.dtype.byteCount }
  }

  public func halfStep(at value: Float, row: Int, column: Int, in weight: FloatGroupsWeight)
    -> Float?
  {
    let scale = weight.scale(row: row, group: column / groupSize(inputs: weight.inputs))
    let steps = abs(value / scale)
    guard steps <= largestValue else { return nil }
    let (smallestExponent, mantissaBits) = format == .float8 ? (-6, 3) : (0, 1)
    let exponent = steps == 0 ? smallestExponent : max(Int(steps.exponent), smallestExponent)
    return Float(sign: .plus, exponent: exponent - mantissaBits - 1, significand: 1) * scale
  }

  var kind: pare_float_kind { format == .float8 ? PARE_FLOAT_E4M3 : PARE_FLOAT_E2M1 }

  enum Suffix {
    static let weight = "weight"
    static let packed = "weight_packed"
    static let scale = "weight_scale"
    static let globalScale = "weight_global_scale"
  }
}

/// What codes under a scale can hold: all that a method needs which rounds number by number and
/// passes the error on.
package protocol RoundingGrid: Sendable {
  /// The storable value nearest to `value`.
  func rounded(_ value: Float, scale: Float) -> Float
}

extension FloatGroups: RoundingGrid {
  package func rounded(_ value: Float, scale: Float) -> Float {
    pare_float_round(kind, value, scale)
  }
}
