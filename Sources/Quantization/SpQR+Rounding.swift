import Calibration
import Codecs
import Tensors

/// What SpQR has rounded so far. Rows that share the levels of their scales are one piece of work.
///
/// `@unchecked Sendable`: pieces write only their rows of these arrays, through `Parallel`, which waits.
final class SpQRRounding: @unchecked Sendable {
  private let settings: BilevelWeight.Settings
  private let outputs: Int
  private let inputs: Int
  private let threshold: Double
  private let outlierType: DType
  private var codes: UnsafeMutableBufferPointer<UInt8>
  private var scaleCodes: UnsafeMutableBufferPointer<UInt8>
  private var zeroCodes: UnsafeMutableBufferPointer<UInt8>
  private var scaleLevels: UnsafeMutableBufferPointer<Float>
  private var zeroLevels: UnsafeMutableBufferPointer<Float>
  /// What the code of an outlier misses, `outputs × inputs` in order; zero elsewhere.
  private var missing: UnsafeMutableBufferPointer<Float>
  private var isOutlier: UnsafeMutableBufferPointer<Bool>

  init(
    settings: BilevelWeight.Settings, outputs: Int, inputs: Int, threshold: Double,
    outlierType: DType
  ) {
    self.settings = settings
    self.outputs = outputs
    self.inputs = inputs
    self.threshold = threshold
    self.outlierType = outlierType
    func zeros<V>(_ count: Int, _ zero: V) -> UnsafeMutableBufferPointer<V> {
      let buffer = UnsafeMutableBufferPointer<V>.allocate(capacity: count)
      buffer.initialize(repeating: zero)
      return buffer
    }
    let groups = settings.groupCount(inputs: inputs)
    let levels = groups * settings.levelCount(outputs: outputs) * 2
    codes = zeros(outputs * inputs, 0)
    scaleCodes = zeros(groups * outputs, 0)
    zeroCodes = zeros(groups * outputs, 0)
    scaleLevels = zeros(levels, 0)
    zeroLevels = zeros(levels, 0)
    missing = zeros(outputs * inputs, 0)
    isOutlier = zeros(outputs * inputs, false)
  }

  deinit {
    codes.deallocate()
    scaleCodes.deallocate()
    zeroCodes.deallocate()
    scaleLevels.deallocate()
    zeroLevels.deallocate()
    missing.deallocate()
    isOutlier.deallocate()
  }

  /// Rounds a block of columns, whole groups; `errors` `[outputs, block]` is what later columns absorb
  /// times U.
  func round(
    _ block: Range<Int>, _ weight: UnsafeMutablePointer<Double>, _ factor: UnsafePointer<Double>,
    errors: UnsafeMutablePointer<Double>
  ) {
    let shared = Unshared((weight, factor, errors))
    Parallel.ranges(outputs, of: settings.levelRows) { rows in
      let (weight, factor, errors) = shared.value
      for start in stride(from: block.lowerBound, to: block.upperBound, by: self.settings.groupSize)
      {
        let group = start..<min(start + self.settings.groupSize, block.upperBound)
        let grids = self.grids(rows, group, weight, factor)
        for column in group {
          for (row, grid) in zip(rows, grids) {
            self.round(
              row, column, grid, weight + row * self.inputs, factor + column * self.inputs, block,
              errors + row * block.count)
          }
        }
      }
    }
  }

