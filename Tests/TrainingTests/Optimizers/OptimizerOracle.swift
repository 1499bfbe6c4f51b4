import Foundation
import Training

/// One parameter's steps in double, written from the papers, element by element or matrix by matrix.
struct OptimizerOracle {
  var weights: [Double]
  let shape: [Int]
  let decays: Bool
  let isBlockMatrix: Bool
  private var first: [Double]
  private var second: [Double]
  private var t = 0.0

  init(weights: [Float], shape: [Int], decays: Bool, isBlockMatrix: Bool) {
    self.weights = weights.map(Double.init)
    self.shape = shape
    self.decays = decays
    self.isBlockMatrix = isBlockMatrix
    first = [Double](repeating: 0, count: weights.count)
    second = first
  }

  mutating func step(_ choice: OptimizerChoice, gradient: [Float], factor: Double) {
    t += 1
    let g = gradient.map(Double.init)
    switch choice {
    case .adamW(let s): adamW(s, g, factor)
    case .sgd(let s):
      for i in weights.indices {
        let gradient = g[i] + (decays ? s.weightDecay * weights[i] : 0)
        first[i] = t == 1 ? gradient : s.momentum * first[i] + (1 - s.dampening) * gradient
        let step = s.isNesterov ? gradient + s.momentum * first[i] : first[i]
        weights[i] -= s.learningRate * factor * (s.momentum == 0 ? gradient : step)
      }
    case .lion(let s):
      for i in weights.indices {
        let c = s.beta1 * first[i] + (1 - s.beta1) * g[i]
        let sign = c == 0 ? 0 : c / abs(c)
        let decay = decays ? s.weightDecay * weights[i] : 0
        weights[i] -= s.learningRate * factor * (sign + decay)
        first[i] = s.beta2 * first[i] + (1 - s.beta2) * g[i]
      }
    case .muon(let s):
      guard isBlockMatrix, shape.count == 2 else { return adamW(s.rest, g, factor) }
      for i in weights.indices { first[i] = s.momentum * first[i] + (1 - s.momentum) * g[i] }
      let direction = Self.newtonSchulz(
        s.isNesterov
          ? first.indices.map { s.momentum * first[$0] + (1 - s.momentum) * g[$0] } : first,
        rows: shape[0], columns: shape[1])
      let (A, B) = (Double(shape[0]), Double(shape[1]))
      let scale = s.scale == .original ? max(1, A / B).squareRoot() : 0.2 * max(A, B).squareRoot()
      for i in weights.indices {
        if decays { weights[i] *= 1 - s.learningRate * factor * s.weightDecay }
        weights[i] -= s.learningRate * factor * scale * direction[i]
      }
    }
  }

  private mutating func adamW(_ s: AdamW, _ g: [Double], _ factor: Double) {
    let rate = s.learningRate * factor
    for i in weights.indices {
      first[i] = s.beta1 * first[i] + (1 - s.beta1) * g[i]
      second[i] = s.beta2 * second[i] + (1 - s.beta2) * g[i] * g[i]
      let m = first[i] / (1 - pow(s.beta1, t)), v = second[i] / (1 - pow(s.beta2, t))
      if decays { weights[i] -= rate * s.weightDecay * weights[i] }
      weights[i] -= rate * m / (v.squareRoot() + s.epsilon)
    }
  }

  /// X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X, always with X Xᵀ on the left, however large.
  static func newtonSchulz(_ G: [Double], rows: Int, columns: Int) -> [Double] {
    func times(_ P: [Double], _ Q: [Double], _ m: Int, _ k: Int, _ n: Int) -> [Double] {
      var R = [Double](repeating: 0, count: m * n)
      for i in 0..<m {
        for l in 0..<k {
          let p = P[i * k + l]
          for j in 0..<n { R[i * n + j] += p * Q[l * n + j] }
        }
      }
      return R
    }
    let norm = G.reduce(0) { $0 + $1 * $1 }.squareRoot()
    var X = G.map { $0 / norm }
    for _ in 0..<5 {
      var transposed = [Double](repeating: 0, count: X.count)
      for i in 0..<rows { for j in 0..<columns { transposed[j * rows + i] = X[i * columns + j] } }
      let gram = times(X, transposed, rows, columns, rows)
      let once = times(gram, X, rows, rows, columns)
      let twice = times(gram, once, rows, rows, columns)
      X = X.indices.map { 3.4445 * X[$0] - 4.7750 * once[$0] + 2.0315 * twice[$0] }
    }
    return X
  }
}
