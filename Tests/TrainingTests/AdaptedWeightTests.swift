import Codecs
import Tensors
import Testing
import Training

/// A layer with an adapter in double, written from the papers: the update is multiplied out.
private struct AdaptedOracle {
  var x, W, A, B, m: [Double]
  var tokens, inputs, outputs, rank: Int
  var scale: Double
  var isDecomposed: Bool

  private func row(_ output: Int) -> [Double] {
    (0..<inputs).map { i in
      W[output * inputs + i]
        + scale * (0..<rank).reduce(0) { $0 + B[output * rank + $1] * A[$1 * inputs + i] }
    }
  }

  var lengths: [Double] {
    (0..<outputs).map { row($0).reduce(0) { $0 + $1 * $1 }.squareRoot() }
  }

  /// - Parameter lengths: of the rows, held fixed as the paper does on the way back.
  func output(lengths: [Double]) -> [Double] {
    var y = [Double](repeating: 0, count: tokens * outputs)
    for output in 0..<outputs {
      let row = row(output)
      for token in 0..<tokens {
        let sum = (0..<inputs).reduce(0) { $0 + row[$1] * x[token * inputs + $1] }
        y[token * outputs + output] = isDecomposed ? m[output] / lengths[output] * sum : sum
      }
    }
    return y
  }

  /// Central differences of Σ c·y.
  func gradient(_ path: WritableKeyPath<Self, [Double]>, _ c: [Double]) -> [Double] {
    let lengths = lengths
    return self[keyPath: path].indices.map { index in
      func loss(_ step: Double) -> Double {
        var moved = self
        moved[keyPath: path][index] += step
        return zip(moved.output(lengths: lengths), c).reduce(0) { $0 + $1.0 * $1.1 }
      }
      return (loss(1e-4) - loss(-1e-4)) / 2e-4
    }
  }
}

private struct Numbers {
  var random: Xoshiro256
  mutating func tensor(_ shape: [Int], scale: Double = 1) -> Tensor {
    Tensor((0..<shape.reduce(1, *)).map { _ in Float(random.normal() * scale) }, shape: shape)
  }
}

extension Tensor {
  fileprivate var doubles: [Double] { array.map(Double.init) }
}

private func expectClose(
  _ found: Tensor?, _ expected: [Double], sourceLocation: SourceLocation = #_sourceLocation
) {
  guard let found else {
    Issue.record("nothing arrived", sourceLocation: sourceLocation)
    return
  }
  let size = (expected.reduce(0) { $0 + $1 * $1 } / Double(max(expected.count, 1))).squareRoot()
  let worst = zip(found.array, expected).map { abs(Double($0) - $1) }.max() ?? 0
  #expect(found.count == expected.count, sourceLocation: sourceLocation)
  #expect(worst <= 2e-5 * (1 + size), sourceLocation: sourceLocation)
}

/// The same base matrix in every form.
private enum BaseForm: CaseIterable {
  case float32, bfloat16, transposed, groups, blocks, nf4

  func base(_ matrix: Tensor) throws -> any Weight {
    switch self {
    case .float32: DenseWeight(matrix)
    case .bfloat16: DenseWeight(matrix.converted(to: .bfloat16))
    case .transposed: TransposedWeight(matrix.transposed())
    case .groups:
      try AffineGroups(bits: 4, granularity: .channel, isSymmetric: false).encode(matrix)
    case .blocks:
      // Blocks want multiples of 32 columns.
      matrix.columns % 32 == 0 ? try GGUFBlocks(.q5_1).encode(matrix) : DenseWeight(matrix)
    case .nf4: try NF4.qlora.encode(matrix)
    }
  }
}

