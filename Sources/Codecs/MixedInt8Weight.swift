public import Tensors

/// A matrix of LLM.int8(): one signed byte per weight and a scale per row, multiplied by tokens that
/// are rounded to bytes too, except for the few input columns whose activations are large (Dettmers
/// et al. 2022, arXiv:2208.07339, §3):
///
///     Y = s_x ⊗ s_w ∘ (q_x · q_wᵀ)  over regular columns   +   X_O · W_Oᵀ  over outlier columns
///
/// with `s_x = max|x| / 127` of a token's regular columns and `s_w = max|w| / 127` of a row. Outlier
/// activations are not rounded.
public struct MixedInt8Weight: StoredWeight {
  /// Which columns are outliers.
  public enum Outliers: Sendable {
    /// Those where any of the tokens multiplied together exceeds the threshold in magnitude; their
    /// weights are read from the codes. What a token gives then depends on the tokens beside it.
    case above(threshold: Float)
    /// Always the same, with weights of their own in 16 bits `[outputs, columns.count]`; their codes
    /// are zeros. Columns rise.
    case columns([Int], weights: Tensor)
  }

  /// Codes `[outputs, inputs]` with a float32 scale per row.
  package let codes: GroupQuantizedWeight
  /// The same codes in the form in which bytes multiply bytes; `codes` otherwise.
  package let packedCodes: PackedWeight?
  public let outliers: Outliers

  public static let defaultThreshold: Float = 6

  public var outputs: Int { codes.outputs }
  public var inputs: Int { codes.inputs }

  package init(codes: GroupQuantizedWeight, outliers: Outliers, packed: PackedWeight? = nil) {
    if case .columns(let columns, let weights) = outliers {
      precondition(weights.shape == [codes.outputs, columns.count])
      precondition(zip(columns, columns.dropFirst()).allSatisfy { $0 < $1 })
      precondition(columns.allSatisfy { $0 >= 0 && $0 < codes.inputs })
    }
    self.codes = codes
    self.outliers = outliers
    packedCodes = packed
  }

  /// The codec of the codes.
  package static func codec() throws(CodecError) -> AffineGroups {
    try AffineGroups(bits: 8, granularity: .channel, scaleType: .float32, layout: .int8)
  }

  /// Rounds a matrix.
  ///
  /// - Parameters:
  ///   - weight: `[outputs, inputs]` of any floating-point type.
  ///   - threshold: of activations, for outliers that are found when they come.
  /// - Returns: the weight and how far it lies from the matrix.
  package static func encode(
    _ weight: Tensor, threshold: Float
  ) throws(CodecError) -> (weight: MixedInt8Weight, error: EncodingError) {
    let (codes, error) = try codec().encode(weight, choosing: .given(grids(weight)))
    return (MixedInt8Weight(codes: codes, outliers: .above(threshold: threshold)), error)
  }

  /// Rounds a matrix except for some columns.
  ///
  /// - Parameter columns: rising; kept in the matrix's own type if that has 16 bits, else in float16.
  package static func encode(
    _ weight: Tensor, keeping columns: [Int]
  ) throws(CodecError) -> (weight: MixedInt8Weight, error: EncodingError) {
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let wide = weight.widened()
    defer { withExtendedLifetime(wide) {} }
    let type = weight.dtype == .bfloat16 ? DType.bfloat16 : .float16
    let own = Tensor(shape: [outputs, columns.count]) { target in
      for row in 0..<outputs {
        for (at, column) in columns.enumerated() {
          target[row * columns.count + at] = wide.floats[row * inputs + column]
        }
      }
    }
    let kept = own.converted(to: type)
    let rest = Tensor(shape: [outputs, inputs]) { target in
      guard let base = target.baseAddress else { return }
      base.update(from: wide.floats, count: outputs * inputs)
      for row in 0..<outputs {
        for column in columns { base[row * inputs + column] = 0 }
      }
    }
    var (codes, error) = try codec().encode(rest, choosing: .given(grids(rest)))
    for (exact, stored) in zip(own.array, kept.widened().array) {
      guard stored.isFinite else {
        throw .unsupportedSetting("an outlier column holds \(exact), which float16 cannot.")
      }
      let gap = exact - stored
      error.squaredError += Double(gap) * Double(gap)
      error.squaredWeight += Double(exact) * Double(exact)
      error.largestError = max(error.largestError, abs(gap))
    }
    return (
      MixedInt8Weight(codes: codes, outliers: .columns(columns, weights: kept)), error
    )
  }

