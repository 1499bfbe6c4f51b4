import Calibration
import Codecs
import Quantization
import Tensors
import Testing

/// Algorithm 1 of the paper column by column, without blocks: after each column the best change of all
/// later ones, from the inverse of what is left of H.
private struct SpQROracle {
  let bits: Double
  let levels: Double
  let groupSize: Int
  let levelRows: Int
  let threshold: Double?

  static func inverse(_ a: [[Double]]) -> [[Double]] {
    let n = a.count
    var a = a.enumerated().map { row, values in values + (0..<n).map { $0 == row ? 1.0 : 0 } }
    for pivot in 0..<n {
      let scale = a[pivot][pivot]
      a[pivot] = a[pivot].map { $0 / scale }
      for row in 0..<n where row != pivot {
        let factor = a[row][pivot]
        for column in 0..<2 * n { a[row][column] -= factor * a[pivot][column] }
      }
    }
    return a.map { Array($0[n...]) }
  }

  func grid(_ values: [Double]) -> (scale: Double, zero: Double) {
    let low = min(values.min() ?? 0, 0)
    let high = max(values.max() ?? 0, 0)
    let scale = (high - low) / bits
    return (scale, scale > 0 ? -low / scale : 0)
  }

  func nearest(_ value: Double, _ grid: (scale: Double, zero: Double)) -> Double {
    guard grid.scale > 0 else { return 0 }
    let code = (value / grid.scale + grid.zero).rounded(.toNearestOrEven)
    return grid.scale * (min(max(code, 0), bits) - grid.zero)
  }

  func rounded(_ values: [Double]) -> [Double] {
    let low = values.min() ?? 0
    let high = values.max() ?? 0
    let base = Double(Float16(low))
    let step = Double(Float16((high - low) / levels))
    return values.map { value in
      guard step > 0 else { return base }
      let code = min(max(((value - base) / step).rounded(.toNearestOrEven), 0), levels)
      return base + step * code
    }
  }

  /// - Returns: the rounded matrix and the number of outliers.
  func run(_ weight: [[Double]], _ h: [[Double]]) -> (values: [[Double]], outliers: Int) {
    let (rows, n) = (weight.count, h.count)
    var w = weight
    let order = (0..<n).sorted { h[$0][$0] > h[$1][$1] }
    // U[j, later] of the remaining columns, U[j, j]² the corner of the inverse.
    // Taking a column away from H takes its share out of the inverse of what is left.
    var inverse = Self.inverse(order.map { row in order.map { h[row][$0] } })
    var tails: [[Double]] = []
    for _ in 0..<n {
      let first = inverse[0]
      tails.append(first)
      inverse = inverse.dropFirst().map { row in
        let factor = row[0] / first[0]
        return (1..<first.count).map { row[$0] - factor * first[$0] }
      }
    }
    let diagonal = tails.map { $0[0].squareRoot() }
    var limit = Double.infinity
    if let threshold {
      let sizes = (0..<n).map { j in
        let values = weight.map { $0[order[j]] }
        let mean = values.reduce(0, +) / Double(rows)
        let variance = values.reduce(0.0) { $0 + ($1 - mean) * ($1 - mean) } / Double(rows - 1)
        return variance / tails[j][0]
      }
      limit = threshold * sizes.reduce(0, +) / Double(n)
    }
    var outliers = 0
    for start in stride(from: 0, to: n, by: groupSize) {
      let places = Array(start..<min(start + groupSize, n))
      var scales = [Double](repeating: 0, count: rows)
      var zeros = scales
      for row in 0..<rows {
        func loss(_ kept: [Int], _ grid: (scale: Double, zero: Double)) -> Double {
          kept.reduce(0.0) { sum, place in
            let value = w[row][order[place]]
            let error = (value - nearest(value, grid)) / diagonal[place]
            return sum + error * error
          }
        }
        func values(_ kept: [Int]) -> [Double] { kept.map { w[row][order[$0]] } }
        let base = loss(places, grid(values(places)))
        let kept = places.filter { place in
          let others = places.filter { $0 != place }
          return base - loss(others, grid(values(others))) <= limit
        }
        (scales[row], zeros[row]) = grid(values(kept))
      }
      for first in stride(from: 0, to: rows, by: levelRows) {
        let range = first..<min(first + levelRows, rows)
        scales.replaceSubrange(range, with: rounded(Array(scales[range])))
        zeros.replaceSubrange(range, with: rounded(Array(zeros[range])))
      }
      for place in places {
        for row in 0..<rows {
          let value = w[row][order[place]]
          var near = nearest(value, (scales[row], zeros[row]))
          let scaled = (value - near) / diagonal[place]
          if scaled * scaled > limit {
            near += Double(Float16(value - near))
            outliers += 1
          }
          w[row][order[place]] = near
          let error = (value - near) / tails[place][0]
          for later in place + 1..<max(n, place + 1) {
            w[row][order[later]] -= error * tails[place][later - place]
          }
        }
      }
    }
    return (w, outliers)
  }
}

