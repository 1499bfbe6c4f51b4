import CKernels
import Calibration
import Codecs
import Foundation
import Quantization
import Tensors
import Testing

/// Student's t with three degrees of freedom: heavy tails.
private struct HeavyTails {
  var state: UInt64
  mutating func unit() -> Double {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Double(state >> 11) * 0x1p-53
  }
  mutating func normal() -> Double { (0..<12).reduce(-6.0) { sum, _ in sum + unit() } }
  mutating func matrix(_ rows: Int, _ columns: Int) -> Tensor {
    Tensor(
      (0..<rows * columns).map { _ in
        let squares = (0..<3).reduce(1e-3) { sum, _ in
          let z = normal()
          return sum + z * z
        }
        return Float(0.02 * normal() / (squares / 3).squareRoot())
      }, shape: [rows, columns])
  }
}

/// The method written in Double from the paper and the file's comment, one group at a time.
private struct HQQOracle {
  let method: HQQ

  var low: Double { Double(method.codec.lowestCode) }
  var high: Double { Double(method.codec.highestCode) }

  struct Grid {
    var s: Double
    var z: Double
  }

  func stored(_ s: Double) -> Double {
    switch method.codec.scaleType {
    case .float32: return Double(Float(s))
    case .float16: return Double(Float16(s))
    default:
      let unit = Double(sign: .plus, exponent: Int(s.exponent) - 7, significand: 1)
      return (s / unit).rounded(.toNearestOrEven) * unit
    }
  }

  func covering(_ W: [Double], shrink: Double) -> Grid {
    let (smallest, largest) = (min(0, W.min() ?? 0) * shrink, max(0, W.max() ?? 0) * shrink)
    if method.codec.isSymmetric {
      return Grid(s: stored(max(-smallest, largest) / ((high - low) / 2)), z: 0)
    }
    let s = stored((largest - smallest) / (high - low))
    return Grid(s: s, z: min(max((low - smallest / s).rounded(.toNearestOrEven), low), high))
  }

  func decoded(_ W: [Double], _ grid: Grid) -> [(q: Double, r: Double)] {
    W.map { w in
      let q = min(max(w / grid.s + grid.z, low), high).rounded(.toNearestOrEven)
      return (q, (q - grid.z) * grid.s)
    }
  }

  func objective(_ W: [Double], _ grid: Grid, power: Double) -> Double {
    zip(W, decoded(W, grid)).reduce(0) { $0 + pow(abs($1.0 - $1.1.r), power) }
  }

  func fit(_ W: [Double]) -> Grid {
    let p = Double(method.norm)
    let unit = covering(W, shrink: 1).s
    var best = covering(W, shrink: 1)
    let bound = objective(W, best, power: 2)
    var least = objective(W, best, power: p)
    for start in 0..<method.starts {
      var grid = covering(W, shrink: 1 - 0.1 * Double(start))
      var beta = Double(method.beta)
      var previous = Double.infinity
      for _ in 0...method.iterations {
        let reached = objective(W, grid, power: p)
        if reached < least, objective(W, grid, power: 2) <= bound {
          (least, best) = (reached, grid)
        }
        guard reached < previous else { break }
        previous = reached
        let codes = decoded(W, grid)
        let target = zip(W, codes).map { w, code in
          let x = (w - code.r) / unit
          let W_e = x == 0 ? 0 : max(0, abs(x) - pow(abs(x), p - 1) / beta)
          return w - (x < 0 ? -W_e : W_e) * unit
        }
        grid = leastSquares(codes.map(\.q), target, grid)
        beta *= Double(method.kappa)
      }
    }
    return best
  }

  /// argmin over s and an integer z of `‖t - (q - z) s‖²`, z rounded before s is found.
  func leastSquares(_ q: [Double], _ t: [Double], _ grid: Grid) -> Grid {
    var grid = grid
    let n = Double(q.count)
    if !method.codec.isSymmetric {
      let (meanQ, meanT) = (q.reduce(0, +) / n, t.reduce(0, +) / n)
      let spread = q.reduce(0) { $0 + ($1 - meanQ) * ($1 - meanQ) }
      let common = zip(q, t).reduce(0) { $0 + ($1.0 - meanQ) * ($1.1 - meanT) }
      if spread > 0, common > 0 {
        let z = meanQ - meanT * spread / common
        grid.z = min(max(z, low), high).rounded(.toNearestOrEven)
      }
    }
    let above = zip(q, t).reduce(0) { $0 + ($1.0 - grid.z) * $1.1 }
    let below = q.reduce(0) { $0 + ($1 - grid.z) * ($1 - grid.z) }
    if below > 0, above > 0 { grid.s = stored(above / below) }
    return grid
  }
}

