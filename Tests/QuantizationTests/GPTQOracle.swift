import Calibration
import Codecs
import Quantization
import Tensors
import TestSupport
import Testing

/// Inputs with a few shared directions, so that columns are worth compensating for one another.
struct CorrelatedInputs {
  let tokens: Int
  let inputs: Int
  /// `[tokens][inputs]`.
  let x: [[Float]]

  init(tokens: Int, inputs: Int, dead: Set<Int> = [], seed: UInt64) {
    var random = Xoshiro256(seed: seed)
    func centred() -> Double { random.uniform() + random.uniform() + random.uniform() - 1.5 }
    let directions = (0..<max(2, inputs / 8)).map { _ in (0..<inputs).map { _ in centred() } }
    self.tokens = tokens
    self.inputs = inputs
    x = (0..<tokens).map { _ in
      let mix = directions.map { _ in centred() }
      return (0..<inputs).map { column in
        guard !dead.contains(column) else { return 0 }
        var value = 0.3 * centred()
        for (amount, direction) in zip(mix, directions) { value += amount * direction[column] }
        return Float(value * (column % 7 == 3 ? 4 : 1))
      }
    }
  }

  var tensor: Tensor { Tensor(x.flatMap { $0 }, shape: [tokens, inputs]) }

  func statistics(original: Tensor? = nil) -> InputStatistics {
    let needs: StatisticsNeeds =
      original == nil ? [.secondMoment] : [.secondMoment, .crossMoment]
    let sum = InputStatisticsSum(inputs: inputs, needs: needs)
    sum.add(tensor, original: original)
    return sum.finish()
  }
}

/// GPTQ as the paper derives it (arXiv:2210.17323, sections 3 and 4): the explicit inverse of H for
/// the columns that are left, found by elimination at every step, and one column rounded after
/// another. No blocks, no Cholesky factor, everything in double precision.
///
/// The oracle follows the codes and grids it checks: where its own choice differs it must have been
/// within a small distance of a tie, and then it goes on with the other choice.
struct GPTQOracle {
  let method: GPTQ
  /// `[outputs][inputs]`: what is rounded.
  let weight: [[Double]]
  /// `[inputs][inputs]`: damped, dead columns on the diagonal alone.
  let hessian: [[Double]]
  /// Columns in the order they are rounded.
  let order: [Int]

  /// Distance from a tie, in steps, below which either neighbour may be taken.
  static let tie = 1e-4

  struct Ties {
    var codes = 0
    var grids = 0
  }