private func damped(_ statistics: InputStatistics, _ damping: Double) -> [[Double]] {
  let n = statistics.inputs
  let moment = (statistics.secondMoment?.array ?? []).map { Double($0) }
  let mean = (0..<n).reduce(0.0) { $0 + moment[$1 * n + $1] } / Double(n)
  return (0..<n).map { row in
    (0..<n).map { moment[row * n + $0] + ($0 == row ? damping * mean : 0) }
  }
}

@Test(arguments: [(20, 40, 3), (33, 21, 2), (7, 36, 4)], [nil, 0.2, 0.02])
func spQRFollowsThePaper(shape: (Int, Int, Int), threshold: Double?) throws {
  let (rows, columns, bits) = shape
  var values = normals(rows, columns, seed: UInt64(rows)).array
  for index in stride(from: 5, to: values.count, by: 41) { values[index] *= 6 }
  let weight = Tensor(values, shape: [rows, columns])
  let (statistics, _) = statistics(of: columns, tokens: 120, seed: 21)
  let settings = try BilevelWeight.Settings(bits: bits, groupSize: 8, levelBits: 3, levelRows: 16)
  let method = SpQR(
    settings: settings, outliers: threshold.map { .threshold($0) } ?? .none, damping: 0.3)
  let result = try method.compress(weight, statistics)
  let oracle = SpQROracle(
    bits: Double((1 << bits) - 1), levels: 7, groupSize: 8, levelRows: 16, threshold: threshold)
  let matrix = (0..<rows).map { row in (0..<columns).map { Double(values[row * columns + $0]) } }
  let expected = oracle.run(matrix, damped(statistics, 0.3))
  let sum = try #require(result.weight as? SumWeight)
  let sparse = try #require(sum.parts[1] as? SparseWeight)
  #expect(sparse.entryCount == expected.outliers)
  #expect(threshold != nil || sparse.entryCount == 0)
  #expect(threshold != 0.02 || sparse.entryCount > 0)
  let rounded = expected.values.flatMap { $0 }
  #expect(largestDifference(result.weight.dequantized(), rounded) < 2e-4)
}

@Test func aShareOfOutliersIsAboutReached() throws {
  let weight = normals(32, 64, seed: 31)
  let (statistics, _) = statistics(of: 64, tokens: 150, seed: 32)
  let settings = try BilevelWeight.Settings()
  var errors: [Double] = []
  for share in [0.005, 0.02, 0.05] {
    let result = try SpQR(settings: settings, outliers: .share(share)).compress(weight, statistics)
    let sparse = (result.weight as? SumWeight)?.parts[1] as? SparseWeight
    let found = Double(sparse?.entryCount ?? 0) / Double(weight.count)
    #expect(found > share / 5 && found < share * 3, "\(found) for \(share)")
    errors.append(result.relativeOutputError ?? 1)
  }
  #expect(errors == errors.sorted(by: >))
}

@Test func spQRBeatsRoundingInGroupsOfItsSize() throws {
  let weight = normals(48, 64, seed: 41)
  let (statistics, _) = statistics(of: 64, tokens: 250, seed: 42)
  let method = SpQR(settings: try .init(), damping: 0.01)
  let result = try method.compress(weight, statistics)
  let codec = try AffineGroups(bits: 3, granularity: .group(16), isSymmetric: false)
  let plain = try RoundToNearest(codec: codec).compress(weight)
  let rounded = CompressedWeight(plain.weight, of: weight, statistics)
  #expect((result.relativeOutputError ?? 1) < (rounded.relativeOutputError ?? 0))
}

@Test func resultsAreTheSameForEveryThreadCount() throws {
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  let weight = normals(40, 80, seed: 51)
  let (statistics, _) = statistics(of: 80, tokens: 150, seed: 52)
  let methods: [any WeightMethod] = [
    SpQR(settings: try .init()), BiLLM(blockSize: 32, maximumSalient: 4), OneBit(),
    TernaryLeastSquares(groupSize: 64),
  ]
  for method in methods {
    let results = try [1, 2].map { count in
      Parallel.threads = count
      return try method.compress(weight, statistics)
    }
    #expect(results[0].weight.isIdentical(to: results[1].weight))
    #expect(results[0].error == results[1].error)
  }
}

@Test func settingsOfOutliersAreChecked() throws {
  let weight = normals(4, 8, seed: 1)
  let (statistics, _) = statistics(of: 8, tokens: 30, seed: 2)
  let settings = try BilevelWeight.Settings(groupSize: 4)
  for outliers in [SpQR.Outliers.threshold(0), .threshold(.nan), .share(0), .share(1)] {
    #expect(throws: CompressionError.self) {
      try SpQR(settings: settings, outliers: outliers).compress(weight, statistics)
    }
  }
  #expect(throws: CompressionError.self) {
    try SpQR(settings: settings, damping: -1).compress(weight, statistics)
  }
  #expect(throws: CompressionError.self) {
    try BiLLM(blockSize: 0).compress(weight, statistics)
  }
  #expect(throws: CodecError.self) { try BilevelWeight.Settings(bits: 9) }
}