private struct Case: Sendable {
  var bits: Int
  var size: Int
  var isSymmetric: Bool
  var scaleType: DType
}

private let cases = [2, 3, 4, 8].flatMap { bits in
  [(16, false, DType.bfloat16), (37, false, .float32), (64, true, .float16)].map {
    Case(bits: bits, size: $0.0, isSymmetric: $0.1, scaleType: $0.2)
  }
}

@Test(arguments: cases) private func hqqIsThePapersMethodInDouble(_ at: Case) throws {
  var numbers = HeavyTails(state: UInt64(at.bits * 100 + at.size))
  let (rows, columns) = (5, at.size * 2 + at.size / 2)
  let weight = numbers.matrix(rows, columns)
  let codec = try AffineGroups(
    bits: at.bits, granularity: .group(at.size), isSymmetric: at.isSymmetric,
    scaleType: at.scaleType, allowsShortLastGroup: true)
  let method = HQQ(codec: codec)
  let decoded = try method.compress(weight).weight.dequantized()
  let oracle = HQQOracle(method: method)
  var (reached, expected, same, count) = (0.0, 0.0, 0, 0)
  for row in 0..<rows {
    for start in stride(from: 0, to: columns, by: at.size) {
      let range = start..<min(start + at.size, columns)
      let W = range.map { Double(weight.floats[row * columns + $0]) }
      let grid = oracle.fit(W)
      let values = zip(range, oracle.decoded(W, grid))
      // The same grid decodes to the same numbers, but for codes at a half.
      let equal = values.count {
        abs(Double(decoded.floats[row * columns + $0]) - $1.r) <= abs($1.r) * 1e-5
      }
      same += equal >= range.count - 1 ? 1 : 0
      count += 1
      expected += oracle.objective(W, grid, power: 0.7)
      for column in range {
        let error = decoded.floats[row * columns + column] - weight.floats[row * columns + column]
        reached += pow(Double(abs(error)), 0.7)
      }
    }
  }
  // Float32 sums may choose another of two equally good turns now and then.
  #expect(same * 10 >= count * 8, "\(same) of \(count) groups have the oracle's grid")
  #expect(abs(reached - expected) <= 0.01 * expected)
}

/// `Σ |w - ŵ|^0.7`.
private func lp(_ weight: Tensor, _ decoded: Tensor) -> Double {
  zip(weight.array, decoded.array).reduce(0) { sum, pair in
    let error = Double(abs(pair.0 - pair.1))
    return sum + pow(error, 0.7)
  }
}

@Test func hqqBeatsRoundToNearestInBothObjectives() throws {
  var numbers = HeavyTails(state: 5)
  let weight = numbers.matrix(16, 256)
  for (bits, gain, squares) in [(2, 0.75, 0.85), (3, 0.9, 0.98), (4, 0.98, 0.99)] {
    for isSymmetric in [false, true] {
      let codec = try AffineGroups(
        bits: bits, granularity: .group(64), isSymmetric: isSymmetric)
      let plain = try RoundToNearest(codec: codec).compress(weight)
      let fitted = try HQQ(codec: codec).compress(weight)
      let ratio = lp(weight, fitted.weight.dequantized()) / lp(weight, plain.weight.dequantized())
      #expect(ratio < gain, "\(bits) bits, symmetric \(isSymmetric)")
      #expect(fitted.error.squaredError < squares * plain.error.squaredError, "\(bits) bits")
    }
  }
}

/// Group by group neither objective is worse, whatever the shape.
@Test(arguments: [(1, 1), (3, 16), (7, 33), (4, 131)])
func hqqIsNeverWorseThanTheCoveringGrid(rows: Int, columns: Int) throws {
  var numbers = HeavyTails(state: UInt64(columns))
  let weight = numbers.matrix(rows, columns)
  for bits in AffineGroups.supportedBits {
    let codec = try AffineGroups(bits: bits, granularity: .channel, isSymmetric: false)
    let plain = try RoundToNearest(codec: codec).compress(weight)
    for starts in [1, 6] {
      let fitted = try HQQ(codec: codec, starts: starts).compress(weight)
      #expect(fitted.error.squaredError <= plain.error.squaredError * (1 + 1e-5))
      #expect(
        lp(weight, fitted.weight.dequantized())
          <= lp(weight, plain.weight.dequantized()) * (1 + 1e-5))
    }
  }
}

