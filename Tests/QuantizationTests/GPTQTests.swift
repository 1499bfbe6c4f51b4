import Calibration
import Codecs
import Quantization
import Tensors
import TestSupport
import Testing

private func matrix(_ rows: Int, _ columns: Int, seed: UInt64) -> Tensor {
  var random = Xoshiro256(seed: seed)
  return Tensor(
    (0..<rows * columns).map { _ in
      Float(random.uniform() + random.uniform() + random.uniform() - 1.5)
        * (random.uniform() < 0.03 ? 3 : 1)
    }, shape: [rows, columns])
}

private func rows(_ tensor: Tensor) -> [[Double]] {
  (0..<tensor.rows).map { row in
    (0..<tensor.columns).map { Double(tensor.floats[row * tensor.columns + $0]) }
  }
}

/// H of the paper and the order of columns, from the statistics alone.
private func oracle(_ method: GPTQ, _ weight: [[Double]], _ statistics: InputStatistics) throws
  -> GPTQOracle
{
  let n = statistics.inputs
  var hessian = rows(try #require(statistics.secondMoment))
  let diagonal = (0..<n).map { hessian[$0][$0] }
  let alive = diagonal.filter { $0 > 0 }
  let mean = alive.reduce(0, +) / Double(alive.count)
  for column in 0..<n {
    hessian[column][column] += diagonal[column] > 0 ? method.damping * mean : 1
  }
  let order =
    method.order == .none
    ? Array(0..<n)
    : (0..<n).sorted { diagonal[$0] != diagonal[$1] ? diagonal[$0] > diagonal[$1] : $0 < $1 }
  let start = weight.map { row in row.indices.map { diagonal[$0] > 0 ? row[$0] : 0 } }
  return GPTQOracle(method: method, weight: start, hessian: hessian, order: order)
}

private struct Case: CustomStringConvertible {
  var outputs: Int
  var inputs: Int
  var bits: Int
  var granularity: AffineGroups.Granularity
  var isSymmetric = true
  var scaleType = DType.bfloat16
  var order = GPTQ.Order.none
  var grids = GPTQ.Grids.current
  var clipping = RoundToNearest.Clipping.minMax
  var blockSize = 128
  var dead: Set<Int> = []

  func method() throws -> GPTQ {
    GPTQ(
      codec: try AffineGroups(
        bits: bits, granularity: granularity, isSymmetric: isSymmetric, scaleType: scaleType,
        allowsShortLastGroup: true), blockSize: blockSize, order: order, grids: grids,
      clipping: clipping)
  }

  var description: String {
    "\(outputs)x\(inputs) \(bits) bits \(granularity) \(isSymmetric ? "symmetric" : "asymmetric") "
      + "\(scaleType) \(order) \(grids) \(clipping) block \(blockSize) dead \(dead.sorted())"
  }
}

private let cases: [Case] = {
  var cases: [Case] = [
    Case(outputs: 1, inputs: 1, bits: 4, granularity: .channel),
    Case(outputs: 3, inputs: 17, bits: 4, granularity: .group(16), blockSize: 5),
    Case(outputs: 131, inputs: 33, bits: 3, granularity: .group(16), isSymmetric: false),
    Case(outputs: 5, inputs: 45, bits: 4, granularity: .tensor, isSymmetric: false),
    Case(outputs: 5, inputs: 45, bits: 4, granularity: .tensor, order: .static, dead: [7]),
    Case(outputs: 9, inputs: 45, bits: 8, granularity: .channel, order: .static),
    Case(outputs: 9, inputs: 45, bits: 5, granularity: .channel, isSymmetric: false, blockSize: 8),
    Case(outputs: 9, inputs: 45, bits: 6, granularity: .group(20), scaleType: .float16),
    Case(
      outputs: 9, inputs: 45, bits: 2, granularity: .group(20), isSymmetric: false,
      scaleType: .float32, order: .static, clipping: .meanSquareError()),
    Case(
      outputs: 9, inputs: 45, bits: 3, granularity: .group(16), isSymmetric: false,
      clipping: .meanSquareError()),
  ]
  for bits in [2, 3, 4] {
    for order in GPTQ.Order.allCases {
      for grids in GPTQ.Grids.allCases {
        for isSymmetric in [true, false] {
          cases.append(
            Case(
              outputs: 6, inputs: 40, bits: bits, granularity: .group(16),
              isSymmetric: isSymmetric, order: order, grids: grids,
              blockSize: [128, 24, 16][bits - 2], dead: [3, 21]))
        }
      }
    }
  }
  return cases
}()

@Test func codesAreThoseOfColumnByColumnEliminationInDoublePrecision() throws {
  var ties = GPTQOracle.Ties()
  var codes = 0
  for (index, example) in cases.enumerated() {
    let method = try example.method()
    let inputs = CorrelatedInputs(
      tokens: example.inputs * 2 + 5, inputs: example.inputs, dead: example.dead,
      seed: UInt64(index) + 1)
    let statistics = inputs.statistics()
    let weight = matrix(example.outputs, example.inputs, seed: UInt64(index) + 100)
    let solver = try #require(try method.factor(statistics).solver)
    let solution = try method.solve(weight, solver)
    let oracle = try oracle(method, rows(weight), statistics)
    #expect(solver.order == oracle.order)
    let found = oracle.check(solution, comment: "\(example)")
    ties.codes += found.codes
    ties.grids += found.grids
    codes += example.outputs * example.inputs
  }
  // Ties must stay what they are: rare.
  #expect(ties.codes * 2000 <= codes && ties.grids * 1000 <= codes, "\(ties) of \(codes)")
}

@Test func theStoredWeightHoldsTheSolutionAndItsErrors() throws {
  for layout in [AffineGroups.Layout.packed, .int8] {
    for isSymmetric in [true, false] {
      let codec = try AffineGroups(
        bits: 4, granularity: .group(32), isSymmetric: isSymmetric, layout: layout)
      let method = GPTQ(codec: codec)
      let inputs = CorrelatedInputs(tokens: 200, inputs: 96, dead: [5], seed: 4)
      let weight = matrix(37, 96, seed: 5)
      let statistics = inputs.statistics()
      let result = try method.compress(weight, statistics)
      #expect(result.notes.isEmpty)
      let solution = try method.solve(
        weight, try #require(try method.factor(statistics).solver))
      let stored = try #require(result.weight as? GroupQuantizedWeight)
      #expect(
        stored.integerCodes == solution.codes.bytes.map { Int8(bitPattern: $0) })
      let decoded = result.weight.dequantized()
      var squared = 0.0
      var size = 0.0
      var largest: Float = 0
      for index in 0..<weight.count {
        let error = decoded.floats[index] - weight.floats[index]
        squared += Double(error) * Double(error)
        size += Double(weight.floats[index]) * Double(weight.floats[index])
        largest = max(largest, abs(error))
      }
      #expect(abs(result.error.squaredError - squared) <= 1e-6 * squared)
      #expect(abs(result.error.squaredWeight - size) <= 1e-6 * size)
      #expect(result.error.largestError == largest)
      let expected = outputError(inputs, weight, decoded)
      let measured = try #require(result.relativeOutputError)
      #expect(abs(measured - expected) <= 1e-4 * expected, "\(measured) \(expected)")
    }
  }
}

/// `‖X(W - Ŵ)ᵀ‖² / ‖XWᵀ‖²`, token by token.
private func outputError(_ inputs: CorrelatedInputs, _ weight: Tensor, _ other: Tensor) -> Double {
  var error = 0.0
  var size = 0.0
  for x in inputs.x {
    for row in 0..<weight.rows {
      var difference = 0.0
      var output = 0.0
      for column in 0..<weight.columns {
        let at = row * weight.columns + column
        difference += Double(x[column]) * (Double(weight.floats[at]) - Double(other.floats[at]))
        output += Double(x[column]) * Double(weight.floats[at])
      }
      error += difference * difference
      size += output * output
    }
  }
  return error / size
}

@Test(arguments: [2, 3, 4, 8]) func outputsAreCloserThanThoseOfRoundingToNearest(bits: Int) throws {
  let inputs = CorrelatedInputs(tokens: 300, inputs: 128, seed: 11)
  let statistics = inputs.statistics()
  let weight = matrix(48, 128, seed: 12)
  for granularity in [AffineGroups.Granularity.group(32), .channel, .tensor] {
    for isSymmetric in [true, false] {
      let codec = try AffineGroups(bits: bits, granularity: granularity, isSymmetric: isSymmetric)
      let nearest = try RoundToNearest(codec: codec).compress(weight)
      let plain = outputError(inputs, weight, nearest.weight.dequantized())
      for order in [GPTQ.Order.none, .static] {
        let result = try GPTQ(codec: codec, order: order).compress(weight, statistics)
        let reached = outputError(inputs, weight, result.weight.dequantized())
        #expect(reached < 0.8 * plain, "\(granularity) \(order): \(reached) of \(plain)")
      }
    }
  }
}

@Test func blocksChangeNothingButRounding() throws {
  let statistics = CorrelatedInputs(tokens: 150, inputs: 80, seed: 21).statistics()
  let weight = matrix(40, 80, seed: 22)
  for order in GPTQ.Order.allCases {
    var method = GPTQ(
      codec: try AffineGroups(bits: 3, granularity: .group(16), isSymmetric: false), order: order)
    let solver = try #require(try method.factor(statistics).solver)
    let whole = try method.solve(weight, solver).codes
    for blockSize in [1, 7, 16, 33, 79] {
      method.blockSize = blockSize
      let codes = try method.solve(weight, solver).codes
      let different = zip(codes.bytes, whole.bytes).count { $0 != $1 }
      // A code near a tie may fall the other way and take later ones of its row along.
      #expect(different <= weight.count / 100, "\(order) \(blockSize): \(different)")
    }
  }
}

@Test func solutionsDoNotDependOnThreads() throws {
  let statistics = CorrelatedInputs(tokens: 200, inputs: 160, seed: 31).statistics()
  let weight = matrix(300, 160, seed: 32)
  let method = GPTQ(codec: try AffineGroups(bits: 4, granularity: .group(32)))
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  Parallel.threads = 1
  let alone = try method.compress(weight, statistics)
  for count in [1, 2, 3] {
    Parallel.threads = count
    let other = try method.compress(weight, statistics)
    #expect(other.weight.isIdentical(to: alone.weight))
    #expect(other.error == alone.error)
    #expect(other.relativeOutputError == alone.relativeOutputError)
  }
}

@Test func weightsOfEveryTypeAreRead() throws {
  let statistics = CorrelatedInputs(tokens: 100, inputs: 32, seed: 41).statistics()
  let weight = matrix(20, 32, seed: 42)
  let method = GPTQ(codec: try AffineGroups(bits: 4, granularity: .group(16)))
  for type in [DType.bfloat16, .float16] {
    let stored = weight.converted(to: type)
    let result = try method.compress(stored, statistics)
    #expect(
      result.weight.isIdentical(to: try method.compress(stored.widened(), statistics).weight))
  }
}

