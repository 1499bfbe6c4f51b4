public import Tensors

/// How far a decoded matrix lies from the one that was encoded.
public struct EncodingError: Sendable, Hashable {
  /// `‖W - Ŵ‖²`, the sum over all weights.
  public var squaredError: Double
  /// `‖W‖²`.
  public var squaredWeight: Double
  /// The largest `|w - ŵ|`.
  public var largestError: Float
  public var count: Int

  public init(squaredError: Double, squaredWeight: Double, largestError: Float, count: Int) {
    self.squaredError = squaredError
    self.squaredWeight = squaredWeight
    self.largestError = largestError
    self.count = count
  }

  /// `‖W - Ŵ‖² / count`.
  public var meanSquaredError: Double { squaredError / Double(max(count, 1)) }
  /// `‖W - Ŵ‖² / ‖W‖²`; 0 for an all-zero matrix that came back as zeros.
  public var relativeError: Double { squaredError == 0 ? 0 : squaredError / squaredWeight }
}

/// Scales and zero points of a matrix, widened: `perRow` of them for each row, or one for all rows
/// when `perRow` is 0.
package struct AffineGrids: Sendable {
  package var scales: [Float]
  package var zeros: [Int8]
  package var perRow: Int

  package init(scales: [Float], zeros: [Int8], perRow: Int) {
    self.scales = scales
    self.zeros = zeros
    self.perRow = perRow
  }
}

/// Where the ends of a grid go.
package enum GridChoice: Sendable {
  /// On the smallest and largest weight.
  case range
  /// Candidate `i` of `count` shrinks the range to `1 - i / grid` of itself; the smallest sum of
  /// squared errors wins.
  case search(count: Int, grid: Float)
  /// On grids that exist.
  case given(AffineGrids)

  var candidates: (count: Int, grid: Float) {
    if case .search(let count, let grid) = self { (count, grid) } else { (1, 1) }
  }
}

extension AffineGroups {
  public func encode(_ weight: Tensor) throws(CodecError) -> GroupQuantizedWeight {
    try encode(weight, choosing: .range).weight
  }

  public func encode(_ weight: Tensor, onGridOf grid: GroupQuantizedWeight)
    throws(CodecError) -> GroupQuantizedWeight
  {
    precondition(grid.codec == self && weight.shape == [grid.outputs, grid.inputs])
    return try encode(weight, choosing: .given(grid.grids)).weight
  }

  /// One pass over the rows in tiles: each tile is read (from the file when mapped), rounded and
  /// packed, and its error summed per row, so the result does not depend on the number of threads.
  package func encode(_ weight: Tensor, choosing choice: GridChoice)
    throws(CodecError) -> (weight: GroupQuantizedWeight, error: EncodingError)
  {
    guard weight.shape.count == 2, weight.dtype.isFloatingPoint else {
      throw .unsupportedShape(shape: weight.shape, dtype: weight.dtype)
    }
    let inputs = weight.shape[1]
    if case .group(let size) = granularity, !allowsShortLastGroup, inputs % size != 0 {
      throw .groupDoesNotDivide(inputs: inputs, groupSize: size)
    }
    let pass = EncodingPass(codec: self, source: weight)
    if granularity == .tensor {
      if case .given = choice { return try pass.quantize(choosing: choice) }
      return try pass.quantize(choosing: .given(pass.wholeTensorGrid(choosing: choice)))
    }
    return try pass.quantize(choosing: choice)
  }
}
