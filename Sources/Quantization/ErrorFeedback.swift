import Calibration
import LinearAlgebra
import Tensors

/// What methods that round columns in order and let later ones absorb the errors share: the inverse of
/// the inputs' second moment in factored form.
///
/// With `H = XᵀX / tokens + damping · mean(diag H) · I` and the upper triangular U of `H⁻¹ = Uᵀ · U`,
/// rounding the columns B of W with all before them fixed, and changing those after them by
/// `-E · U[B, later]` where `E · U[B, B] = W[:, B] - Ŵ[:, B]`, is the best that can be done (Frantar et
/// al. 2022, arXiv:2210.17323, section 3).
struct ErrorFeedback {
  /// Columns in the order they are rounded.
  let order: [Int]
  /// U, `[inputs, inputs]`, row by row, in that order.
  let factor: [Double]
  /// Columns whose inputs were always zero; their weights do not matter and become zero.
  let deadColumns: [Bool]
  var inputs: Int { order.count }

  /// - Parameter sortsByActivity: whether columns with the largest mean square come first ("act-order").
  init(_ statistics: InputStatistics, damping: Double, sortsByActivity: Bool)
    throws(CompressionError)
  {
    guard damping >= 0, damping.isFinite else {
      throw .unsupportedSetting("a damping of \(damping) is not possible; choose 0 or more.")
    }
    guard let moment = statistics.secondMoment else {
      preconditionFailure("the second moment that `needs` names")
    }
    let n = statistics.inputs
    let values = moment.array
    let diagonal = (0..<n).map { Double(values[$0 * n + $0]) }
    let dead = diagonal.map { $0 == 0 }
    let mean = diagonal.reduce(0, +) / Double(max(n, 1))
    // Equal columns keep their order, so that results do not depend on the sort.
    let order =
      sortsByActivity
      ? (0..<n).sorted { (diagonal[$0], $1) > (diagonal[$1], $0) } : Array(0..<n)
    let added = dead.map { Float(damping * mean + ($0 ? max(mean, 1) : 0)) }
    do throws(NotPositiveDefinite) {
      factor = try Cholesky.inverseUpper(of: moment, order: order, adding: added).array
        .map(Double.init)
    } catch {
      throw .notPositiveDefinite(damping: damping)
    }
    self.order = order
    deadColumns = dead
  }

  /// The matrix with its columns in order, dead ones zero.
  func arranged(_ weight: [Double], outputs: Int) -> [Double] {
    let n = inputs
    var result = [Double](repeating: 0, count: outputs * n)
    for place in 0..<n where !deadColumns[order[place]] {
      for row in 0..<outputs { result[row * n + place] = weight[row * n + order[place]] }
    }
    return result
  }
}
