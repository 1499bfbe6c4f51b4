import Tensors
import Testing
import Training

@Suite struct OptimizerMuonTests {
  /// Products of tiles against double, transposed or not, with and without something added.
  @Test(arguments: [(1, 1, 1), (63, 5, 70), (64, 64, 64), (65, 9, 3), (130, 40, 129), (515, 3, 7)])
  func productsOfTilesAgreeWithDouble(m: Int, k: Int, n: Int) {
    var numbers = OptimizerNumbers(91)
    for (transposesA, transposesB) in [(false, false), (true, false), (false, true), (true, true)] {
      let a = numbers.tensor(transposesA ? [k, m] : [m, k])
      let b = numbers.tensor(transposesB ? [n, k] : [k, n])
      let c = numbers.tensor([m, n])
      func result(adding addend: Tensor?) -> [Float] {
        Tensor(shape: [m, n]) { target in
          guard let base = target.baseAddress else { return }
          if let addend { base.update(from: addend.floats, count: m * n) }
          TiledProduct.run(
            m, n, k, a.operand(transposed: transposesA), b.operand(transposed: transposesB),
            into: base, stride: n, scale: 0.7, adding: addend != nil)
        }.array
      }
      let (plain, added) = (result(adding: nil), result(adding: c))
      var worst = 0.0
      for i in 0..<m {
        for j in 0..<n {
          let sum = (0..<k).reduce(0.0) { sum, l in
            let p = a.floats[transposesA ? l * m + i : i * k + l]
            return sum + Double(p) * Double(b.floats[transposesB ? j * k + l : l * n + j])
          }
          let at = i * n + j
          worst = max(
            worst, abs(Double(plain[at]) - 0.7 * sum),
            abs(Double(added[at]) - 0.7 * sum - Double(c.floats[at])))
        }
      }
      #expect(worst < 1e-5)
    }
  }

  @Test(arguments: [[40, 12], [12, 40], [33, 33]])
  func directionsAreMadeNearlyEqual(shape: [Int]) throws {
    // A step by a momentum of rank one and a little noise: its rows become nearly orthonormal.
    var numbers = OptimizerNumbers(92)
    let (left, right) = (numbers.floats(shape[0]), numbers.floats(shape[1]))
    let noise = numbers.floats(shape[0] * shape[1], scale: 0.05)
    let parameter = Parameter(name: "w", initial: .zeros(shape), decays: true, isBlockMatrix: true)
    parameter.replaceGradient(
      by: Tensor(
        noise.indices.map { left[$0 / shape[1]] * right[$0 % shape[1]] + noise[$0] }, shape: shape))
    let optimizer = try OptimizerChoice.muon(Muon(learningRate: 1)).makeOptimizer(for: [parameter])
    optimizer.step()
    let scale = max(1, Float(shape[0]) / Float(shape[1])).squareRoot()
    let squares = parameter.floats.reduce(0) { $0 + $1 * $1 } / (scale * scale)
    // The sum of squares of min(A, B) singular values, most between 0.7 and 1.2.
    let narrow = Float(shape.min() ?? 0)
    #expect(squares > 0.5 * narrow && squares < 1.5 * narrow)
  }
}