struct AdaptedWeightTests {
  @Test(
    arguments: [false, true], [(1, 1, 1, 1), (5, 7, 3, 2), (3, 32, 19, 5), (9, 13, 33, 4)])
  func gradientsAreThoseOfDifferencesOnEveryForm(
    isDecomposed: Bool, shape: (tokens: Int, inputs: Int, outputs: Int, rank: Int)
  ) throws {
    let (tokens, inputs, outputs, rank) = shape
    for form in BaseForm.allCases {
      var numbers = Numbers(random: Xoshiro256(seed: 81))
      let x = numbers.tensor([tokens, inputs]).asLeaf
      let base = try form.base(numbers.tensor([outputs, inputs]))
      let down = numbers.tensor([rank, inputs]).asLeaf
      let up = numbers.tensor([outputs, rank]).asLeaf
      let magnitude = numbers.tensor([outputs]).asLeaf
      let c = numbers.tensor([tokens, outputs])
      let weight = AdaptedWeight(
        base: base, down: down, up: up, magnitude: isDecomposed ? magnitude : nil, scale: 0.7)
      let oracle = AdaptedOracle(
        x: x.doubles, W: base.dequantized().doubles, A: down.doubles, B: up.doubles,
        m: magnitude.doubles, tokens: tokens, inputs: inputs, outputs: outputs, rank: rank,
        scale: Double(Float(0.7)), isDecomposed: isDecomposed)

      let y = weight.multiply(x)
      expectClose(y, oracle.output(lengths: oracle.lengths))
      Tape.backward([(y, c)])
      expectClose(x.gradient, oracle.gradient(\.x, c.doubles))
      expectClose(down.gradient, oracle.gradient(\.A, c.doubles))
      expectClose(up.gradient, oracle.gradient(\.B, c.doubles))
      if isDecomposed { expectClose(magnitude.gradient, oracle.gradient(\.m, c.doubles)) }

      expectClose(weight.inputGradient(c), oracle.gradient(\.x, c.doubles))
      // The merged matrix multiplies as base and update do, and so do its rows.
      let merged = DenseWeight(weight.merged())
      expectClose(merged.multiply(x.detached), oracle.output(lengths: oracle.lengths))
      let row = weight.rows(at: [outputs - 1])
      expectClose(row, Array(merged.dequantized().doubles.suffix(inputs)))
    }
  }

  @Test func aRowOfZerosStaysFinite() {
    let weight = AdaptedWeight(
      base: DenseWeight(.zeros([2, 3])), down: Tensor([1, 2, 3], shape: [1, 3]).asLeaf,
      up: Tensor.zeros([2, 1]).asLeaf, magnitude: Tensor.zeros([2]).asLeaf, scale: 1)
    let y = weight.multiply(Tensor([1, 1, 1], shape: [1, 3]))
    #expect(y.array == [0, 0])
    Tape.backward([(y, Tensor([1, 1], shape: [1, 2]))])
    #expect(weight.up.gradient?.array.allSatisfy(\.isFinite) == true)
    #expect(weight.merged().array == [0, 0, 0, 0, 0, 0])
  }

  @Test func dropoutFollowsThePassAndKeepsTheMean() {
    var numbers = Numbers(random: Xoshiro256(seed: 82))
    let dropout = AdapterDropout(rate: 0.25, seed: 5)
    let base = DenseWeight(numbers.tensor([4, 64]))
    let (down, up) = (numbers.tensor([2, 64]), numbers.tensor([4, 2]))
    let x = numbers.tensor([3, 64])
    func result(_ pass: UInt64?, index: Int = 1) -> [Float] {
      dropout.pass = pass
      return AdaptedWeight(
        base: base, down: down, up: up, scale: 1, dropout: dropout, index: index
      ).multiply(x).array
    }
    let whole = AdaptedWeight(base: base, down: down, up: up, scale: 1).multiply(x).array
    #expect(result(nil) == whole)
    #expect(result(1) != whole)
    #expect(result(1) == result(1))
    #expect(result(1) != result(2))
    #expect(result(1) != result(1, index: 2))
    // Over many passes the mean is that of nothing left out, within its spread.
    let passes = 4000
    var mean = [Double](repeating: 0, count: whole.count)
    for pass in 0..<passes {
      for (i, value) in result(UInt64(pass)).enumerated() { mean[i] += Double(value) }
    }
    for (sum, expected) in zip(mean, whole) {
      #expect(abs(sum / Double(passes) - Double(expected)) < 0.8)
    }
    let threads = Parallel.threads
    defer { Parallel.threads = threads }
    let expected = result(7)
    Parallel.threads = threads == 1 ? 3 : 1
    #expect(result(7) == expected)
  }
}
