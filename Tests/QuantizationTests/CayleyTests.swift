import Quantization
import Tensors
import Testing

struct CayleyTests {
  private static func random(_ n: Int, _ seed: UInt64) -> Tensor {
    var random = Xoshiro256(seed: seed)
    return Tensor((0..<n * n).map { _ in Float(random.normal()) }, shape: [n, n])
  }

  private static func identity(_ n: Int) -> Tensor {
    Tensor((0..<n * n).map { $0 % (n + 1) == 0 ? 1 : 0 }, shape: [n, n])
  }

  /// Largest magnitude of XᵀX − I, in double.
  private static func distance(_ x: Tensor) -> Double {
    let n = x.rows
    var largest = 0.0
    for i in 0..<n {
      for j in 0..<n {
        let product = (0..<n).reduce(0.0) {
          $0 + Double(x.floats[$1 * n + i]) * Double(x.floats[$1 * n + j])
        }
        largest = max(largest, abs(product - (i == j ? 1 : 0)))
      }
    }
    return largest
  }

  /// ‖X A − B‖² with B = R A for an orthogonal R that is to be found.
  @Test(arguments: [5, 16, 33], [0.0, 0.9])
  func aQuadraticFallsWhileTheMatrixStaysOrthogonal(n: Int, momentum: Double) {
    // R: a few steps of the method itself, checked to be orthogonal.
    var walk = CayleySGD(learningRate: 0.2)
    var goal = Self.identity(n)
    for seed in 0..<12 {
      goal = walk.step(goal, gradient: Self.random(n, UInt64(seed + 40)))
    }
    #expect(Self.distance(goal) < 1e-6)
    let a = Self.random(n, 3).scaled(by: 0.3) + Self.identity(n)
    let b = Tensor.matmul(goal, a)
    func loss(_ x: Tensor) -> (Double, Tensor) {
      let difference = Tensor.matmul(x, a) - b
      let value = difference.array.reduce(0.0) { $0 + Double($1) * Double($1) }
      return (value, Tensor.matmul(difference, transposing: a).scaled(by: 2))
    }
    var x = Self.identity(n)
    var optimizer = CayleySGD(learningRate: momentum > 0 ? 0.005 : 0.02, momentum: momentum)
    let start = loss(x).0
    var previous = start
    for step in 0..<150 {
      let (value, gradient) = loss(x)
      if momentum == 0 { #expect(value <= previous * (1 + 1e-5) + 1e-6, "step \(step)") }
      previous = value
      x = optimizer.step(x, gradient: gradient)
    }
    #expect(loss(x).0 < 0.1 * start, "\(loss(x).0) of \(start)")
    #expect(Self.distance(x) < 1e-6)
  }

  /// The step is the Cayley transform of the skew part of the gradient, solved in double.
  @Test func aStepIsTheCayleyTransform() {
    let n = 6
    let x = Self.identity(n)
    let gradient = Self.random(n, 9).scaled(by: 0.1)
    var optimizer = CayleySGD(learningRate: 0.3, rounds: 30)
    let found = optimizer.step(x, gradient: gradient)
    // At X = I: Ŵ = −G/2, so W = (Gᵀ − G) / 2.
    let g = gradient.array.map(Double.init)
    var norm = 0.0
    for column in 0..<n {
      norm = max(
        norm, (0..<n).reduce(0) { $0 + abs(g[column * n + $1] - g[$1 * n + column]) / 2 })
    }
    let alpha = min(0.3, 1 / (norm + 1e-8))
    // (I − α/2 W) Y = I + α/2 W
    func half(_ row: Int, _ column: Int) -> Double {
      alpha / 4 * (g[column * n + row] - g[row * n + column])
    }
    for row in 0..<n {
      for column in 0..<n {
        let left = (0..<n).reduce(Double(found.floats[row * n + column])) {
          $0 - half(row, $1) * Double(found.floats[$1 * n + column])
        }
        let right = (row == column ? 1 : 0) + half(row, column)
        #expect(abs(left - right) < 1e-6)
      }
    }
  }
}
