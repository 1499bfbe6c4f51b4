import Calibration
import Codecs
import Quantization
import Tensors
import TestSupport
import Testing

/// Inputs of the compressed model, and those of the uncompressed one: the same with noise that
/// depends on other columns.
private struct TwoStreams {
  let inputs: CorrelatedInputs
  let original: [[Float]]
  let weight: [[Double]]

  init(outputs: Int, inputs n: Int, tokens: Int, seed: UInt64, dead: Set<Int> = []) {
    inputs = CorrelatedInputs(tokens: tokens, inputs: n, dead: dead, seed: seed)
    var random = Xoshiro256(seed: seed + 1)
    let mixing = (0..<n).map { _ in (0..<n).map { _ in 0.4 * (random.uniform() - 0.5) } }
    original = inputs.x.map { x in
      (0..<n).map { column in
        var value = Double(x[column]) + 0.2 * (random.uniform() - 0.5)
        for k in 0..<n where k % 5 == column % 5 { value += mixing[column][k] * Double(x[k]) }
        return Float(value)
      }
    }
    weight = (0..<outputs).map { _ in (0..<n).map { _ in Double(Float(random.uniform() - 0.5)) } }
  }

  var weightTensor: Tensor {
    Tensor(weight.flatMap { $0.map { Float($0) } }, shape: [weight.count, inputs.inputs])
  }

  var statistics: InputStatistics {
    inputs.statistics(
      original: Tensor(original.flatMap { $0 }, shape: [inputs.tokens, inputs.inputs]))
  }

  /// `‖XŴᵀ - X̃Wᵀ‖²`.
  func error(_ rounded: [[Double]]) -> Double {
    var sum = 0.0
    for token in 0..<inputs.tokens {
      for row in weight.indices {
        var difference = 0.0
        for column in 0..<inputs.inputs {
          difference += rounded[row][column] * Double(inputs.x[token][column])
          difference -= weight[row][column] * Double(original[token][column])
        }
        sum += difference * difference
      }
    }
    return sum
  }

  /// H, damped, and C of the documentation, from the tokens.
  func moments(damping: Double) -> (h: [[Double]], c: [[Double]]) {
    let n = inputs.inputs
    var h = [[Double]](repeating: [Double](repeating: 0, count: n), count: n)
    var c = h
    for token in 0..<inputs.tokens {
      for i in 0..<n {
        let (x, shift) = (
          Double(inputs.x[token][i]), Double(original[token][i]) - Double(inputs.x[token][i])
        )
        for j in 0..<n {
          h[i][j] += x * Double(inputs.x[token][j]) / Double(inputs.tokens)
          c[i][j] += shift * Double(inputs.x[token][j]) / Double(inputs.tokens)
        }
      }
    }
    let alive = (0..<n).filter { h[$0][$0] > 0 }
    let mean = alive.reduce(0.0) { $0 + h[$1][$1] } / Double(alive.count)
    for i in 0..<n { h[i][i] += h[i][i] > 0 ? damping * mean : 1 }
    return (h, c)
  }
}

private func rows(_ tensor: Tensor) -> [[Double]] {
  (0..<tensor.rows).map { row in
    (0..<tensor.columns).map { Double(tensor.floats[row * tensor.columns + $0]) }
  }
}