@Test func dampingGrowsUntilTheMomentHasAFactorAndSaysSo() throws {
  // Fewer tokens than inputs: without damping the moment is singular, and rounding makes it worse.
  let inputs = 64
  let few = CorrelatedInputs(tokens: 3, inputs: inputs, seed: 51)
  let weight = matrix(8, inputs, seed: 52)
  var method = GPTQ(codec: try AffineGroups(bits: 4, granularity: .group(16)), damping: 0)
  let result = try method.compress(weight, few.statistics())
  #expect(result.notes.count == 1 && result.notes[0].contains("0.0001 was used"))

  method.damping = 0.01
  let sum = InputStatisticsSum(inputs: inputs, needs: .secondMoment)
  sum.add(few.tensor)
  // A moment that no damping up to its mean diagonal can mend.
  let broken = InputStatisticsSum(inputs: 2, needs: .secondMoment)
  broken.add(Tensor([.infinity, 1], shape: [1, 2]))
  let small = GPTQ(codec: try AffineGroups(bits: 4, granularity: .channel))
  #expect(throws: CompressionError.notPositiveDefinite(damping: 0.01)) {
    try small.compress(Tensor([1, 2], shape: [1, 2]), broken.finish())
  }
}

@Test func aMatrixWithoutInputsIsRoundedToNearest() throws {
  let codec = try AffineGroups(bits: 4, granularity: .group(16))
  let weight = matrix(8, 32, seed: 61)
  let nothing = InputStatisticsSum(inputs: 32, needs: .secondMoment).finish()
  let result = try GPTQ(codec: codec).compress(weight, nothing)
  #expect(result.weight.isIdentical(to: try RoundToNearest(codec: codec).compress(weight).weight))
  #expect(result.notes.count == 1 && result.notes[0].contains("rounded to nearest"))
}

@Test func whatCannotBeDoneIsRefused() throws {
  let statistics = CorrelatedInputs(tokens: 50, inputs: 40, seed: 71).statistics()
  let weight = matrix(4, 40, seed: 72)
  let codec = try AffineGroups(bits: 4, granularity: .group(16))
  #expect(throws: CompressionError.codec(.groupDoesNotDivide(inputs: 40, groupSize: 16))) {
    try GPTQ(codec: codec).compress(weight, statistics)
  }
  let dividing = try AffineGroups(bits: 4, granularity: .group(20))
  for method in [
    GPTQ(codec: dividing, damping: -1), GPTQ(codec: dividing, damping: .nan),
    GPTQ(codec: dividing, blockSize: 0), GPTQ(codec: dividing, order: .group),
    GPTQ(codec: dividing, clipping: .meanSquareError(maximumShrink: 1, grid: 10)),
  ] {
    #expect(throws: CompressionError.self) { try method.compress(weight, statistics) }
  }
  var values = weight.array
  values[2 * 40 + 9] = .nan
  #expect(throws: CompressionError.notFinite(row: 2, column: 9)) {
    try GPTQ(codec: dividing).compress(Tensor(values, shape: [4, 40]), statistics)
  }
}