  /// `max|w| / 127` of each row; 1 for a row of zeros.
  private static func grids(_ weight: Tensor) -> AffineGrids {
    let scales = (0..<weight.shape[0]).map { row in
      let largest = weight.rows(row..<(row + 1)).widened().array.reduce(Float(0)) {
        max($0, abs($1))
      }
      return largest > 0 ? largest / 127 : 1
    }
    return AffineGrids(
      scales: scales, zeros: [Int8](repeating: 0, count: scales.count), perRow: 1)
  }

  /// Ready to multiply bytes by bytes. Mapped codes' pages go back to their file.
  /// - Returns: nil where the number of columns is not a multiple of 32.
  package var packed: MixedInt8Weight? {
    guard let packed = PackedWeight(packing: codes) else { return nil }
    return MixedInt8Weight(codes: codes, outliers: outliers, packed: packed)
  }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    if let packedCodes {
      packedCodes.dequantizeRows(range, into: target)
    } else {
      codes.dequantizeRows(range, into: target)
    }
    guard case .columns(let columns, let weights) = outliers, !range.isEmpty else { return }
    let own = weights.rows(range).widened().array
    for row in 0..<range.count {
      for (at, column) in columns.enumerated() {
        target[row * inputs + column] = own[row * columns.count + at]
      }
    }
  }

  public func giveBack() { codes.giveBack() }

  // MARK: Stored form

  private enum Suffix {
    static let columns = "weight_outlier_columns"
    static let outliers = "weight_outliers"
  }

  /// `weight` and `weight_scale` as compressed-tensors' `int-quantized` has them; with outlier columns
  /// of their own also `weight_outlier_columns` (int32) and `weight_outliers`. A threshold is a
  /// setting of the model.
  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    guard case .columns(let columns, let weights) = outliers else { return codes.encoded() }
    let places = Tensor(dtype: .int32, shape: [columns.count]) { bytes in
      for (at, column) in columns.enumerated() {
        bytes.storeBytes(of: Int32(column), toByteOffset: at * 4, as: Int32.self)
      }
    }
    return codes.encoded() + [(Suffix.columns, places), (Suffix.outliers, weights)]
  }

  /// Builds a weight from its stored tensors; nothing is copied.
  ///
  /// - Parameter threshold: where no outlier columns are stored.
  /// - Throws: `CodecError` naming the component that is absent or does not fit.
  public init(
    components: [String: Tensor], threshold: Float = Self.defaultThreshold
  ) throws(CodecError) {
    var rest = components
    let places = rest.removeValue(forKey: Suffix.columns)
    let weights = rest.removeValue(forKey: Suffix.outliers)
    let codes = try Self.codec().decode(rest)
    guard let places else {
      if weights != nil { throw .missing(component: Suffix.columns) }
      self.init(codes: codes, outliers: .above(threshold: threshold))
      return
    }
    guard let weights else { throw .missing(component: Suffix.outliers) }
    guard places.dtype == .int32 else {
      throw .wrongType(component: Suffix.columns, expected: "I32", actual: places.dtype)
    }
    guard weights.dtype == .float16 || weights.dtype == .bfloat16 else {
      throw .wrongType(component: Suffix.outliers, expected: "F16", actual: weights.dtype)
    }
    guard weights.shape == [codes.outputs, places.count] else {
      throw .wrongShape(
        component: Suffix.outliers, expected: [codes.outputs, places.count], actual: weights.shape)
    }
    let columns = (0..<places.count).map {
      Int(places.bytes.loadUnaligned(fromByteOffset: $0 * 4, as: Int32.self))
    }
    guard columns.allSatisfy({ $0 >= 0 && $0 < codes.inputs }),
      zip(columns, columns.dropFirst()).allSatisfy({ $0 < $1 })
    else {
      throw .wrongValue(component: Suffix.columns, reason: "columns do not rise inside the matrix")
    }
    self.init(codes: codes, outliers: .columns(columns, weights: weights))
  }
}
