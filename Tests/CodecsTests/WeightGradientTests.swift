import Codecs
import Tensors
import Testing

/// `dy · W` in Double, and the sums of absolute terms, which rounding errors are measured by.
private func inputGradient(_ dy: Tensor, _ weight: some Weight) -> [(value: Double, size: Double)] {
  let (W, d) = (weight.dequantized().array, dy.array)
  return (0..<dy.rows).flatMap { token in
    (0..<weight.inputs).map { input in
      var (value, size) = (0.0, 0.0)
      for output in 0..<weight.outputs {
        let term =
          Double(d[token * weight.outputs + output]) * Double(W[output * weight.inputs + input])
        value += term
        size += abs(term)
      }
      return (value, size)
    }
  }
}

private func checkInputGradient(of weight: some Weight, _ random: inout TestRandom) {
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  for tokens in [1, 5, 70] {
    let x = random.matrix(tokens, weight.inputs).asLeaf
    let dy = random.matrix(tokens, weight.outputs)
    var results: [[Float]] = []
    for count in [1, 2] {
      Parallel.threads = count
      x.node?.clear()
      let y = weight.multiply(x)
      #expect(y.node != nil)
      Tape.backward([(y, dy)])
      results.append(x.gradient?.array ?? [])
    }
    #expect(results[0] == results[1])
    #expect(results[0].count == x.count)
    for (found, expected) in zip(results[0], inputGradient(dy, weight)) {
      #expect(abs(Double(found) - expected.value) <= 1e-6 * expected.size + 1e-9)
    }
    #expect(weight.multiply(x.detached).node == nil)
  }
}

@Test(arguments: GGUFType.allCases.compactMap { try? GGUFBlocks($0) })
func gradientsPassThroughBlockQuantizedWeights(codec: GGUFBlocks) throws {
  var random = TestRandom(seed: 91)
  let columns = 2 * max(codec.type.blockLength, 96)
  for rows in [1, 67] {
    let weight = try codec.encode(random.matrix(rows, columns, scale: 0.05))
    checkInputGradient(of: weight, &random)
    if let packed = PackedWeight(packing: weight) { checkInputGradient(of: packed, &random) }
  }
}

@Test(arguments: [2, 3, 4, 8], [true, false])
func gradientsPassThroughGroupQuantizedWeights(bits: Int, symmetric: Bool) throws {
  var random = TestRandom(seed: 92)
  for (rows, columns) in [(1, 32), (67, 96), (300, 64)] {
    let codec = try AffineGroups(bits: bits, granularity: .group(32), isSymmetric: symmetric)
    let weight = try codec.encode(random.matrix(rows, columns, scale: 0.05))
    checkInputGradient(of: weight, &random)
    if let packed = PackedWeight(packing: weight) { checkInputGradient(of: packed, &random) }
  }
}
