import Tensors

/// Products inside one square float32 matrix, from which recursive factorizations are built.
///
/// Results are cut into tiles of fixed size that the pool spreads, and no sum is cut, so a result does
/// not depend on the number of threads.
struct SquareTiles {
  /// `[n, n]`, row by row.
  let base: Unshared<UnsafeMutablePointer<Float>>
  let n: Int

  private static let height = 168
  private static let width = 256

  func at(_ row: Int, _ column: Int) -> UnsafeMutablePointer<Float> {
    base.value + row * n + column
  }

  /// `A[rows, columns] += scale · A[rows, inner] · op(A)[inner, columns]`, where `op` reads the
  /// block `A[columns, inner]` transposed or the block `A[inner, columns]` as it lies.
  ///
  /// - Parameter lower: only tiles that reach the diagonal or below, for symmetric results.
  func add(
    to rows: Range<Int>, _ columns: Range<Int>, inner: Range<Int>, transposed: Bool, scale: Float,
    lower: Bool = false
  ) {
    forEachTile(rows, columns, lower: lower) { rows, columns in
      let right =
        transposed
        ? at(columns.lowerBound, inner.lowerBound) : at(inner.lowerBound, columns.lowerBound)
      TiledProduct.multiply(
        rows.count, columns.count, inner.count, at(rows.lowerBound, inner.lowerBound), n, false,
        right, n, transposed, into: at(rows.lowerBound, columns.lowerBound), n, scale: scale,
        adding: true)
    }
  }

  /// `A[rows, columns] := scale · A[rows, columns] · op(square)`; `square` is `[columns, columns]`.
  func multiplyRight(
    _ rows: Range<Int>, _ columns: Range<Int>, by square: UnsafePointer<Float>, transposed: Bool,
    scale: Float
  ) {
    let square = Unshared(square)
    let width = columns.count
    Parallel.ranges(rows.count, of: Self.height) { part in
      let target = at(rows.lowerBound + part.lowerBound, columns.lowerBound)
      let copy = Storage(byteCount: part.count * width * 4)
      let source = copy.base.assumingMemoryBound(to: Float.self)
      for row in 0..<part.count {
        (source + row * width).update(from: target + row * n, count: width)
      }
      TiledProduct.multiply(
        part.count, width, width, source, width, false, square.value, width, transposed,
        into: target, n, scale: scale)
    }
  }

  /// `A[rows, columns] := square · A[rows, columns]`; `square` is `[rows, rows]`.
  func multiplyLeft(
    _ rows: Range<Int>, _ columns: Range<Int>, by square: UnsafePointer<Float>
  ) {
    let square = Unshared(square)
    let height = rows.count
    Parallel.ranges(columns.count, of: Self.width) { part in
      let target = at(rows.lowerBound, columns.lowerBound + part.lowerBound)
      let copy = Storage(byteCount: part.count * height * 4)
      let source = copy.base.assumingMemoryBound(to: Float.self)
      for row in 0..<height {
        (source + row * part.count).update(from: target + row * n, count: part.count)
      }
      TiledProduct.multiply(
        height, part.count, height, square.value, height, false, source, part.count, false,
        into: target, n)
    }
  }

  private func forEachTile(
    _ rows: Range<Int>, _ columns: Range<Int>, lower: Bool,
    _ body: @Sendable (Range<Int>, Range<Int>) -> Void
  ) {
    var tiles: [(Range<Int>, Range<Int>)] = []
    for row in stride(from: rows.lowerBound, to: rows.upperBound, by: Self.height) {
      let height = row..<min(row + Self.height, rows.upperBound)
      for column in stride(from: columns.lowerBound, to: columns.upperBound, by: Self.width) {
        if lower, column >= height.upperBound { break }
        tiles.append((height, column..<min(column + Self.width, columns.upperBound)))
      }
    }
    Parallel.forEach(tiles.count) { [tiles] in body(tiles[$0].0, tiles[$0].1) }
  }
}

extension Range<Int> {
  /// Two parts, the first a multiple of `unit` and about half; nil when one unit holds all.
  func halves(of unit: Int) -> (Range<Int>, Range<Int>)? {
    guard count > unit else { return nil }
    let units = (count + unit - 1) / unit
    let middle = lowerBound + (units + 1) / 2 * unit
    return (lowerBound..<middle, middle..<upperBound)
  }
}