  func check(_ solution: GPTQ.Solution, comment: String) -> Ties {
    let (outputs, inputs) = (weight.count, order.count)
    let codec = method.codec
    let low = Double(codec.lowestCode)
    let high = Double(codec.highestCode)
    let inverses = (0..<inputs).map { step in inverseRow(of: Array(order[step...])) }
    let groupSize = codec.groupSize(inputs: inputs)
    var ties = Ties()
    for row in 0..<outputs {
      var w = weight[row]
      let start = w
      for (step, column) in order.enumerated() {
        let group = solution.columnGroups[column]
        let at = solution.grids.perRow == 0 ? 0 : row * solution.grids.perRow + group
        let scale = Double(solution.grids.scales[at])
        let zero = Double(solution.grids.zeros[at])
        // The grid, when the first column of its group comes.
        let members = (0..<inputs).filter { solution.columnGroups[$0] == group }
        let expectedMembers =
          method.order == .group
          ? Array(order[group * groupSize..<min((group + 1) * groupSize, inputs)]).sorted()
          : Array(group * groupSize..<min((group + 1) * groupSize, inputs))
        #expect(members == expectedMembers)
        if codec.granularity != .tensor, order.first(where: { members.contains($0) }) == column {
          let isLate = method.grids == .current && method.order != .static
          let values = members.map { isLate ? w[$0] : start[$0] }
          switch agreement(values, scale, zero) {
          case .same: break
          case .tie: ties.grids += 1
          case .wrong: Issue.record("\(comment): grid of row \(row), group \(group)")
          }
        }
        let steps = min(max(w[column] / scale + zero, low), high)
        let code =
          Double(
            solution.codes.bytes[row * inputs + column])
          - (solution.codes.bytes[row * inputs + column] > 127 ? 256 : 0)
        if steps.rounded(.toNearestOrEven) != code {
          ties.codes += 1
          #expect(
            abs(abs(steps - code) - 0.5) < Self.tie, "\(comment): row \(row), column \(column)")
        }
        let value = (code - zero) * scale
        let error = (w[column] - value) / inverses[step][0]
        for (index, other) in order[step...].enumerated() {
          w[other] -= error * inverses[step][index]
        }
      }
    }
    return ties
  }

  /// First row of the inverse of H over `columns`, by Gauss-Jordan elimination with pivots.
  private func inverseRow(of columns: [Int]) -> [Double] {
    solve(
      columns.map { row in columns.map { hessian[row][$0] } },
      columns.indices.map { $0 == 0 ? 1 : 0 })
  }

  private enum Agreement { case same, tie, wrong }

  /// Whether a grid is the one these values call for, in the codec's own terms.
  private func agreement(_ values: [Double], _ scale: Double, _ zero: Double) -> Agreement {
    let smallest = min(0, values.min() ?? 0)
    let largest = max(0, values.max() ?? 0)
    guard case .meanSquareError(let maximumShrink, let count) = method.clipping else {
      for nudge in [0, -1e-5, 1e-5] {
        let ideal = grid(smallest * (1 + nudge), largest * (1 + nudge))
        guard ideal.scale == scale else { continue }
        let exact =
          method.codec.isSymmetric ? zero : Double(method.codec.lowestCode) - smallest / scale
        if ideal.zero == zero { return nudge == 0 ? .same : .tie }
        return abs(abs(exact - zero) - 0.5) < Self.tie ? .tie : .wrong
      }
      return .wrong
    }
    func error(_ scale: Double, _ zero: Double) -> Double {
      values.reduce(0) { sum, value in
        let steps = min(
          max(value / scale + zero, Double(method.codec.lowestCode)),
          Double(method.codec.highestCode))
        let difference = (steps.rounded(.toNearestOrEven) - zero) * scale - value
        return sum + difference * difference
      }
    }
    let best =
      (0..<Int((maximumShrink * Double(count)).rounded())).map { candidate in
        let shrink = 1 - Double(candidate) / Double(count)
        let candidate = grid(smallest * shrink, largest * shrink)
        return error(candidate.scale, candidate.zero)
      }.min() ?? 0
    let reached = error(scale, zero)
    return abs(reached - best) <= 1e-3 * best + 1e-12 ? .same : .wrong
  }

  private func grid(_ smallest: Double, _ largest: Double) -> (scale: Double, zero: Double) {
    let codec = method.codec
    let low = Double(codec.lowestCode)
    let high = Double(codec.highestCode)
    let span =
      codec.isSymmetric
      ? max(-smallest, largest) / ((high - low) / 2) : (largest - smallest) / (high - low)
    let bits = codec.scaleType == .bfloat16 ? 7 : codec.scaleType == .float16 ? 10 : 23
    guard span > 0 else { return (bits == 7 ? 0x1p-7 : bits == 10 ? 0x1p-10 : 0x1p-23, 0) }
    let unit = Double(sign: .plus, exponent: Int(span.exponent) - bits, significand: 1)
    let scale = (span / unit).rounded(.toNearestOrEven) * unit
    guard !codec.isSymmetric else { return (scale, 0) }
    return (scale, min(max((low - smallest / scale).rounded(.toNearestOrEven), low), high))
  }
}

/// x with A x = b, by Gauss-Jordan elimination with row pivots.
func solve(_ a: [[Double]], _ b: [Double]) -> [Double] {
  var a = a
  var b = b
  let n = b.count
  for pivot in 0..<n {
    let best = (pivot..<n).max { abs(a[$0][pivot]) < abs(a[$1][pivot]) } ?? pivot
    a.swapAt(pivot, best)
    b.swapAt(pivot, best)
    for row in 0..<n where row != pivot {
      let factor = a[row][pivot] / a[pivot][pivot]
      guard factor != 0 else { continue }
      for column in pivot..<n { a[row][column] -= factor * a[pivot][column] }
      b[row] -= factor * b[pivot]
    }
  }
  return (0..<n).map { b[$0] / a[$0][$0] }
}
