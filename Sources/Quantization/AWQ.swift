public import Calibration
public import Codecs
public import Tensors

/// Activation-aware weight quantization (Lin et al. 2023, arXiv:2306.00978): channels that large
/// activations pass are multiplied up before rounding, so that their relative error shrinks
/// (section 3.2), by
///
///     s_X = mean |X|, per channel
///     s   = s_X^α        α* = argmin ‖Q(W diag(s)) (diag(s)⁻¹ X) - WX‖²    over a grid in [0, 1)
///
/// The factors are divided by √(max s · min s). With `usesWeights` they are `s_X^α / s_W^(1-α)` with
/// s_W the channel's mean share of its group's largest weight (AutoAWQ's "duo scaling").
public struct AWQ: ChannelScaling, Hashable {
  /// Exponents tried: `i / grid` for `i` below it.
  public var grid = 20
  public var usesWeights = false

  public init() {}

  public var needs: StatisticsNeeds { [.magnitudes, .samples] }

  public func factors(
    of consumers: [(weight: Tensor, codec: AffineGroups?)], _ statistics: InputStatistics,
    units: [Int]?
  ) throws(CompressionError) -> [Float]? {
    guard grid >= 1 else {
      throw .unsupportedSetting("a grid of \(grid) exponents is not possible; choose 1 or more.")
    }
    guard let x = statistics.samples else { preconditionFailure("AWQ looks at samples") }
    let sX = UnitMeans.of(statistics.meanMagnitude, units)
    let sW = usesWeights ? UnitMeans.of(Self.weightShares(consumers), units) : nil
    let exact = consumers.map { x.multiplied(byTransposeOf: $0.weight) }
    var best: (loss: Double, s: [Float]?) = (.infinity, nil)
    for step in 0..<grid {
      let alpha = Float(step) / Float(grid)
      guard let s = Self.normalized(sX, sW, alpha) else { continue }
      let inverse = s.map { 1 / $0 }
      let scaled = x.scalingColumns(by: inverse)
      var loss = 0.0
      for (consumer, wanted) in zip(consumers, exact) {
        guard let codec = consumer.codec else { continue }
        let rounded = try RoundToNearest(codec: codec)
          .compress(consumer.weight.scalingColumns(by: s)).weight
        loss += scaled.multiplied(byTransposeOf: rounded.dequantized()).squaredDistance(to: wanted)
      }
      if loss < best.loss { best = (loss, s.allSatisfy { $0 == 1 } ? nil : s) }
    }
    return best.s
  }

  /// `s_X^α`, or `s_X^α / s_W^(1-α)`, between 1e-4 and its centre; nil where that is not finite.
  private static func normalized(_ sX: [Float], _ sW: [Float]?, _ alpha: Float) -> [Float]? {
    var s = sX.map { max(power($0, alpha), 1e-4) }
    if let sW {
      for (channel, share) in sW.enumerated() {
        s[channel] = max(s[channel] / power(share + 1e-4, 1 - alpha), 1e-4)
      }
    }
    let centre = ((s.max() ?? 1) * (s.min() ?? 1)).squareRoot()
    guard centre.isFinite, centre > 0 else { return nil }
    return s.map { $0 / centre }
  }

  /// Mean over all rows of |w| as a share of the largest in its group.
  private static func weightShares(_ consumers: [(weight: Tensor, codec: AffineGroups?)])
    -> [Float]
  {
    let inputs = consumers.first?.weight.columns ?? 0
    var sums = [Double](repeating: 0, count: inputs)
    var rows = 0
    for (weight, codec) in consumers {
      let group = codec?.groupSize(inputs: inputs) ?? inputs
      rows += weight.rows
      for row in 0..<weight.rows {
        let values = weight.floats + row * inputs
        for start in stride(from: 0, to: inputs, by: group) {
          let columns = start..<min(start + group, inputs)
          let largest = columns.reduce(Float(1e-6)) { max($0, abs(values[$1])) }
          for column in columns { sums[column] += Double(abs(values[column]) / largest) }
        }
      }
    }
    return sums.map { Float($0 / Double(max(rows, 1))) }
  }
}

/// Means over channels that must get equal factors.
enum UnitMeans {
  static func of(_ values: [Float], _ units: [Int]?) -> [Float] {
    guard let units else { return values }
    var sums: [Int: (sum: Double, count: Int)] = [:]
    for (channel, unit) in units.enumerated() {
      let known = sums[unit] ?? (0, 0)
      sums[unit] = (known.sum + Double(values[channel]), known.count + 1)
    }
    return units.map { unit in
      sums[unit].map { Float($0.sum / Double($0.count)) } ?? 0
    }
  }

  /// The largest of each unit.
  static func largest(_ values: [Float], _ units: [Int]?) -> [Float] {
    guard let units else { return values }
    var peaks: [Int: Float] = [:]
    for (channel, unit) in units.enumerated() {
      peaks[unit] = max(peaks[unit] ?? 0, values[channel])
    }
    return units.map { peaks[$0] ?? 0 }
  }
}
