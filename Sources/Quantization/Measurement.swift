package import Calibration
package import Codecs
import LinearAlgebra
package import Tensors

extension CompressedWeight {
  /// A stored weight with its distance from the original, and from the original's outputs where the
  /// inputs' second moment is known.
  package init(
    _ stored: any StoredWeight, of weight: Tensor, _ statistics: InputStatistics,
    notes: [String] = []
  ) {
    let original = weight.widened()
    let decoded = stored.dequantized()
    let difference = decoded - original
    self.init(
      weight: stored,
      error: EncodingError(
        squaredError: Self.squares(difference), squaredWeight: Self.squares(original),
        largestError: difference.array.reduce(0) { max($0, abs($1)) }, count: original.count),
      relativeOutputError: statistics.secondMoment.map {
        OutputError.relative(original, stored, $0)
      }, notes: notes)
  }

  private static func squares(_ matrix: Tensor) -> Double {
    matrix.array.reduce(0) { $0 + Double($1) * Double($1) }
  }
}

extension Tensor {
  /// The elements of a matrix of any floating-point type, row by row.
  /// - Throws: `CompressionError.notFinite`, `.codec(.unsupportedShape)`.
  package func finiteMatrix() throws(CompressionError) -> [Double] {
    guard shape.count == 2, dtype.isFloatingPoint else {
      throw .codec(.unsupportedShape(shape: shape, dtype: dtype))
    }
    let values = widened()
    guard values.isFinite else {
      let index = (0..<count).first { !values.floats[$0].isFinite } ?? 0
      throw .notFinite(row: index / columns, column: index % columns)
    }
    return values.array.map(Double.init)
  }
}
