import Calibration
import Codecs
import LinearAlgebra
import Quantization
import Tensors
import Testing

func normals(_ rows: Int, _ columns: Int, seed: UInt64) -> Tensor {
  var random = Xoshiro256(seed: seed)
  return Tensor((0..<rows * columns).map { _ in Float(random.normal()) }, shape: [rows, columns])
}

/// Statistics of inputs whose columns differ in size and go together in pairs.
func statistics(of inputs: Int, tokens: Int, seed: UInt64) -> (InputStatistics, Tensor) {
  let noise = normals(tokens, inputs, seed: seed)
  let x = Tensor(shape: [tokens, inputs]) { target in
    for index in target.indices {
      let (row, column) = (index / inputs, index % inputs)
      let shared = noise.floats[row * inputs + column / 2 * 2]
      target[index] =
        (noise.floats[index] + (column % 2 == 1 ? 0.8 * shared : 0)) * Float(1 + column % 7)
    }
  }
  let sum = InputStatisticsSum(inputs: inputs, needs: [.magnitudes, .secondMoment])
  sum.add(x)
  return (sum.finish(), x)
}

/// `tr(D · H · Dᵀ)` in Double.
private func outputError(_ difference: [Double], _ h: [Double], _ n: Int) -> Double {
  var sum = 0.0
  for row in 0..<difference.count / n {
    for i in 0..<n {
      for j in 0..<n { sum += difference[row * n + i] * h[i * n + j] * difference[row * n + j] }
    }
  }
  return sum
}

/// The smallest `tr((E - L·R) · H · (E - L·R)ᵀ)` that rank r can reach: what is left of the singular
/// values of E times a Cholesky factor of H.
private func bestError(_ e: [Double], _ h: [Double], rows: Int, _ n: Int, rank: Int) throws
  -> Double
{
  func times(_ a: [Double], _ b: [Double], _ m: Int) -> [Double] {
    (0..<m * n).map { at in (0..<n).reduce(0.0) { $0 + a[at / n * n + $1] * b[$1 * n + at % n] } }
  }
  var c = [Double](repeating: 0, count: n * n)
  for j in 0..<n {
    for i in j..<n {
      var sum = h[i * n + j]
      for k in 0..<j { sum -= c[i * n + k] * c[j * n + k] }
      c[i * n + j] = i == j ? sum.squareRoot() : sum / c[j * n + j]
    }
  }
  let svd = try SingularValues(of: times(e, c, rows), rows: rows, columns: n)
  return svd.values.dropFirst(rank).reduce(0.0) { $0 + $1 * $1 }
}

@Test(arguments: [1, 3, 8]) func correctionsReachTheBestErrorOfTheirRank(rank: Int) throws {
  let (rows, n) = (24, 20)
  let weight = normals(rows, n, seed: 5)
  let (statistics, _) = statistics(of: n, tokens: 90, seed: 6)
  let codec = try AffineGroups(bits: 2, granularity: .channel)
  let plain = try RoundToNearest(codec: codec).compress(weight)
  let decoded = plain.weight.dequantized()
  let e = (0..<weight.count).map { Double(weight.floats[$0]) - Double(decoded.floats[$0]) }
  let h = (statistics.secondMoment?.array ?? []).map { Double($0) }
  let mean = (0..<n).reduce(0.0) { $0 + h[$1 * n + $1] } / Double(n)
  let identity = (0..<n * n).map { $0 / n == $0 % n ? 1.0 : 0 }

  for (space, metric) in [
    (LowRankCorrection.Space.weights, identity), (.outputs(damping: 0), h),
    (.outputs(damping: 0.1), zip(h, identity).map { $0 + 0.1 * mean * $1 }),
  ] {
    let method = LowRankCorrection(rank: rank, space: space, factorType: .float32)
    let result = try method.correct(weight, plain, statistics)
    let better = result.weight.dequantized()
    let left = (0..<weight.count).map { Double(weight.floats[$0]) - Double(better.floats[$0]) }
    let best = try bestError(e, metric, rows: rows, n, rank: rank)
    let reached = outputError(left, metric, n)
    #expect(abs(reached - best) <= 1e-4 * best, "\(space)")
    #expect(reached < outputError(e, metric, n))
    #expect(abs(result.error.squaredError - outputError(left, identity, n)) < 1e-5)
    let relative = outputError(left, h, n) / outputError(weight.array.map { Double($0) }, h, n)
    #expect(abs((result.relativeOutputError ?? -1) - relative) < 1e-4 * relative)
  }
}

@Test func aCorrectionOfFullRankLeavesTheRoundingOfItsFactors() throws {
  let weight = normals(12, 32, seed: 8)
  let (statistics, _) = statistics(of: 32, tokens: 20, seed: 9)
  let codec = try AffineGroups(bits: 3, granularity: .group(16))
  let plain = try RoundToNearest(codec: codec).compress(weight)
  for type in [DType.float32, .float16, .bfloat16] {
    let method = LowRankCorrection(rank: 100, factorType: type)
    let result = try method.correct(weight, plain, statistics)
    let tolerance = type == .float32 ? 1e-10 : type == .float16 ? 1e-5 : 1e-3
    #expect(result.error.relativeError < tolerance)
    let sum = try #require(result.weight as? SumWeight)
    #expect((sum.parts[1] as? LowRankWeight)?.rank == 12)
  }
}

@Test func settingsOfCorrectionsAreChecked() throws {
  let weight = normals(2, 4, seed: 1)
  let codec = try AffineGroups(bits: 3, granularity: .channel)
  let plain = try RoundToNearest(codec: codec).compress(weight)
  let (statistics, _) = statistics(of: 4, tokens: 20, seed: 9)
  for method in [
    LowRankCorrection(rank: 0), LowRankCorrection(rank: 1, space: .outputs(damping: -1)),
    LowRankCorrection(rank: 1, factorType: .int8),
  ] {
    #expect(throws: CompressionError.self) { try method.correct(weight, plain, statistics) }
  }
  #expect(LowRankCorrection(rank: 1, space: .weights).needs == [])
  #expect(LowRankCorrection(rank: 1).needs == .secondMoment)
}
