public import Calibration
import Codecs
import LinearAlgebra
public import Tensors

/// Binary weights whose most sensitive columns are approximated twice.
/// Huang et al. 2024, BiLLM, arXiv:2402.04291, Algorithms 1 and 2.
///
/// In each block of 128 columns, of the matrix as errors of earlier blocks have changed it:
///
/// - Columns are ranked by `Σ w² / U[j, j]²`, the damage that dropping them would do, and as many of them
///   are salient as makes the block's error smallest.
/// - Salient columns are `α₁·B₁ + α₂·B₂` in each row: signs times their mean magnitude, then the same
///   of what is left.
/// - The other weights of a row are split at a magnitude p into two groups, each signs times its own
///   mean magnitude. The paper searches p on a grid for the whole block; sorting finds the best for
///   each row.
/// - Later blocks absorb the block's error (`ErrorFeedback`), through the triangle `U[B, B]` and not
///   its diagonal alone.
///
/// Both kinds are two planes of signs in storage: with group magnitudes l and h, weights of a split row are
/// `±(h+l)/2 ± (h-l)/2`. What the paper counts as 1.08 bits (signs, and the second signs of salient
/// columns) leaves the membership of the two groups out, which is a bit for each weight.
public struct BiLLM: WeightMethod, Hashable {
  public var blockSize: Int
  /// Salient columns that a block may have at most.
  public var maximumSalient: Int
  /// Share of the mean diagonal added to the diagonal of the second moment.
  public var damping: Double
  /// Type of the scales: float32, bfloat16 or float16.
  public var scaleType: DType

  public init(
    blockSize: Int = 128, maximumSalient: Int = 30, damping: Double = 0.01,
    scaleType: DType = .float16
  ) {
    self.blockSize = blockSize
    self.maximumSalient = maximumSalient
    self.damping = damping
    self.scaleType = scaleType
  }

  public var needs: StatisticsNeeds { .secondMoment }

  /// - Parameter weight: `[outputs, inputs]`; its file pages are given back afterwards.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    guard blockSize >= 1, maximumSalient >= 0 else {
      throw .unsupportedSetting(
        "blocks of \(blockSize) columns with \(maximumSalient) salient ones are not possible; choose "
          + "1 or more columns.")
    }
    defer { weight.giveBack() }
    let original = try weight.finiteMatrix()
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let feedback = try ErrorFeedback(statistics, damping: damping, sortsByActivity: false)
    var W = feedback.arranged(original, outputs: outputs)  // [out, in]
    let U = feedback.factor  // [in, in]

    var order: [Int] = []
    var offsets = [0]
    var salientCount = 0
    var signs = [[Bool]](repeating: [Bool](repeating: true, count: outputs * inputs), count: 2)
    var scales: [[[Float]]] = [[], []]  // [plane][group][row]
    for start in stride(from: 0, to: inputs, by: blockSize) {
      let end = min(start + blockSize, inputs)
      let block = Block(W, outputs, inputs, start..<end)
      let salient = block.salientColumns(
        ranked: block.ranking(U, inputs, start), atMost: min(maximumSalient, end - start))
      salientCount += salient.count
      let rest = block.columns.filter { !salient.contains($0) }
      // E, first the difference W - Ŵ of the block.
      var E = [Double](repeating: 0, count: outputs * block.width)
      for (columns, isSalient) in [(salient, true), (rest, false)] {
        let fits = Parallel.map(outputs) { row in
          let values = columns.map { block[row, $0] }
          return isSalient ? TwoPlanes(residual: values) : TwoPlanes(split: values)
        }
        let stored = fits.map { (scaleType.rounded($0.first), scaleType.rounded($0.second)) }
        scales[0].append(stored.map(\.0))
        scales[1].append(stored.map(\.1))
        for row in 0..<outputs {
          let (a, b) = (Double(stored[row].0), Double(stored[row].1))
          for (place, column) in columns.enumerated() {
            let value = block[row, column]
            let isPlus = value >= 0
            let isLarge = abs(value) > a
            let at = row * inputs + order.count + place
            signs[0][at] = isPlus
            signs[1][at] = isPlus == isLarge
            E[row * block.width + column] = value - (isPlus ? 1 : -1) * (a + (isLarge ? b : -b))
          }
        }
        order += columns.map { start + $0 }
        offsets.append(order.count)
      }
      Self.divide(&E, outputs, block.width, U, inputs, start)
      W.withUnsafeMutableBufferPointer { w in
        E.withUnsafeBufferPointer { e in
          U.withUnsafeBufferPointer { u in
            guard let w = w.baseAddress, let e = e.baseAddress, let u = u.baseAddress else {
              return
            }
            DoubleProduct.subtract(
              outputs, inputs - end, block.width, e, block.width, u + start * inputs + end, inputs,
              from: w + end, inputs)
          }
        }
      }
    }
    do {
      let groups = offsets.count - 1
      let planes = scales.map { plane in
        (0..<outputs * groups).map { plane[$0 % groups][$0 / groups] }
      }
      let stored = try BinaryWeight(
        signs: signs, scales: planes, offsets: offsets, outputs: outputs, order: order,
        scaleType: scaleType)
      let share = Double(salientCount) / Double(max(inputs, 1))
      return CompressedWeight(
        stored, of: weight, statistics,
        notes: [
          "\(salientCount) of \(inputs) columns are salient: \(Self.decimals(1 + share)) bits as the paper "
            + "counts, \(Self.decimals(stored.bitsPerWeight)) stored."
        ])
    } catch {
      throw CompressionError(error)
    }
  }

  /// E ← E · U[B, B]⁻¹, from the first column on.
  private static func divide(
    _ e: inout [Double], _ outputs: Int, _ width: Int, _ u: [Double], _ inputs: Int, _ start: Int
  ) {
    e.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(outputs, of: 16) { rows in
        for row in rows {
          let line = target.value + row * width
          for k in 0..<width {
            let at = (start + k) * inputs + start
            line[k] /= u[at + k]
            for column in k + 1..<max(width, k + 1) { line[column] -= line[k] * u[at + column] }
          }
        }
      }
    }
  }

  private static func decimals(_ value: Double) -> String {
    let hundredths = Int((value * 100).rounded())
    return "\(hundredths / 100).\(hundredths % 100 / 10)\(hundredths % 10)"
  }
}

