public import Calibration
public import Codecs
public import Tensors

/// Each weight goes to the nearest small floating-point number under its group's scale: E4M3 (FP8),
/// NVFP4 or MXFP4.
///
/// `minMax` takes the scale that just covers a group, as the formats define it. `meanSquareError` tries
/// those near it and keeps the one with the smallest sum of squared errors, so it never errs more:
/// E4M3 steps up to half as large again for NVFP4 ("four over six") and as far down, the powers of two
/// beside it for MXFP4, ranges down to 0.55 for FP8.
public struct FloatRounding: WeightMethod, Hashable {
  public enum Scaling: Sendable, Hashable {
    case minMax
    case meanSquareError
  }

  public var codec: FloatGroups
  public var scaling: Scaling

  public init(codec: FloatGroups, scaling: Scaling = .minMax) {
    self.codec = codec
    self.scaling = scaling
  }

  /// - Parameter weight: `[outputs, inputs]`; its file pages are given back afterwards.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    defer { weight.giveBack() }
    do {
      let (compressed, error) = try codec.encode(
        weight, choosing: scaling == .minMax ? .range : .search)
      return CompressedWeight(weight: compressed, error: error)
    } catch {
      throw CompressionError(error)
    }
  }
}
