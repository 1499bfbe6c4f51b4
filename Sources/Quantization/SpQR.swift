public import Calibration
public import Codecs
import LinearAlgebra
public import Tensors

/// Low-bit groups with low-bit scales, and the few weights they cannot hold kept apart in 16 bits.
/// Dettmers et al. 2023, SpQR, arXiv:2306.03078, Algorithm 1.
///
/// Columns are rounded in order, later ones absorbing each error (`ErrorFeedback`). Before a group of 16
/// columns is rounded, each of its weights is judged: how much smaller would the group's error
/// `Σ (w - ŵ)² / U[j, j]²` be if this weight were kept and the grid fitted to the others? Weights that
/// save more than a threshold do not shape the grid. Scales and zero points are rounded to 3 bits
/// themselves, 16 rows together, before any weight is. A weight whose own error then exceeds the threshold
/// becomes an outlier: what its code misses is stored beside it.
///
/// The threshold is relative to `mean over j of variance(W[:, j]) / U[j, j]²`. For a share of
/// outliers it is found from the savings of all weights before any is rounded.
public struct SpQR: WeightMethod, Hashable {
  public enum Outliers: Sendable, Hashable {
    case none
    /// Errors above this many times the mean variance over U's squared diagonal.
    case threshold(Double)
    /// About this share of all weights.
    case share(Double)
  }

  public var settings: BilevelWeight.Settings
  public var outliers: Outliers
  /// Share of the mean diagonal added to the diagonal of the second moment.
  public var damping: Double
  /// Whether columns with the largest inputs are rounded first.
  public var sortsByActivity: Bool
  /// Type of the outliers: float32, bfloat16 or float16.
  public var outlierType: DType

  public init(
    settings: BilevelWeight.Settings, outliers: Outliers = .threshold(0.2), damping: Double = 1,
    sortsByActivity: Bool = true, outlierType: DType = .float16
  ) {
    self.settings = settings
    self.outliers = outliers
    self.damping = damping
    self.sortsByActivity = sortsByActivity
    self.outlierType = outlierType
  }

  public var needs: StatisticsNeeds { .secondMoment }

  /// Columns after which the errors of all are passed on at once, in whole groups.
  private var blockSize: Int { max(128 / settings.groupSize, 1) * settings.groupSize }

  /// - Parameter weight: `[outputs, inputs]`; its file pages are given back afterwards.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    defer { weight.giveBack() }
    let original = try weight.finiteMatrix()
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let feedback = try ErrorFeedback(
      statistics, damping: damping, sortsByActivity: sortsByActivity)
    var W = feedback.arranged(original, outputs: outputs)  // [out, in]
    let U = feedback.factor  // [in, in]
    let threshold = try threshold(W, outputs, U, inputs)
    let rounding = SpQRRounding(
      settings: settings, outputs: outputs, inputs: inputs, threshold: threshold,
      outlierType: outlierType)

    for start in stride(from: 0, to: inputs, by: blockSize) {
      let end = min(start + blockSize, inputs)
      var E = [Double](repeating: 0, count: outputs * (end - start))
      W.withUnsafeMutableBufferPointer { w in
        E.withUnsafeMutableBufferPointer { e in
          U.withUnsafeBufferPointer { u in
            guard let w = w.baseAddress, let e = e.baseAddress, let u = u.baseAddress else {
              return
            }
            rounding.round(start..<end, w, u, errors: e)
            DoubleProduct.subtract(
              outputs, inputs - end, end - start, e, end - start, u + start * inputs + end, inputs,
              from: w + end, inputs)
          }
        }
      }
    }
    return try rounding.finish(weight, statistics, order: sortsByActivity ? feedback.order : nil)
  }

  /// The saving above which a weight is an outlier.
  private func threshold(_ w: [Double], _ outputs: Int, _ u: [Double], _ inputs: Int)
    throws(CompressionError) -> Double
  {
    let wrong = CompressionError.unsupportedSetting(
      "outliers \(outliers) are not possible; choose a threshold above 0 or a share below 1.")
    switch outliers {
    case .none: return .infinity
    case .threshold(let relative):
      guard relative > 0 else { throw wrong }
      let sizes = Parallel.map(inputs) { column in
        var (sum, squares) = (0.0, 0.0)
        for row in 0..<outputs {
          let value = w[row * inputs + column]
          sum += value
          squares += value * value
        }
        // As sample variance, which a single row has none of.
        let variance = (squares - sum * sum / Double(outputs)) / Double(max(outputs - 1, 1))
        let diagonal = u[column * inputs + column]
        return max(variance, 0) / (diagonal * diagonal)
      }
      let mean = sizes.reduce(0, +) / Double(max(inputs, 1))
      return mean > 0 ? relative * mean : .infinity
    case .share(let share):
      guard share > 0, share < 1 else { throw wrong }
      let size = settings.groupSize
      let savings = Parallel.map(outputs) { row in
        stride(from: 0, to: inputs, by: size).flatMap { start in
          let columns = start..<min(start + size, inputs)
          return SpQRGrid.savings(
            columns.map { w[row * inputs + $0] }, columns.map { u[$0 * inputs + $0] },
            bits: settings.bits)
        }
      }
      let sorted = savings.flatMap { $0 }.sorted(by: >)
      let count = Int((share * Double(sorted.count)).rounded())
      guard count > 0, count < sorted.count, sorted[count] > 0 else { return .infinity }
      return sorted[count]
    }
  }
}

/// The asymmetric grid of a group: `ŵ = scale · (code - zero)`.
struct SpQRGrid: Sendable {
  var scale: Double
  var zero: Double
  let highest: Double

  /// The grid over the range of some weights and 0.
  init(_ values: some Collection<Double>, bits: Int) {
    highest = Double((1 << bits) - 1)
    let low = values.reduce(0) { min($0, $1) }
    let high = values.reduce(0) { max($0, $1) }
    scale = (high - low) / highest
    zero = scale > 0 ? -low / scale : 0
  }

  init(scale: Double, zero: Double, bits: Int) {
    (self.scale, self.zero) = (scale, zero)
    highest = Double((1 << bits) - 1)
  }

  func code(_ value: Double) -> Double {
    guard scale > 0, scale.isFinite, value.isFinite else { return 0 }
    return min(max((value / scale + zero).rounded(.toNearestOrEven), 0), highest)
  }

  func error(_ value: Double) -> Double { scale * (code(value) - zero) - value }

  /// How much smaller `Σ ((w - ŵ) / d)²` is for each weight when the grid is fitted to the others and
  /// the weight itself is kept exactly.
  static func savings(_ values: [Double], _ diagonal: [Double], bits: Int) -> [Double] {
    func loss(_ grid: SpQRGrid, without left: Int?) -> Double {
      var sum = 0.0
      for index in values.indices where index != left {
        let error = grid.error(values[index]) / diagonal[index]
        sum += error * error
      }
      return sum
    }
    let whole = SpQRGrid(values, bits: bits)
    let base = loss(whole, without: nil)
    // Only the ends of the range change the grid.
    let (low, high) = (values.min() ?? 0, values.max() ?? 0)
    return values.indices.map { index in
      let value = values[index]
      guard value == low || value == high else {
        let error = whole.error(value) / diagonal[index]
        return error * error
      }
      var others = values
      others.remove(at: index)
      return base - loss(SpQRGrid(others, bits: bits), without: index)
    }
  }
}
