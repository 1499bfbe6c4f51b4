#if canImport(Accelerate)
  import Accelerate
#else
  import COpenBLAS
#endif

/// A float32 matrix where it lies, read as it is or transposed.
package struct MatrixOperand: @unchecked Sendable {
  // `@unchecked Sendable`: read only, and outlived by its owner as every pointer here.
  let start: UnsafePointer<Float>
  /// After transposition.
  let rows, columns: Int
  let isTransposed: Bool

  package init(
    _ start: UnsafePointer<Float>, rows: Int, columns: Int, isTransposed: Bool = false
  ) {
    self.start = start
    (self.rows, self.columns) = isTransposed ? (columns, rows) : (rows, columns)
    self.isTransposed = isTransposed
  }

  var stride: Int { isTransposed ? rows : columns }
}

/// `target = alpha · a · b + beta · addend`, row by row of tiles that sizes alone decide, each by one
/// thread.
///
/// - Parameters:
///   - addend: `[a.rows, b.columns]`, which is not `target`; nil for nothing.
///   - target: `[a.rows, b.columns]`
package func product(
  _ alpha: Float, _ a: MatrixOperand, _ b: MatrixOperand, _ beta: Float = 0,
  adding addend: UnsafePointer<Float>? = nil, into target: UnsafeMutablePointer<Float>
) {
  precondition(a.columns == b.rows)
  useOneBLASThread()
  let (width, inner) = (b.columns, a.columns)
  let target = Unshared(target)
  let addend = addend.map { Unshared($0) }
  // Halves of a small matrix, so that two threads have work; tall tiles of a large one.
  let size = a.rows >= 512 ? 128 : 64
  Parallel.ranges(a.rows, of: size) { range in
    let tile = target.value + range.lowerBound * width
    if let addend {
      tile.update(from: addend.value + range.lowerBound * width, count: range.count * width)
    }
    cblas_sgemm(
      CblasRowMajor, a.isTransposed ? CblasTrans : CblasNoTrans,
      b.isTransposed ? CblasTrans : CblasNoTrans, Int32(range.count), Int32(width), Int32(inner),
      alpha, a.start + range.lowerBound * (a.isTransposed ? 1 : inner), Int32(a.stride), b.start,
      Int32(b.stride), addend == nil ? 0 : beta, tile, Int32(width))
  }
}
