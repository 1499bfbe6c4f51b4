import LinearAlgebra
import Tensors
import TestSupport
import Testing

@Test(arguments: [(1, 1), (3, 5), (70, 191), (9, 192), (5, 193), (33, 400)])
func theLowerTriangleHoldsTheSumOfProducts(tokens: Int, n: Int) {
  var random = Xoshiro256(seed: UInt64(n))
  let batches = (0..<2).map { _ in
    Tensor((0..<tokens * n).map { _ in Float(random.uniform()) - 0.5 }, shape: [tokens, n])
  }
  let sum = Tensor(shape: [n, n]) { target in
    target.initialize(repeating: 0)
    for x in batches { SymmetricProduct.add(x, toLower: target.baseAddress!) }
    SymmetricProduct.mirrorLower(target.baseAddress!, n)
  }
  for row in stride(from: 0, to: n, by: 7) {
    for column in stride(from: 0, to: n, by: 5) {
      var expected = 0.0
      for x in batches {
        for token in 0..<tokens {
          expected += Double(x.floats[token * n + row]) * Double(x.floats[token * n + column])
        }
      }
      #expect(abs(Double(sum.floats[row * n + column]) - expected) < 1e-5 * Double(tokens))
    }
  }
}
