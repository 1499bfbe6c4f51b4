import LinearAlgebra
public import Tensors

/// What methods may ask of the inputs X `[tokens, inputs]` that reach a matrix.
public struct StatisticsNeeds: OptionSet, Sendable, Hashable {
  /// One bit for each of the needs below.
  public let rawValue: Int
  /// - Parameter rawValue: bits of needs.
  public init(rawValue: Int) { self.rawValue = rawValue }

  /// Mean and largest magnitude, and mean square, of each column.
  public static let magnitudes = StatisticsNeeds(rawValue: 1)
  /// `XᵀX / tokens`.
  public static let secondMoment = StatisticsNeeds(rawValue: 2)
  /// `(X̃ - X)ᵀX / tokens`, where X̃ are the inputs in the uncompressed model.
  public static let crossMoment = StatisticsNeeds(rawValue: 4)
  /// Some rows of X as they are, evenly spaced.
  public static let samples = StatisticsNeeds(rawValue: 8)
}

/// What was measured of the inputs X `[tokens, inputs]` of matrices that share them.
public struct InputStatistics: Sendable {
  /// Columns of X.
  public let inputs: Int
  /// Rows of X that were seen.
  public let tokens: Int
  /// `[inputs]`: mean of |x|, largest |x|, mean of x².
  public let meanMagnitude: [Float]
  public let largestMagnitude: [Float]
  public let meanSquare: [Float]
  /// `XᵀX / tokens`, symmetric `[inputs, inputs]`; half of what GPTQ calls H. Nil unless asked for.
  public let secondMoment: Tensor?
  /// `(X̃ - X)ᵀX / tokens` `[inputs, inputs]`. Nil unless asked for.
  public let crossMoment: Tensor?
  /// Rows of X `[some, inputs]`, evenly spaced among all. Nil unless asked for.
  public let samples: Tensor?

  /// For methods that look at the weight alone.
  public static func none(inputs: Int) -> InputStatistics {
    let zeros = [Float](repeating: 0, count: inputs)
    return InputStatistics(
      inputs: inputs, tokens: 0, meanMagnitude: zeros, largestMagnitude: zeros, meanSquare: zeros,
      secondMoment: nil, crossMoment: nil, samples: nil)
  }

  /// The same inputs, column j multiplied by `factors[j]`.
  public func scaled(by factors: [Float]) -> InputStatistics {
    precondition(factors.count == inputs)
    func times(_ values: [Float], _ power: Int) -> [Float] {
      zip(values, factors).map { $0 * (power == 2 ? $1 * $1 : abs($1)) }
    }
    func both(_ matrix: Tensor) -> Tensor {
      Tensor(shape: matrix.shape) { target in
        let values = matrix.floats
        for row in 0..<inputs {
          for column in 0..<inputs {
            let at = row * inputs + column
            target[at] = values[at] * factors[row] * factors[column]
          }
        }
      }
    }
    return InputStatistics(
      inputs: inputs, tokens: tokens, meanMagnitude: times(meanMagnitude, 1),
      largestMagnitude: times(largestMagnitude, 1), meanSquare: times(meanSquare, 2),
      secondMoment: secondMoment.map(both), crossMoment: crossMoment.map(both),
      samples: samples.map { $0.scalingColumns(by: factors) })
  }
}

/// Sums over batches in the order they come, so that neither threads nor memory change a bit.
/// Products of columns are summed in float32 (a batch at a time), the rest in float64.
public final class InputStatisticsSum {
  /// Columns of X.
  public let inputs: Int
  /// What is summed besides magnitudes.
  public let needs: StatisticsNeeds
  public private(set) var tokens = 0
  private var magnitudes: [Double]
  private var squares: [Double]
  private var largest: [Float]
  private var rows: [[Float]] = []
  /// Of all rows seen, every so manieth is kept.
  private var sampleStride = 1
  private let moment: Storage?
  private let cross: Storage?

  public init(inputs: Int, needs: StatisticsNeeds) {
    self.inputs = inputs
    self.needs = needs
    magnitudes = [Double](repeating: 0, count: inputs)
    squares = magnitudes
    largest = [Float](repeating: 0, count: inputs)
    func zeros() -> Storage {
      let storage = Storage(byteCount: inputs * inputs * 4)
      storage.base.assumingMemoryBound(to: Float.self)
        .initialize(repeating: 0, count: inputs * inputs)
      return storage
    }
    moment = needs.contains(.secondMoment) ? zeros() : nil
    cross = needs.contains(.crossMoment) ? zeros() : nil
  }

