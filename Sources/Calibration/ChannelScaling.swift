public import Codecs
public import Tensors

/// A way to choose one factor per input channel of matrices that share their input: channel j of the
/// input is divided by `s[j]`, column j of every matrix multiplied by it, so that nothing changes
/// until something is rounded. Who walks the model folds `1 / s` into what produces the input.
public protocol ChannelScaling: Sendable {
  var needs: StatisticsNeeds { get }

  /// - Parameters:
  ///   - consumers: matrices `[outputs, inputs]` in float32, and how each will be rounded; nil for one
  ///     that stays.
  ///   - statistics: of their common input.
  ///   - units: channels of equal number must get equal factors; nil where all are free.
  /// - Returns: `s`, `[inputs]`, positive and finite; nil where leaving the input alone is best.
  func factors(
    of consumers: [(weight: Tensor, codec: AffineGroups?)], _ statistics: InputStatistics,
    units: [Int]?
  ) throws(CompressionError) -> [Float]?
}
