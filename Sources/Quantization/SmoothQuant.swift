public import Calibration
public import Codecs
public import Tensors

/// SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): outliers of activations move into the weights,
/// which are easier to round, by
///
///     s_j = max|X_j|^α / max|W_j|^(1-α)                       (equation 4)
///
/// over all matrices that read the input. Without a strength, α is searched per input: where 8-bit
/// tokens times 8-bit matrices come closest to the exact outputs.
public struct SmoothQuant: ChannelScaling, Hashable {
  /// α; nil searches it.
  public var strength: Double?
  /// Exponents tried by the search: `i / grid`, both ends included.
  public var grid = 20

  public init(strength: Double? = 0.5) { self.strength = strength }

  public var needs: StatisticsNeeds { strength == nil ? [.magnitudes, .samples] : [.magnitudes] }

  public func factors(
    of consumers: [(weight: Tensor, codec: AffineGroups?)], _ statistics: InputStatistics,
    units: [Int]?
  ) throws(CompressionError) -> [Float]? {
    let x = UnitMeans.largest(statistics.largestMagnitude, units)
    let w = UnitMeans.largest(Self.largestWeights(consumers.map(\.weight)), units)
    if let strength {
      guard (0...1).contains(strength) else {
        throw .unsupportedSetting("a smoothing strength of \(strength) is not within 0 to 1.")
      }
      return Self.factors(x, w, Float(strength))
    }
    guard let samples = statistics.samples else { preconditionFailure("the search needs samples") }
    let exact = consumers.map { samples.multiplied(byTransposeOf: $0.weight) }
    var best: (loss: Double, s: [Float]?) = (
      try Self.loss(consumers, samples, exact, nil), nil
    )
    for step in 0...grid {
      let s = Self.factors(x, w, Float(step) / Float(grid))
      let loss = try Self.loss(consumers, samples, exact, s)
      if loss < best.loss { best = (loss, s) }
    }
    return best.s
  }

  private static func factors(_ x: [Float], _ w: [Float], _ alpha: Float) -> [Float] {
    zip(x, w).map { x, w in
      let s = power(max(x, 1e-5), alpha) / power(max(w, 1e-5), 1 - alpha)
      return s.isFinite ? min(max(s, 1e-5), 1e5) : 1
    }
  }

  /// `max|W_j|` over the rows of all matrices.
  private static func largestWeights(_ weights: [Tensor]) -> [Float] {
    var largest = [Float](repeating: 0, count: weights.first?.columns ?? 0)
    for weight in weights {
      for row in 0..<weight.rows {
        let values = weight.floats + row * weight.columns
        for column in largest.indices {
          largest[column] = max(largest[column], abs(values[column]))
        }
      }
    }
    return largest
  }

  /// Squared distance of rounded tokens times rounded matrices from the exact outputs.
  private static func loss(
    _ consumers: [(weight: Tensor, codec: AffineGroups?)], _ samples: Tensor, _ exact: [Tensor],
    _ s: [Float]?
  ) throws(CompressionError) -> Double {
    let tokens = roundedTokens(
      s.map { s in samples.scalingColumns(by: s.map { 1 / $0 }) } ?? samples)
    var loss = 0.0
    for (consumer, wanted) in zip(consumers, exact) {
      guard let codec = consumer.codec else { continue }
      let scaled = s.map { consumer.weight.scalingColumns(by: $0) } ?? consumer.weight
      let rounded = try RoundToNearest(codec: codec).compress(scaled).weight.dequantized()
      loss += tokens.multiplied(byTransposeOf: rounded).squaredDistance(to: wanted)
    }
    return loss
  }

  /// Each row on the symmetric 8-bit grid of its largest value.
  private static func roundedTokens(_ x: Tensor) -> Tensor {
    let columns = x.columns
    return Tensor(shape: x.shape) { target in
      for row in 0..<x.rows {
        let values = x.floats + row * columns
        let largest = (0..<columns).reduce(Float(0)) { max($0, abs(values[$1])) }
        let scale = max(largest / 127, .leastNormalMagnitude)
        for column in 0..<columns {
          target[row * columns + column] =
            min(max((values[column] / scale).rounded(.toNearestOrEven), -127), 127) * scale
        }
      }
    }
  }
}