  /// Bytes that the sums of a matrix take.
  public static func byteCount(inputs: Int, needs: StatisticsNeeds) -> Int {
    let matrices =
      (needs.contains(.secondMoment) ? 1 : 0) + (needs.contains(.crossMoment) ? 1 : 0)
    return inputs * (20 + matrices * inputs * 4)
      + (needs.contains(.samples) ? 2 * sampleRows * inputs * 4 : 0)
  }

  /// - Parameters:
  ///   - x: float32 `[tokens, inputs]`.
  ///   - original: the same tokens in the uncompressed model; wanted for the cross moment.
  public func add(_ x: Tensor, original: Tensor? = nil) {
    precondition(x.columns == inputs && x.dtype == .float32)
    addMagnitudes(x)
    if needs.contains(.samples) { addSamples(x) }
    tokens += x.rows
    if let moment {
      SymmetricProduct.add(x, toLower: moment.base.assumingMemoryBound(to: Float.self))
    }
    guard let cross else { return }
    guard let original, original.shape == x.shape else {
      preconditionFailure("a cross moment is of two streams of the same tokens")
    }
    let difference = original - x
    TiledProduct.run(
      inputs, inputs, x.rows, difference.operand(transposed: true), x.operand(),
      into: cross.base.assumingMemoryBound(to: Float.self), stride: inputs, adding: true)
  }

  /// Most rows that are kept.
  private static let sampleRows = 512

  private func addSamples(_ x: Tensor) {
    for row in 0..<x.rows where (tokens + row) % sampleStride == 0 {
      rows.append(Array(UnsafeBufferPointer(start: x.floats + row * inputs, count: inputs)))
      guard rows.count > Self.sampleRows else { continue }
      // Twice as far apart: every other of those kept so far goes.
      sampleStride *= 2
      rows = rows.indices.filter { $0 % 2 == 0 }.map { rows[$0] }
    }
  }

  private func addMagnitudes(_ x: Tensor) {
    let values = Unshared(x.floats)
    let (rows, inputs) = (x.rows, inputs)
    magnitudes.withUnsafeMutableBufferPointer { magnitudes in
      squares.withUnsafeMutableBufferPointer { squares in
        largest.withUnsafeMutableBufferPointer { largest in
          guard let sums = magnitudes.baseAddress, let squareSums = squares.baseAddress,
            let peaks = largest.baseAddress
          else { return }
          let target = Unshared((sums, squareSums, peaks))
          Parallel.ranges(inputs, of: 256) { columns in
            let (sums, squareSums, peaks) = target.value
            for row in 0..<rows {
              let line = values.value + row * inputs
              for column in columns {
                let magnitude = abs(line[column])
                sums[column] += Double(magnitude)
                squareSums[column] += Double(magnitude) * Double(magnitude)
                peaks[column] = max(peaks[column], magnitude)
              }
            }
          }
        }
      }
    }
  }

  /// Everything added so far. Afterwards nothing more may be added.
  public func finish() -> InputStatistics {
    let scale = 1 / Double(max(tokens, 1))
    func matrix(_ storage: Storage?, isLower: Bool) -> Tensor? {
      guard let storage else { return nil }
      let values = storage.base.assumingMemoryBound(to: Float.self)
      if isLower { SymmetricProduct.mirrorLower(values, inputs) }
      for index in 0..<inputs * inputs { values[index] *= Float(scale) }
      return Tensor(dtype: .float32, shape: [inputs, inputs], storage: storage)
    }
    return InputStatistics(
      inputs: inputs, tokens: tokens, meanMagnitude: magnitudes.map { Float($0 * scale) },
      largestMagnitude: largest, meanSquare: squares.map { Float($0 * scale) },
      secondMoment: matrix(moment, isLower: true), crossMoment: matrix(cross, isLower: false),
      samples: needs.contains(.samples)
        ? Tensor(rows.flatMap { $0 }, shape: [rows.count, inputs]) : nil)
  }
}

extension Tensor {
  /// A float32 matrix with column j multiplied by `factors[j]`.
  package func scalingColumns(by factors: [Float]) -> Tensor {
    precondition(factors.count == columns && dtype == .float32)
    let (source, columns) = (Unshared(floats), columns)
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      factors.withUnsafeBufferPointer { factors in
        let factors = Unshared(factors)
        Parallel.ranges(rows, of: max(1, 65_536 / max(columns, 1))) { rows in
          for row in rows {
            let (from, to) = (source.value + row * columns, target.value + row * columns)
            for column in 0..<columns { to[column] = from[column] * factors.value[column] }
          }
        }
      }
    }
  }
}