/// The correction column by column, each by solving the equations of the columns that are left.
@Test(arguments: GPTQ.Order.allCases, GPTAQ.Correction.allCases)
func correctedWeightsAreRoundedAsIfSolvedColumnByColumn(
  order: GPTQ.Order, correction: GPTAQ.Correction
) throws {
  let n = 36
  let streams = TwoStreams(outputs: 7, inputs: n, tokens: 90, seed: 3, dead: [4])
  let statistics = streams.statistics
  let method = GPTAQ(
    gptq: GPTQ(
      codec: try AffineGroups(
        bits: 4, granularity: .group(16), isSymmetric: false, allowsShortLastGroup: true),
      blockSize: 16, order: order), strength: 0.6, correction: correction)
  let solver = try #require(try method.factor(statistics).solver)
  let solution = try method.gptq.solve(streams.weightTensor, solver)

  let (h, c) = streams.moments(damping: method.gptq.damping)
  var corrected = streams.weight
  for (place, q) in solver.order.enumerated() {
    let columns = correction == .allColumns ? solver.order : Array(solver.order[(place + 1)...])
    guard !columns.isEmpty else { continue }
    let matrix = columns.map { i in columns.map { h[i][$0] } }
    // H is symmetric, so solving from the left is solving from the right.
    let step = solve(matrix, columns.map { c[q][$0] })
    for row in corrected.indices {
      for (index, column) in columns.enumerated() {
        corrected[row][column] += method.strength * streams.weight[row][q] * step[index]
      }
    }
  }
  for row in corrected.indices { corrected[row][4] = 0 }
  let oracle = GPTQOracle(
    method: method.gptq, weight: corrected, hessian: h, order: solver.order)
  let ties = oracle.check(solution, comment: "\(order) \(correction)")
  #expect(ties.codes <= 2 && ties.grids <= 1)
}

@Test func allColumnsTogetherSolveTheLeastSquaresProblem() throws {
  let streams = TwoStreams(outputs: 3, inputs: 24, tokens: 120, seed: 8)
  // Eight bits and next to no damping: what is left is the correction alone.
  let gptq = GPTQ(
    codec: try AffineGroups(bits: 8, granularity: .group(24), scaleType: .float32), damping: 1e-6)
  let method = GPTAQ(gptq: gptq, strength: 1, correction: .allColumns)
  let result = try method.compress(streams.weightTensor, streams.statistics)
  let reached = rows(result.weight.dequantized())
  let (h, c) = streams.moments(damping: 0)
  // ŵH = w(H + C)
  let best = streams.weight.map { w -> [Double] in
    let right = (0..<24).map { j -> Double in
      var sum = 0.0
      for i in 0..<24 { sum += w[i] * (h[i][j] + c[i][j]) }
      return sum
    }
    return solve(h, right)
  }
  #expect(streams.error(reached) < streams.error(best) * 1.02)
  #expect(streams.error(best) <= streams.error(reached))
}

@Test func outputsComeCloserToTheUncompressedModelsThanGPTQs() throws {
  let streams = TwoStreams(outputs: 24, inputs: 64, tokens: 400, seed: 9)
  for bits in [3, 4, 8] {
    let gptq = GPTQ(codec: try AffineGroups(bits: bits, granularity: .group(16)))
    let statistics = streams.statistics
    let plain = try gptq.compress(streams.weightTensor, statistics).weight
    var last = streams.error(rows(plain.dequantized()))
    for (strength, correction) in [
      (0.25, GPTAQ.Correction.laterColumns), (1, .laterColumns), (1, .allColumns),
    ] {
      let method = GPTAQ(gptq: gptq, strength: strength, correction: correction)
      let result = try method.compress(streams.weightTensor, statistics)
      let reached = streams.error(rows(result.weight.dequantized()))
      #expect(reached < last, "\(bits) bits, \(strength), \(correction)")
      last = reached
    }
  }
}

@Test func withoutCorrectionGPTAQIsGPTQ() throws {
  let streams = TwoStreams(outputs: 5, inputs: 32, tokens: 100, seed: 10)
  let gptq = GPTQ(codec: try AffineGroups(bits: 4, granularity: .group(16)))
  let statistics = streams.statistics
  let plain = try gptq.compress(streams.weightTensor, statistics).weight
  let none = try GPTAQ(gptq: gptq, strength: 0).compress(streams.weightTensor, statistics).weight
  #expect(none.isIdentical(to: plain))
  #expect(throws: CompressionError.self) {
    try GPTAQ(gptq: gptq, strength: 1.5).compress(streams.weightTensor, statistics)
  }
}
