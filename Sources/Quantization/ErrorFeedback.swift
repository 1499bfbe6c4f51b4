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
    let values = moment.floats
    let diagonal = (0..<n).map { Double(values[$0 * n + $0]) }
    let dead = diagonal.map { $0 == 0 }
    let mean = diagonal.reduce(0, +) / Double(max(n, 1))
    // Equal columns keep their order, so that results do not depend on the sort.
    let order =
      sortsByActivity
      ? (0..<n).sorted { (diagonal[$0], $1) > (diagonal[$1], $0) } : Array(0..<n)
    var h = [Double](repeating: 0, count: n * n)
    for row in 0..<n {
      for column in 0..<n {
        h[row * n + column] = Double(values[order[row] * n + order[column]])
      }
      h[row * n + row] += damping * mean + (dead[order[row]] ? max(mean, 1) : 0)
    }
    guard let factor = inverseUpperFactor(h, n) else {
      throw .notPositiveDefinite(damping: damping)
    }
    self.order = order
    self.factor = factor
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

/// The upper triangular U with `H⁻¹ = Uᵀ · U`: the inverse of M in `H = M · Mᵀ`, M upper triangular,
/// which is H's Cholesky factor taken from the last row up.
///
/// - Returns: nil where H is not positive definite.
func inverseUpperFactor(_ h: [Double], _ n: Int) -> [Double]? {
  var m = [Double](repeating: 0, count: n * n)
  for column in (0..<n).reversed() {
    for row in (0...column).reversed() {
      var sum = h[row * n + column]
      for k in column + 1..<max(n, column + 1) { sum -= m[row * n + k] * m[column * n + k] }
      if row == column {
        guard sum > 0, sum.isFinite else { return nil }
        m[row * n + row] = sum.squareRoot()
      } else {
        m[row * n + column] = sum / m[column * n + column]
      }
    }
  }
  // U · M = I, row by row from the left.
  var u = [Double](repeating: 0, count: n * n)
  for row in 0..<n {
    u[row * n + row] = 1 / m[row * n + row]
    for k in row..<n {
      let value = u[row * n + k]
      if k > row { u[row * n + k] = value / m[k * n + k] }
      let factor = u[row * n + k]
      for column in k + 1..<max(n, k + 1) { u[row * n + column] -= factor * m[k * n + column] }
    }
  }
  return u.allSatisfy(\.isFinite) ? u : nil
}
