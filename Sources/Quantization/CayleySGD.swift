package import Tensors

/// Gradient descent among orthogonal matrices, with which SpinQuant (Liu et al. 2024, arXiv:2405.16406)
/// learns rotations. Li, Fuxin and Todorovic 2020, arXiv:2002.01113, algorithm 1.
///
///     M ← β M − dL/dX              Ŵ = M Xᵀ − ½ X (Xᵀ M Xᵀ)      W = Ŵ − Ŵᵀ      M ← W X
///     α = min(rate, 2 q / ‖W‖)     Y = X + α/2 · W (X + Y)       X ← Y
///
/// W is skew-symmetric, so that the Cayley transform (I − α/2 W)⁻¹ (I + α/2 W) is orthogonal. It is
/// found by repeating the last equation, which halves the distance each time as `α/2 ‖W‖ ≤ q = ½`; the
/// authors stop after two rounds and orthogonalize anew now and then. Here one Newton-Schulz round
/// `X (3 I − XᵀX) / 2` after each step takes away what rounds and float32 leave.
package struct CayleySGD: Sendable {
  /// α; SpinQuant's for rotations of whole models.
  package var learningRate = 1.5
  /// β.
  package var momentum = 0.0
  /// Rounds of the fixed point.
  package var rounds = 8

  /// M; nil before the first step.
  private var direction: Tensor?

  package init(learningRate: Double = 1.5, momentum: Double = 0, rounds: Int = 8) {
    precondition(learningRate >= 0 && (0..<1).contains(momentum) && rounds > 0)
    self.learningRate = learningRate
    self.momentum = momentum
    self.rounds = rounds
  }

  /// - Parameters:
  ///   - x: orthogonal, float32 `[n, n]`.
  ///   - gradient: of what shall fall, by x.
  ///   - factor: multiplies the learning rate: the schedule.
  /// - Returns: the next x, orthogonal.
  package mutating func step(_ x: Tensor, gradient: Tensor, factor: Double = 1) -> Tensor {
    let x = x.detached
    precondition(x.shape.count == 2 && x.rows == x.columns && gradient.shape == x.shape)
    var m = gradient.detached.scaled(by: -1)
    if let direction { m = direction.scaled(by: Float(momentum)) + m }
    let mx = Tensor.matmul(m, transposing: x)
    // Xᵀ M Xᵀ, with the first factor from the left last: X (Xᵀ (M Xᵀ)).
    let n = x.rows
    let inner = Tensor.product(n, n, n, x.operand(transposed: true), mx.operand())
    let hat = mx - Tensor.matmul(x, inner).scaled(by: 0.5)
    let skew = hat - Self.transposed(hat)
    direction = Tensor.matmul(skew, x)
    let norm = Self.oneNorm(skew)
    guard norm > 0, norm.isFinite else { return x }
    let alpha = Float(min(learningRate * factor, 1 / (norm + 1e-8)))
    var y = x + (direction ?? x).scaled(by: alpha)
    for _ in 0..<rounds {
      y = x + Tensor.matmul(skew, x + y).scaled(by: alpha / 2)
    }
    return Self.corrected(y)
  }

  /// X (3 I − XᵀX) / 2: an error e of XᵀX becomes one of e².
  private static func corrected(_ x: Tensor) -> Tensor {
    let n = x.rows
    let gram = Tensor.product(n, n, n, x.operand(transposed: true), x.operand())
    return x.scaled(by: 1.5) - Tensor.matmul(x, gram).scaled(by: 0.5)
  }

  private static func transposed(_ x: Tensor) -> Tensor {
    let n = x.rows
    return Tensor(shape: [n, n]) { target in
      for row in 0..<n {
        for column in 0..<n { target[column * n + row] = x.floats[row * n + column] }
      }
    }
  }

  /// The largest sum of magnitudes of a column: not below the largest singular value of a skew matrix.
  private static func oneNorm(_ x: Tensor) -> Double {
    var sums = [Double](repeating: 0, count: x.columns)
    for row in 0..<x.rows {
      for column in 0..<x.columns {
        sums[column] += Double(abs(x.floats[row * x.columns + column]))
      }
    }
    return sums.max() ?? 0
  }
}
