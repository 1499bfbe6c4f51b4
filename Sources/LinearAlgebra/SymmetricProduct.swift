package import Tensors

/// Sums of `XᵀX`: one triangle is computed, a tile for each call of the matrix product, and mirrored
/// when the sum is whole.
package enum SymmetricProduct {
  /// Columns of a tile; fixed, so that sums do not depend on the number of threads.
  private static let width = 192

  /// Adds `XᵀX` to the lower triangle of `sum`.
  ///
  /// - Parameters:
  ///   - x: float32 `[tokens, n]`.
  ///   - sum: `[n, n]`, row by row.
  package static func add(_ x: Tensor, toLower sum: UnsafeMutablePointer<Float>) {
    let (tokens, n) = (x.rows, x.columns)
    let values = Unshared(x.floats)
    let target = Unshared(sum)
    forEachTile(n) { rows, columns in
      TiledProduct.multiply(
        rows.count, columns.count, tokens,
        values.value + rows.lowerBound, n, true, values.value + columns.lowerBound, n, false,
        into: target.value + rows.lowerBound * n + columns.lowerBound, n, adding: true)
    }
  }

  /// Copies the lower triangle of an `[n, n]` matrix to the upper one.
  package static func mirrorLower(_ matrix: UnsafeMutablePointer<Float>, _ n: Int) {
    let target = Unshared(matrix)
    forEachTile(n) { rows, columns in
      for row in rows {
        for column in columns where column < row {
          target.value[column * n + row] = target.value[row * n + column]
        }
      }
    }
  }

  /// Tiles on and below the diagonal, the whole square of those on it.
  private static func forEachTile(_ n: Int, _ body: @Sendable (Range<Int>, Range<Int>) -> Void) {
    let tiles = (n + width - 1) / width
    func range(_ tile: Int) -> Range<Int> { tile * width..<min((tile + 1) * width, n) }
    let pairs = (0..<tiles).flatMap { row in (0...row).map { (range(row), range($0)) } }
    Parallel.forEach(pairs.count) { body(pairs[$0].0, pairs[$0].1) }
  }
}
