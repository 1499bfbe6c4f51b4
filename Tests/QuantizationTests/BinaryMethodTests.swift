import Calibration
import Codecs
import Quantization
import Tensors
import Testing

private func squaredError(_ a: Tensor, _ b: Tensor) -> Double {
  zip(a.array, b.array).reduce(0.0) {
    $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1))
  }
}

func largestDifference(_ found: Tensor, _ expected: [Double]) -> Double {
  zip(found.array, expected).reduce(0.0) { max($0, abs(Double($1.0) - $1.1)) }
}

// MARK: Ternary

/// The smallest `Σ h (w - α t)²` over all 3ⁿ choices of t, each with its best α.
private func bestTernaryError(_ w: [Double], _ h: [Double]) -> Double {
  var best = Double.infinity
  let choices = (0..<w.count).reduce(1) { count, _ in 3 * count }
  for choice in 0..<choices {
    var rest = choice
    let t = w.map { _ -> Double in
      defer { rest /= 3 }
      return Double(rest % 3 - 1)
    }
    let size = zip(h, t).reduce(0.0) { $0 + $1.0 * $1.1 * $1.1 }
    let product = w.indices.reduce(0.0) { $0 + h[$1] * w[$1] * t[$1] }
    let alpha = size > 0 ? product / size : 0
    best = min(
      best, w.indices.reduce(0.0) { $0 + h[$1] * (w[$1] - alpha * t[$1]) * (w[$1] - alpha * t[$1]) }
    )
  }
  return best
}

@Test(arguments: [false, true]) func ternaryCodesReachTheExhaustiveOptimum(weighted: Bool) throws {
  let (rows, columns) = (4, 19)
  let weight = normals(rows, columns, seed: 2)
  let (statistics, _) = statistics(of: columns, tokens: 40, seed: 3)
  let method = TernaryLeastSquares(groupSize: 7, scaleType: .float32, weighsInputs: weighted)
  let result = try method.compress(weight, statistics)
  let decoded = result.weight.dequantized()
  for row in 0..<rows {
    for start in [0, 7, 14] {
      let columns = start..<min(start + 7, 19)
      let w = columns.map { Double(weight.floats[row * 19 + $0]) }
      let found = columns.map { Double(decoded.floats[row * 19 + $0]) }
      let h = columns.map { weighted ? Double(statistics.meanSquare[$0]) : 1 }
      let reached = w.indices.reduce(0.0) { $0 + h[$1] * (w[$1] - found[$1]) * (w[$1] - found[$1]) }
      let best = bestTernaryError(w, h)
      #expect(abs(reached - best) <= 1e-5 * best, "row \(row), columns \(columns)")
    }
  }
  #expect(abs(result.error.squaredError - squaredError(weight, decoded)) < 1e-5)
}

@Test func ternaryMatricesOfZerosAndWholeRowsAreExact() throws {
  let values: [Float] = [0, 0, 0, 0, 0.5, -0.5, 0, 0.5, -2, 2, 2, -2]
  for packing in TernaryWeight.Packing.allCases {
    let result = try TernaryLeastSquares(packing: packing).compress(Tensor(values, shape: [3, 4]))
    #expect(result.weight.dequantized().array == values)
    #expect(result.error.squaredError == 0)
  }
  #expect(throws: CompressionError.notFinite(row: 1, column: 1)) {
    try TernaryLeastSquares().compress(Tensor([1, 2, 3, .infinity], shape: [2, 2]))
  }
  #expect(throws: CompressionError.self) {
    try TernaryLeastSquares(groupSize: 0).compress(Tensor([1], shape: [1, 1]))
  }
}

// MARK: OneBit

/// The leading singular pair of a matrix of magnitudes by power iteration.
private func leadingPair(_ a: [Double], _ rows: Int, _ columns: Int) -> (u: [Double], v: [Double]) {
  var v = [Double](repeating: 1, count: columns)
  var u = [Double](repeating: 0, count: rows)
  for _ in 0..<400 {
    for row in 0..<rows {
      u[row] = (0..<columns).reduce(0.0) { $0 + a[row * columns + $1] * v[$1] }
    }
    let length = u.reduce(0.0) { $0 + $1 * $1 }.squareRoot()
    for row in 0..<rows { u[row] /= length }
    for column in 0..<columns {
      v[column] = (0..<rows).reduce(0.0) { $0 + a[$1 * columns + column] * u[$1] }
    }
  }
  return (u, v)
}