@Test func hqqOfZerosAndOfOneValueIsThatValue() throws {
  for isSymmetric in [false, true] {
    let codec = try AffineGroups(bits: 3, granularity: .group(16), isSymmetric: isSymmetric)
    var values = [Float](repeating: 0, count: 64)
    for index in 16..<32 { values[index] = -0.25 }
    let result = try HQQ(codec: codec).compress(Tensor(values, shape: [2, 32]))
    let decoded = result.weight.dequantized().array
    // One value is a code times a scale in bfloat16.
    #expect(isSymmetric || decoded[16..<32].allSatisfy { abs($0 + 0.25) <= 0.25 * 0x1p-8 })
    #expect((decoded[..<16] + decoded[32...]).allSatisfy { $0 == 0 })
  }
}

@Test func threadsAndSourceTypesDoNotChangeHQQ() throws {
  var numbers = HeavyTails(state: 6)
  let weight = numbers.matrix(70, 2048).converted(to: .bfloat16)
  let method = HQQ(
    codec: try AffineGroups(bits: 4, granularity: .group(128), isSymmetric: false), iterations: 3,
    starts: 2)
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  Parallel.threads = 1
  let expected = try method.compress(weight).weight
  for count in [2, 5] {
    Parallel.threads = count
    #expect(try method.compress(weight.widened()).weight.isIdentical(to: expected))
  }
}

@Test func fastHQQEqualsItsReferenceForEveryTail() {
  var numbers = HeavyTails(state: 7)
  for group in Array(1...34) + [47, 64, 100, 256, 600] {
    let columns = group * 2 + group / 3
    let groups = (columns + group - 1) / group
    let source = numbers.matrix(2, columns)
    for (bits, isSymmetric, type) in [
      (2, Int32(0), PARE_AFFINE_BF16), (4, 1, PARE_AFFINE_F16), (8, 0, PARE_AFFINE_F32),
    ] {
      var job = pare_hqq_job()
      (job.source, job.columns, job.group) = (source.floats, columns, group)
      (job.bits, job.symmetric, job.scale_type) = (Int32(bits), isSymmetric, type)
      (job.p, job.beta, job.kappa) = (0.7, 10, 1.01)
      (job.iterations, job.starts, job.shrink) = (5, 2, 0.1)
      var scratch = [Float](repeating: 0, count: pare_hqq_scratch_floats(group))
      var results: [([Float], [Int8])] = []
      for isFast in [true, false] {
        var scales = [Float](repeating: 0, count: 2 * groups)
        var zeros = [Int8](repeating: 0, count: 2 * groups)
        scales.withUnsafeMutableBufferPointer { scales in
          zeros.withUnsafeMutableBufferPointer { zeros in
            (job.scales, job.zeros) = (scales.baseAddress, zeros.baseAddress)
            if isFast {
              pare_hqq_rows(&job, 0, 2, &scratch)
            } else {
              pare_hqq_rows_reference(&job, 0, 2, &scratch)
            }
          }
        }
        results.append((scales, zeros))
      }
      #expect(results[0] == results[1], "group \(group), \(bits) bits")
    }
  }
}

@Test func hqqRefusesWhatItCannotDo() throws {
  let weight = Tensor([1, 2], shape: [1, 2])
  let channel = try AffineGroups(bits: 4, granularity: .channel, isSymmetric: false)
  for method in [
    HQQ(codec: try AffineGroups(bits: 4, granularity: .tensor)), HQQ(codec: channel, norm: 0),
    HQQ(codec: channel, norm: 1.5), HQQ(codec: channel, beta: 0), HQQ(codec: channel, kappa: .nan),
    HQQ(codec: channel, iterations: -1), HQQ(codec: channel, starts: 0),
  ] {
    #expect(throws: CompressionError.self) { try method.compress(weight) }
  }
  var values = [Float](repeating: 0.5, count: 64)
  values[40] = .nan
  #expect(throws: CompressionError.notFinite(row: 1, column: 8)) {
    try HQQ(codec: channel).compress(Tensor(values, shape: [2, 32]))
  }
  values[40] = 3e38
  values[41] = -3e38
  let half = try AffineGroups(
    bits: 4, granularity: .channel, isSymmetric: false, scaleType: .float16)
  #expect(throws: CompressionError.self) {
    try HQQ(codec: half).compress(Tensor(values, shape: [2, 32]))
  }
}
