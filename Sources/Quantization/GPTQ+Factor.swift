package import Calibration
import LinearAlgebra
import Tensors

extension GPTQ {
  /// What the inputs' second moment says, made ready for rounding any matrix of these inputs.
  package struct Factor: Sendable {
    /// Nil when no input was ever seen.
    package let solver: Solver?
    package let notes: [String]
  }

  /// U and what goes with it.
  package struct Solver: Sendable {
    /// `[inputs, inputs]` upper triangular, UᵀU = H⁻¹; row i belongs to column `order[i]`.
    let upper: Tensor
    /// Columns in the order they are rounded.
    package let order: [Int]
    /// Columns whose inputs were always zero.
    package let isDead: [Bool]
    /// λ.
    package let damping: Double
    /// `XᵀX / tokens`.
    let moment: Tensor
    /// What GPTAQ adds to the weights: `weight · shift`, rows and columns as they lie.
    var shift: Tensor?
  }

  /// Factorizes the damped second moment.
  /// - Throws: `.notPositiveDefinite` at the end of the ladder.
  package func factor(_ statistics: InputStatistics) throws(CompressionError) -> Factor {
    try checkSettings()
    guard let moment = statistics.secondMoment else {
      preconditionFailure("GPTQ needs the second moment of the inputs")
    }
    let n = statistics.inputs
    precondition(moment.shape == [n, n])
    let diagonal = (0..<n).map { moment.floats[$0 * n + $0] }
    guard diagonal.allSatisfy(\.isFinite) else { throw .notPositiveDefinite(damping: damping) }
    let isDead = diagonal.map { $0 == 0 }
    let alive = diagonal.filter { $0 != 0 }
    var notes: [String] = []
    guard !alive.isEmpty else {
      return Factor(
        solver: nil,
        notes: [
          "no calibration token gave this matrix an input other than zero; "
            + "its weights were rounded to nearest."
        ])
    }
    let mean = alive.reduce(0.0) { $0 + Double($1) } / Double(alive.count)
    let columns = order == .none ? nil : Self.falling(diagonal)

    var relative = damping
    while true {
      let lambda = Float(relative * mean)
      let added = isDead.map { $0 ? Float(mean) : lambda }
      do {
        let upper = try Cholesky.inverseUpper(of: moment, order: columns, adding: added)
        if relative != damping {
          notes.append(
            "the inputs' second moment had no Cholesky factor with damping \(damping); "
              + "\(relative) was used.")
        }
        let solver = Solver(
          upper: upper, order: columns ?? Array(0..<n), isDead: isDead, damping: Double(lambda),
          moment: moment)
        return Factor(solver: solver, notes: notes)
      } catch {
        let next = relative == 0 ? 0.0001 : relative * 10
        guard next <= 1.0001 else { throw .notPositiveDefinite(damping: relative) }
        relative = next
      }
    }
  }

  /// Columns by falling diagonal, the earlier first among equals.
  static func falling(_ diagonal: [Float]) -> [Int] {
    diagonal.indices.sorted { (diagonal[$1], $0) < (diagonal[$0], $1) }
  }
}