@Test(arguments: [(1, 9), (12, 1), (14, 33), (40, 17)])
func oneBitIsTheBestRankOneOfMagnitudes(rows: Int, columns: Int) throws {
  let weight = normals(rows, columns, seed: UInt64(rows))
  let result = try OneBit(factorType: .float32).compress(weight)
  let magnitudes = weight.array.map { abs(Double($0)) }
  let (u, v) = leadingPair(magnitudes, rows, columns)
  let expected = (0..<weight.count).map { index -> Double in
    let value = u[index / columns] * v[index % columns]
    return weight.floats[index] < 0 ? -value : value
  }
  #expect(largestDifference(result.weight.dequantized(), expected) < 1e-5)
  let bits = try OneBit().compress(weight).weight.bitsPerWeight
  let words = Double((columns + 7) / 8 * rows * 8 + 16 * (rows + columns) + 64)
  #expect(bits == words / Double(rows * columns))
}

@Test func oneBitOfZerosIsZero() throws {
  let result = try OneBit().compress(.zeros([3, 5]))
  #expect(result.weight.dequantized().array.allSatisfy { $0 == 0 })
}

// MARK: BiLLM

/// The algorithm from the paper with explicit inverses: the best change of later columns for fixed block
/// errors D is `-D · (H⁻¹[B, B])⁻¹ · H⁻¹[B, later]` of the H of the columns not yet fixed.
private struct BiLLMOracle {
  var w: [[Double]]
  let h: [[Double]]
  let block: Int
  let limit: Int

  static func inverse(_ a: [[Double]]) -> [[Double]] {
    let n = a.count
    var a = a.enumerated().map { row, values in
      values + (0..<n).map { $0 == row ? 1.0 : 0 }
    }
    for pivot in 0..<n {
      let best = (pivot..<n).max { abs(a[$0][pivot]) < abs(a[$1][pivot]) } ?? pivot
      a.swapAt(pivot, best)
      let scale = a[pivot][pivot]
      a[pivot] = a[pivot].map { $0 / scale }
      for row in 0..<n where row != pivot {
        let factor = a[row][pivot]
        for column in 0..<2 * n { a[row][column] -= factor * a[pivot][column] }
      }
    }
    return a.map { Array($0[n...]) }
  }

  static func mean(_ values: [Double]) -> Double {
    values.isEmpty ? 0 : values.reduce(0, +) / Double(values.count)
  }

  static func sign(_ value: Double) -> Double { value < 0 ? -1 : 1 }

  static func residual(_ w: [Double]) -> [Double] {
    let first = mean(w.map(abs))
    let left = w.map { $0 - first * sign($0) }
    let second = mean(left.map(abs))
    return zip(w, left).map { first * sign($0) + second * sign($1) }
  }

