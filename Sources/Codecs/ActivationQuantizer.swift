import CKernels
public import Tensors

/// How activations are rounded to integers, as compressed-tensors describes it
/// (`input_activations`).
public struct ActivationScheme: Sendable, Hashable {
  /// What shares a grid.
  public enum Granularity: String, Sendable, Hashable {
    /// One token's activations, whose range is looked at when it comes: dynamic.
    case token
    /// All activations that a layer will ever see, on a grid that calibration found: static.
    case tensor
  }

  public let bits: Int
  public let isSymmetric: Bool
  public let granularity: Granularity

  public static let supportedBits = 2...8
  /// What W8A8 and W4A8 mean where no more is said.
  public static let int8 = ActivationScheme(bits: 8)

  /// - Throws: `CodecError.unsupportedSetting`.
  public init(
    bits: Int, isSymmetric: Bool = true, granularity: Granularity = .token
  ) throws(CodecError) {
    guard Self.supportedBits.contains(bits) else {
      throw .unsupportedSetting("activations of \(bits) bits are not supported; choose 2 to 8.")
    }
    self.bits = bits
    self.isSymmetric = isSymmetric
    self.granularity = granularity
  }

  private init(bits: Int) {
    (self.bits, isSymmetric, granularity) = (bits, true, .token)
  }

  public var lowestCode: Int { -(1 << (bits - 1)) }
  public var highestCode: Int { (1 << (bits - 1)) - 1 }
  /// Whether the grid is stored with the layer.
  public var isStatic: Bool { granularity == .tensor }

  /// Endings of the tensors that a layer has besides its weight's.
  public var requiredSuffixes: [String] {
    guard isStatic else { return [] }
    return [ActivationQuantizer.scaleSuffix]
      + (isSymmetric ? [] : [ActivationQuantizer.zeroPointSuffix])
  }

  /// Endings that may stand there: some writers store the zeros of symmetric grids too.
  public var componentSuffixes: [String] {
    isStatic ? Self.staticSuffixes : []
  }

  /// What a layer may have whose grid is stored.
  package static let staticSuffixes = [
    ActivationQuantizer.scaleSuffix, ActivationQuantizer.zeroPointSuffix,
  ]
}

/// What a layer does to its input before the weight sees it.
///
/// With `low = -2^(bits-1)` and `high = 2^(bits-1) - 1`, over a range that includes 0:
///
///     symmetric    scale = max|x| / ((high - low) / 2)          zero = 0
///     asymmetric   scale = (max - min) / (high - low)           zero = clamp(round(low - min / scale))
///     code         q = round(clamp(x / scale + zero, low, high))
///     value        (q - zero) * scale
///
/// where rounding is half to even, and a token of zeros takes float32's epsilon as its scale.
public struct ActivationQuantizer: Sendable {
  struct Grid {
    var scale: Float
    var zero: Float = 0
  }

  static let scaleSuffix = "input_scale"
  static let zeroPointSuffix = "input_zero_point"

  public let scheme: ActivationScheme
  /// As stored, `[1]`; nil when dynamic.
  package let scale: Tensor?
  package let zeroPoint: Tensor?
  let fixed: Grid?

  /// - Parameter scheme: per token.
  public init(dynamic scheme: ActivationScheme) {
    precondition(!scheme.isStatic, "a static scheme needs the range of the activations")
    self.scheme = scheme
    (scale, zeroPoint, fixed) = (nil, nil, nil)
  }

  /// A grid over the range that calibration saw.
  ///
  /// - Parameters:
  ///   - scheme: per tensor.
  ///   - range: smallest and largest activation; symmetric grids take the larger magnitude.
  ///   - scaleType: the scale is rounded to it.
  /// - Throws: `CodecError.wrongValue` for a range that is not finite or overflows the type.
  public init(
    static scheme: ActivationScheme, range: ClosedRange<Float>, scaleType: DType = .float32
  ) throws(CodecError) {
    precondition(scheme.isStatic, "a dynamic scheme has no range of its own")
    let grid = Self.grid(scheme, min(range.lowerBound, 0), max(range.upperBound, 0))
    let scale = Tensor([grid.scale], shape: [1]).converted(to: scaleType)
    var components = [Self.scaleSuffix: scale]
    if !scheme.isSymmetric {
      components[Self.zeroPointSuffix] = Tensor(dtype: .int8, shape: [1]) {
        $0.storeBytes(of: Int8(grid.zero), as: Int8.self)
      }
    }
    try self.init(scheme, components: components)
  }

  /// - Parameter components: the layer's stored tensors by suffix; others than `input_scale` and
  ///   `input_zero_point` do not matter.
  /// - Throws: `CodecError` naming the component that is absent or of no use.
  public init(
    _ scheme: ActivationScheme, components: [String: Tensor]
  ) throws(CodecError) {
    self.scheme = scheme
    guard scheme.isStatic else {
      (scale, zeroPoint, fixed) = (nil, nil, nil)
      return
    }
    guard let scale = components[Self.scaleSuffix] else {
      throw .missing(component: Self.scaleSuffix)
    }
    guard [.float32, .float16, .bfloat16].contains(scale.dtype) else {
      throw .wrongType(component: Self.scaleSuffix, expected: "F32", actual: scale.dtype)
    }
    guard scale.count == 1 else {
      throw .wrongShape(component: Self.scaleSuffix, expected: [1], actual: scale.shape)
    }
    var grid = Grid(scale: scale.widened().array[0])
    guard grid.scale.isFinite, grid.scale > 0 else {
      throw .wrongValue(component: Self.scaleSuffix, reason: "the scale is \(grid.scale)")
    }
    self.scale = scale
    guard !scheme.isSymmetric else {
      (zeroPoint, fixed) = (nil, grid)
      return
    }
    guard let zero = components[Self.zeroPointSuffix] else {
      throw .missing(component: Self.zeroPointSuffix)
    }
    guard zero.dtype == .int8 else {
      throw .wrongType(component: Self.zeroPointSuffix, expected: "I8", actual: zero.dtype)
    }
    guard zero.count == 1 else {
      throw .wrongShape(component: Self.zeroPointSuffix, expected: [1], actual: zero.shape)
    }
    grid.zero = Float(zero.bytes.load(as: Int8.self))
    (zeroPoint, fixed) = (zero, grid)
  }

  /// The stored tensors in a fixed order, named by their suffix after the module's path and a dot.
  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    (scale.map { [(Self.scaleSuffix, $0)] } ?? [])
      + (zeroPoint.map { [(Self.zeroPointSuffix, $0)] } ?? [])
  }

  static func grid(_ scheme: ActivationScheme, _ lowest: Float, _ highest: Float) -> Grid {
    let (low, high) = (Float(scheme.lowestCode), Float(scheme.highestCode))
    func positive(_ scale: Float) -> Float { scale == 0 ? Float.ulpOfOne : scale }
    if scheme.isSymmetric {
      return Grid(scale: positive(max(-lowest, highest) / ((high - low) / 2)))
    }
    let scale = positive((highest - lowest) / (high - low))
    let zero = (low - lowest / scale).rounded(.toNearestOrEven)
    return Grid(scale: scale, zero: min(max(zero, low), high))
  }

  /// The grid of one token.
  func grid(of x: UnsafePointer<Float>, _ count: Int) -> Grid {
    if let fixed { return fixed }
    var (lowest, highest): (Float, Float) = (0, 0)
    pare_range_with_zero(x, count, &lowest, &highest)
    return Self.grid(scheme, lowest, highest)
  }
}