  /// Each row's grid, fitted to the weights that are likely to stay in it, with scale and zero point as
  /// they will be stored.
  private func grids(
    _ rows: Range<Int>, _ group: Range<Int>, _ weight: UnsafeMutablePointer<Double>,
    _ factor: UnsafePointer<Double>
  ) -> [SpQRGrid] {
    let diagonal = group.map { factor[$0 * inputs + $0] }
    let fitted = rows.map { row in
      let values = group.map { weight[row * inputs + $0] }
      guard threshold.isFinite else { return SpQRGrid(values, bits: settings.bits) }
      let savings = SpQRGrid.savings(values, diagonal, bits: settings.bits)
      let kept = zip(values, savings).filter { $1 <= threshold }.map(\.0)
      // The mean stands in for an outlier, which leaves the range as it is.
      return SpQRGrid(kept, bits: settings.bits)
    }
    let index = group.lowerBound / settings.groupSize
    let level =
      2 * (index * settings.levelCount(outputs: outputs) + rows.lowerBound / settings.levelRows)
    let scales = Levels(fitted.map(\.scale), bits: settings.levelBits)
    let zeros = Levels(fitted.map(\.zero), bits: settings.levelBits)
    (scaleLevels[level], scaleLevels[level + 1]) = (scales.base, scales.step)
    (zeroLevels[level], zeroLevels[level + 1]) = (zeros.base, zeros.step)
    return rows.enumerated().map { place, row in
      scaleCodes[index * outputs + row] = scales.codes[place]
      zeroCodes[index * outputs + row] = zeros.codes[place]
      return SpQRGrid(
        scale: scales.value(place), zero: zeros.value(place), bits: settings.bits)
    }
  }

  private func round(
    _ row: Int, _ column: Int, _ grid: SpQRGrid, _ weight: UnsafeMutablePointer<Double>,
    _ factor: UnsafePointer<Double>, _ block: Range<Int>, _ errors: UnsafeMutablePointer<Double>
  ) {
    let value = weight[column]
    let code = grid.code(value)
    codes[row * inputs + column] = UInt8(code)
    var difference = value - grid.scale * (code - grid.zero)
    let scaled = difference / factor[column]
    if scaled * scaled > threshold {
      let stored = outlierType.rounded(difference)
      missing[row * inputs + column] = stored
      isOutlier[row * inputs + column] = true
      difference -= Double(stored)
    }
    let error = difference / factor[column]
    errors[column - block.lowerBound] = error
    for later in column + 1..<max(block.upperBound, column + 1) {
      weight[later] -= error * factor[later]
    }
  }

  /// - Parameter order: which column of the matrix each rounded one is, if they were moved.
  func finish(_ weight: Tensor, _ statistics: InputStatistics, order: [Int]?)
    throws(CompressionError) -> CompressedWeight
  {
    do {
      let base = try BilevelWeight(
        settings: settings, outputs: outputs, inputs: inputs, codes: Array(codes),
        scaleCodes: Array(scaleCodes), zeroCodes: Array(zeroCodes), scaleLevels: Array(scaleLevels),
        zeroLevels: Array(zeroLevels), order: order)
      let entries = (0..<outputs).map { row in
        (0..<inputs).filter { isOutlier[row * inputs + $0] }
          .map { (column: order?[$0] ?? $0, value: missing[row * inputs + $0]) }
          .sorted { $0.column < $1.column }
      }
      let sparse = try SparseWeight(inputs: inputs, rows: entries, valueType: outlierType)
      let stored = try SumWeight([base, sparse])
      let thousandths = Int(
        (100_000 * Double(sparse.entryCount) / Double(max(weight.count, 1))).rounded())
      return CompressedWeight(
        stored, of: weight, statistics,
        notes: [
          "\(sparse.entryCount) outliers (\(Double(thousandths) / 1000) %), "
            + "\((stored.bitsPerWeight * 100).rounded() / 100) bits a weight."
        ])
    } catch {
      throw CompressionError(error)
    }
  }
}

/// Numbers on an affine grid from the smallest to the largest, its base and step in float16.
private struct Levels {
  let base: Float
  let step: Float
  let codes: [UInt8]

  init(_ values: [Double], bits: Int) {
    let low = values.min() ?? 0
    let high = values.max() ?? 0
    let highest = Double((1 << bits) - 1)
    let base = DType.float16.rounded(low)
    let step = DType.float16.rounded((high - low) / highest)
    self.base = base
    self.step = step
    codes = values.map { value in
      // Levels that float16 cannot hold are refused when all is stored.
      guard step > 0, step.isFinite, base.isFinite, value.isFinite else { return 0 }
      let code = ((value - Double(base)) / Double(step)).rounded(.toNearestOrEven)
      return UInt8(min(max(code, 0), highest))
    }
  }

  /// As a reader computes it, in float32.
  func value(_ index: Int) -> Double { Double(base + step * Float(codes[index])) }
}
