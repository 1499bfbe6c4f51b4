import Codecs
import Tensors
import Testing
import Training

struct TrainedScalesTests {
  private static let codecs: [(AffineGroups.Granularity, Bool)] = [
    (.group(16), true), (.group(32), false), (.channel, true), (.tensor, true),
  ]

  /// dL/dscale and dL/dx of L = Σ c ∘ (x · Wᵀ), against the sum over the formula in double.
  @Test(arguments: codecs, [2, 3, 4, 8])
  func gradientsAreThoseOfTheFormula(setting: (AffineGroups.Granularity, Bool), bits: Int) throws {
    var random = Xoshiro256(seed: UInt64(bits))
    func numbers(_ shape: [Int]) -> Tensor {
      Tensor(
        (0..<shape.reduce(1, *)).map { _ in Float(random.normal()) }, shape: shape)
    }
    let (outputs, inputs, tokens) = (7, 64, 5)
    let codec = try AffineGroups(
      bits: bits, granularity: setting.0, isSymmetric: setting.1, scaleType: .float32)
    let base = try codec.encode(numbers([outputs, inputs]))
    let parameter = Parameter(
      name: "scale", initial: base.scales.scaled(by: 1.25), decays: false, isBlockMatrix: false)
    let weight = TrainedScalesWeight(base, scales: parameter.tensor)
    let x = numbers([tokens, inputs]).asLeaf
    let c = numbers([tokens, outputs])
    Tape.backward([(weight.multiply(x), c)])

    let dense = weight.dequantized()
    let group = codec.groupSize(inputs: inputs)
    let perRow = codec.groupCount(inputs: inputs)
    var scales = [Double](repeating: 0, count: parameter.count)
    for row in 0..<outputs {
      for column in 0..<inputs {
        let place = setting.0 == .tensor ? 0 : row * perRow + column / group
        var gradient = 0.0
        for token in 0..<tokens {
          gradient +=
            Double(c.floats[token * outputs + row]) * Double(x.floats[token * inputs + column])
        }
        let unit = Double(dense.floats[row * inputs + column] / parameter.tensor.floats[place])
        scales[place] += gradient * unit
      }
    }
    let arrived = try #require(parameter.gradient)
    for (index, expected) in scales.enumerated() {
      #expect(abs(Double(arrived.floats[index]) - expected) < 1e-4 * max(1, abs(expected)))
    }
    let expected = Tensor.matmul(c, dense)
    let input = try #require(x.gradient)
    for index in 0..<input.count {
      #expect(abs(input.floats[index] - expected.floats[index]) < 1e-4)
    }
    // Settled, it computes what it did.
    #expect(weight.settled.dequantized().array == dense.array)
    #expect(weight.settled.integerCodes == base.integerCodes)
  }
}
