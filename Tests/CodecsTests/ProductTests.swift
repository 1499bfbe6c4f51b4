import Codecs
import Tensors
import Testing

/// `x · Wᵀ` in Double from the decoded values.
private func product(_ x: Tensor, _ weight: some Weight) -> [Double] {
  let W = weight.dequantized()  // [outputs, inputs]
  var result: [Double] = []
  for token in 0..<x.rows {
    for output in 0..<weight.outputs {
      result.append(
        (0..<weight.inputs).reduce(0.0) {
          $0 + Double(x.floats[token * x.columns + $1])
            * Double(W.floats[output * weight.inputs + $1])
        })
    }
  }
  return result
}

@Test(arguments: AffineGroups.supportedBits)
func productsFromCodesEqualThoseOfDecodedValues(bits: Int) throws {
  var random = TestRandom(seed: UInt64(bits))
  for isSymmetric in [true, false] {
    for (granularity, rows, columns) in [
      (AffineGroups.Granularity.group(32), 67, 160), (.group(16), 3, 48), (.group(128), 130, 512),
      (.group(24), 9, 72), (.channel, 33, 131), (.tensor, 20, 70),
    ] {
      for layout in [AffineGroups.Layout.packed, .int8] {
        let codec = try AffineGroups(
          bits: bits, granularity: granularity, isSymmetric: isSymmetric, layout: layout)
        let weight = try codec.encode(random.matrix(rows, columns, scale: 0.05))
        for tokens in [1, 2, 7, 33] {
          let x = random.matrix(tokens, columns)
          let result = weight.multiply(x)
          #expect(result.shape == [tokens, rows])
          let expected = product(x, weight)
          let size = (expected.reduce(0) { $0 + $1 * $1 } / Double(expected.count)).squareRoot()
          for (value, expected) in zip(result.array, expected) {
            // Sums of `columns` float32 products: a few ulps of the terms' size.
            #expect(abs(Double(value) - expected) <= 2e-5 * max(size, 1e-3))
          }
        }
      }
    }
  }
}

@Test func denseAndTransposedWeightsMultiplyAlike() {
  var random = TestRandom(seed: 2)
  let W = random.matrix(19, 33)
  let transposed = Tensor(shape: [33, 19]) { target in
    for row in 0..<19 {
      for column in 0..<33 { target[column * 19 + row] = W.floats[row * 33 + column] }
    }
  }
  let x = random.matrix(5, 33)
  let dense = DenseWeight(W)
  let turned = TransposedWeight(transposed)
  #expect(turned.outputs == 19 && turned.inputs == 33)
  #expect(turned.dequantized().isIdentical(to: W))
  #expect(turned.rows(at: [3, 3, 18]).isIdentical(to: dense.rows(at: [3, 3, 18])))
  for (a, b) in zip(dense.multiply(x).array, turned.multiply(x).array) {
    #expect(abs(a - b) < 1e-4)
  }
}