/// Some columns of a matrix.
private struct Block: Sendable {
  let outputs: Int
  let width: Int
  private let values: [Double]
  var columns: Range<Int> { 0..<width }

  init(_ weight: [Double], _ outputs: Int, _ inputs: Int, _ range: Range<Int>) {
    self.outputs = outputs
    width = range.count
    values = (0..<outputs).flatMap { row in
      weight[row * inputs + range.lowerBound..<row * inputs + range.upperBound]
    }
  }

  subscript(_ row: Int, _ column: Int) -> Double { values[row * width + column] }

  /// Columns by falling `Σ w² / U[j, j]²`.
  func ranking(_ u: [Double], _ inputs: Int, _ start: Int) -> [Int] {
    var scores = [Double](repeating: 0, count: width)
    for row in 0..<outputs {
      for column in columns { scores[column] += self[row, column] * self[row, column] }
    }
    for column in columns {
      let diagonal = u[(start + column) * inputs + start + column]
      scores[column] /= diagonal * diagonal
    }
    return columns.sorted { (scores[$0], $1) > (scores[$1], $0) }
  }

  /// The first of the ranked columns, as many as make the squared error smallest.
  func salientColumns(ranked: [Int], atMost limit: Int) -> [Int] {
    let errors = Parallel.map(outputs) { row in
      let values = ranked.map { self[row, $0] }
      return (0...limit).map { count in
        TwoPlanes(residual: Array(values[..<count])).error
          + TwoPlanes(split: Array(values[count...])).error
      }
    }
    var (best, smallest) = (0, Double.infinity)
    for count in 0...limit {
      let error = errors.reduce(0) { $0 + $1[count] }
      if error < smallest { (best, smallest) = (count, error) }
    }
    return Array(ranked[..<best])
  }
}

/// `w ≈ ±first ± second`, the second sign plus for magnitudes above `first`.
private struct TwoPlanes: Sendable {
  var first = 0.0
  var second = 0.0
  /// Sum of squared differences.
  var error = 0.0

  /// Signs times their mean magnitude, and the same of what is left.
  init(residual values: [Double]) {
    guard !values.isEmpty else { return }
    let count = Double(values.count)
    let magnitudes = values.map { abs($0) }
    first = magnitudes.reduce(0, +) / count
    let left = magnitudes.map { abs($0 - first) }
    second = left.reduce(0, +) / count
    error = left.reduce(0) { $0 + ($1 - second) * ($1 - second) }
  }

  /// Two groups of magnitudes, each its mean, split where the error is smallest.
  init(split values: [Double]) {
    guard !values.isEmpty else { return }
    let sorted = values.map { abs($0) }.sorted()
    let squares = sorted.reduce(0) { $0 + $1 * $1 }
    let total = sorted.reduce(0, +)
    var (below, best) = (0.0, -1.0)
    for (index, value) in sorted.enumerated() {
      // The groups: `index` numbers below, the others from here on.
      let above = total - below
      let (few, many) = (Double(index), Double(sorted.count - index))
      let gain = (index > 0 ? below * below / few : 0) + above * above / many
      if gain > best {
        best = gain
        let (low, high) = (index > 0 ? below / few : above / many, above / many)
        first = (high + low) / 2
        second = (high - low) / 2
      }
      below += value
    }
    error = max(squares - best, 0)
  }
}
