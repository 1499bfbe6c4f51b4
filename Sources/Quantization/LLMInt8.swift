public import Calibration
public import Codecs
public import Tensors

/// Vector-wise 8 bits with outlier columns left in 16 bits (Dettmers et al. 2022, arXiv:2208.07339).
///
/// A row of the matrix has the scale `max|w| / 127`, a token of the input the scale `max|x| / 127` of
/// its regular columns. Input columns with a magnitude above the threshold (6.0 in the paper, §3.2) are
/// multiplied apart and not rounded: a few columns of a large model are that large in most tokens,
/// and one scale for them and the rest would leave the rest no bits.
public struct LLMInt8: WeightMethod, Hashable {
  /// How outlier columns are found.
  public enum Outliers: String, Sendable, Hashable, CaseIterable {
    /// In the tokens that are multiplied together, when they come, as bitsandbytes does. Their
    /// weights have 8 bits like all others.
    case dynamic
    /// In the calibration's largest magnitudes, once. Their weights keep 16 bits, and what a token gives
    /// does not depend on those beside it.
    case calibrated
  }

  public var threshold: Float
  public var outliers: Outliers

  public init(
    threshold: Float = MixedInt8Weight.defaultThreshold, outliers: Outliers = .dynamic
  ) {
    self.threshold = threshold
    self.outliers = outliers
  }

  public var needs: StatisticsNeeds { outliers == .calibrated ? [.magnitudes] : [] }

  /// - Returns: a `MixedInt8Weight`; its notes say how many columns were kept.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    guard threshold > 0, threshold.isFinite else {
      throw .unsupportedSetting(
        "a threshold of \(threshold) leaves nothing to round; choose one above 0, 6 as a rule.")
    }
    defer { weight.giveBack() }
    do {
      switch outliers {
      case .dynamic:
        let (mixed, error) = try MixedInt8Weight.encode(weight, threshold: threshold)
        return CompressedWeight(weight: mixed, error: error)
      case .calibrated:
        precondition(statistics.inputs == weight.columns)
        let columns = statistics.largestMagnitude.indices.filter {
          statistics.largestMagnitude[$0] > threshold
        }
        let (mixed, error) = try MixedInt8Weight.encode(weight, keeping: columns)
        let note =
          "\(columns.count) of \(weight.columns) input columns exceed \(threshold) and keep 16 bits"
        return CompressedWeight(
          weight: mixed, error: error, notes: columns.isEmpty ? [] : [note])
      }
    } catch {
      throw CompressionError(error)
    }
  }
}