  static func split(_ w: [Double]) -> [Double] {
    var best = (error: Double.infinity, values: w)
    for p in [-1] + w.map(abs) {
      let low = mean(w.map(abs).filter { $0 <= p })
      let high = mean(w.map(abs).filter { $0 > p })
      let values = w.map { (abs($0) > p ? high : low) * sign($0) }
      let error = zip(w, values).reduce(0.0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
      if error < best.error - 1e-12 { best = (error, values) }
    }
    return best.values
  }

  mutating func run() -> [[Double]] {
    let n = h.count
    for start in stride(from: 0, to: n, by: block) {
      let end = min(start + block, n)
      let inverse = Self.inverse((start..<n).map { row in Array(h[row][start...]) })
      // U[j, j]² is the corner of the inverse of what is left from column j on.
      let diagonal = (start..<end).map { j in
        Self.inverse((j..<n).map { row in Array(h[row][j...]) })[0][0]
      }
      let scores = (start..<end).map { j in
        w.reduce(0.0) { $0 + $1[j] * $1[j] } / diagonal[j - start]
      }
      let ranked = (start..<end).sorted { scores[$0 - start] > scores[$1 - start] }
      var best = (error: Double.infinity, values: [[Double]]())
      for count in 0...min(limit, end - start) {
        let salient = Array(ranked[..<count])
        let rest = Array(ranked[count...])
        var error = 0.0
        let values = w.map { row -> [Double] in
          var result = [Double](repeating: 0, count: end - start)
          for (j, value) in zip(salient, Self.residual(salient.map { row[$0] })) {
            result[j - start] = value
          }
          for (j, value) in zip(rest, Self.split(rest.map { row[$0] })) {
            result[j - start] = value
          }
          for j in start..<end {
            error += (row[j] - result[j - start]) * (row[j] - result[j - start])
          }
          return result
        }
        if error < best.error - 1e-9 { best = (error, values) }
      }
      let size = end - start
      let corner = Self.inverse((0..<size).map { Array(inverse[$0][..<size]) })
      for row in w.indices {
        let d = (0..<size).map { w[row][start + $0] - best.values[row][$0] }
        for j in 0..<size { w[row][start + j] = best.values[row][j] }
        for later in size..<max(n - start, size) {
          for i in 0..<size {
            for k in 0..<size { w[row][start + later] -= d[i] * corner[i][k] * inverse[k][later] }
          }
        }
      }
    }
    return w
  }
}

@Test(arguments: [(6, 24, 8, 4), (9, 21, 8, 8), (5, 10, 16, 3), (7, 12, 5, 0)])
func biLLMFollowsThePaper(rows: Int, columns: Int, block: Int, limit: Int) throws {
  let weight = normals(rows, columns, seed: UInt64(columns + block))
  let (statistics, _) = statistics(of: columns, tokens: 80, seed: 11)
  let method = BiLLM(blockSize: block, maximumSalient: limit, damping: 0.05, scaleType: .float32)
  let result = try method.compress(weight, statistics)
  let moment = statistics.secondMoment?.array ?? []
  let mean = (0..<columns).reduce(0.0) { $0 + Double(moment[$1 * columns + $1]) } / Double(columns)
  let h = (0..<columns).map { row -> [Double] in
    (0..<columns).map { column -> Double in
      let value = Double(moment[row * columns + column])
      return column == row ? value + 0.05 * mean : value
    }
  }
  var oracle = BiLLMOracle(
    w: (0..<rows).map { row in (0..<columns).map { Double(weight.floats[row * columns + $0]) } },
    h: h, block: block, limit: limit)
  let expected = oracle.run().flatMap { $0 }
  #expect(largestDifference(result.weight.dequantized(), expected) < 1e-4)
  #expect(result.notes.count == 1)
}

@Test func biLLMBeatsSignsAloneOnTheOutputs() throws {
  let weight = normals(32, 64, seed: 4)
  let (statistics, _) = statistics(of: 64, tokens: 200, seed: 12)
  let binary = try OneBit().compress(weight, statistics)
  let salient = try BiLLM(blockSize: 32, maximumSalient: 6).compress(weight, statistics)
  let ternary = try TernaryLeastSquares().compress(weight, statistics)
  let errors = [salient, ternary, binary].compactMap(\.relativeOutputError)
  #expect(errors.count == 3 && errors[0] < errors[1] && errors[1] < errors[2])
}

@Test func inputsThatAreAlwaysZeroDoNotStopFeedback() throws {
  let weight = normals(8, 12, seed: 5)
  let inputs = (0..<480).map { index -> Float in
    let value = Float(index * 7 % 23)
    return index % 12 == 4 ? 0 : value - 11
  }
  let x = Tensor(inputs, shape: [40, 12])
  let sum = InputStatisticsSum(inputs: 12, needs: .secondMoment)
  sum.add(x)
  let statistics = sum.finish()
  let settings = try BilevelWeight.Settings(groupSize: 4)
  let results = [
    try BiLLM(blockSize: 4).compress(weight, statistics),
    try SpQR(settings: settings).compress(weight, statistics),
  ]
  for result in results {
    #expect(result.weight.dequantized().array.allSatisfy { $0.isFinite })
    #expect((result.relativeOutputError ?? 1) < 0.5)
  }
}
