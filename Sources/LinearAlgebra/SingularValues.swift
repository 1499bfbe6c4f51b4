import Tensors

#if canImport(Accelerate)
  import Accelerate
#else
  import COpenBLAS
#endif

/// `A = U · diag(σ) · Vᵀ` of a matrix A `[rows, columns]`, thin: `count` is the smaller side, or
/// fewer where only the largest singular values were asked for.
///
/// Singular vectors have two possible signs. Here the largest component of each column of U, the
/// first among equals, is positive, so that equal matrices give equal factors.
package struct SingularValues: Sendable {
  package let rows: Int
  package let columns: Int
  package var count: Int { values.count }
  /// U, `[rows, count]`, row by row; its columns are orthonormal.
  package let left: [Double]
  /// σ, falling.
  package let values: [Double]
  /// Vᵀ, `[count, columns]`, row by row; its rows are orthonormal.
  package let right: [Double]

  /// All singular values, by LAPACK's `dgesdd` on one thread.
  ///
  /// - Parameter matrix: `[rows, columns]`, row by row.
  package init(of matrix: [Double], rows: Int, columns: Int) throws(DecompositionError) {
    precondition(matrix.count == rows * columns)
    let size = min(rows, columns)
    guard min(rows, columns) <= 1 << 14, max(rows, columns) < 1 << 24 else {
      throw .tooLarge(rows: rows, columns: columns)
    }
    guard matrix.allSatisfy(\.isFinite) else { throw .notFinite }
    var values = [Double](repeating: 0, count: size)
    var right = [Double](repeating: 0, count: size * columns)
    var left = [Double](repeating: 0, count: rows * size)
    if size > 0 {
      // Read column by column, the matrix is Aᵀ = V · diag(σ) · Uᵀ: what LAPACK calls U is our Vᵀ
      // read row by row, and its Vᵀ our U.
      var a = matrix
      let status = Self.decompose(&a, columns, rows, &values, &right, &left)
      guard status == 0 else { throw .notConverged(routine: "dgesdd") }
    }
    self.init(rows: rows, columns: columns, left: left, values: values, right: right)
  }

  /// The `count` largest singular values, through the eigenvalues of the smaller of `A·Aᵀ` and
  /// `Aᵀ·A`: a fraction of the work of the whole decomposition. Squaring leaves a singular value σ
  /// with an error of about 10⁻¹⁶ σ₁²/σ, which is nothing for the leading ones that a correction
  /// keeps.
  package init(leading count: Int, of matrix: [Double], rows: Int, columns: Int)
    throws(DecompositionError)
  {
    precondition(matrix.count == rows * columns)
    let isWide = rows <= columns
    let side = min(rows, columns)
    let count = min(count, side)
    var gram = [Double](repeating: 0, count: side * side)
    DoubleProduct.run(
      side, side, max(rows, columns), matrix, columns, !isWide, matrix, columns, isWide, into: &gram
    )
    let eigen = try SymmetricEigen(of: gram, count: side)
    // Eigenvalues rise; the last are the largest.
    let kept = (0..<count).map { side - 1 - $0 }
    let values = kept.map { max(eigen.values[$0], 0).squareRoot() }
    let threshold = (values.first ?? 0) * 1e-14
    // Rows: singular vectors of the smaller side.
    var near = [Double](repeating: 0, count: count * side)
    for (row, index) in kept.enumerated() {
      for at in 0..<side { near[row * side + at] = eigen.vectors[at * side + index] }
    }
    // nearᵀ · A / σ or A · near / σ. A σ of zero has no direction on the other side: zeros.
    let far = max(rows, columns)
    var other = [Double](repeating: 0, count: count * far)
    DoubleProduct.run(count, far, side, near, side, false, matrix, columns, !isWide, into: &other)
    for row in 0..<count {
      let inverse = values[row] > threshold ? 1 / values[row] : 0
      for at in 0..<far { other[row * far + at] *= inverse }
    }
    self.init(
      rows: rows, columns: columns,
      left: Self.transposed(isWide ? near : other, count, rows), values: values,
      right: isWide ? other : near)
  }

  private init(rows: Int, columns: Int, left: [Double], values: [Double], right: [Double]) {
    self.rows = rows
    self.columns = columns
    self.values = values
    let count = values.count
    var (left, right) = (left, right)
    for index in 0..<count {
      var largest = 0.0
      for row in 0..<rows where abs(left[row * count + index]) > abs(largest) {
        largest = left[row * count + index]
      }
      guard largest < 0 else { continue }
      for row in 0..<rows { left[row * count + index].negate() }
      for column in 0..<columns { right[index * columns + column].negate() }
    }
    self.left = left
    self.right = right
  }

  private static func transposed(_ values: [Double], _ rows: Int, _ columns: Int) -> [Double] {
    var result = [Double](repeating: 0, count: rows * columns)
    for row in 0..<rows {
      for column in 0..<columns { result[column * rows + row] = values[row * columns + column] }
    }
    return result
  }

  /// LAPACK's thin decomposition of an `m × n` matrix, all matrices column by column.
  private static func decompose(
    _ a: inout [Double], _ m: Int, _ n: Int, _ s: inout [Double], _ u: inout [Double],
    _ vt: inout [Double]
  ) -> Int {
    useOneBLASThread()
    var (rows, columns, size) = (Int32(m), Int32(n), Int32(min(m, n)))
    var (rowStride, leftStride) = (rows, rows)
    var rightStride = size
    var job = Int8(UInt8(ascii: "S"))
    var integers = [Int32](repeating: 0, count: 8 * min(m, n))
    var work = [0.0]
    var workSize: Int32 = -1
    var info: Int32 = 0
    for _ in 0..<2 {
      #if canImport(Accelerate)
        dgesdd_(
          &job, &rows, &columns, &a, &rowStride, &s, &u, &leftStride, &vt, &rightStride, &work,
          &workSize, &integers, &info)
      #else
        dgesdd_(
          &job, &rows, &columns, &a, &rowStride, &s, &u, &leftStride, &vt, &rightStride, &work,
          &workSize, &integers, &info, 1)
      #endif
      // The first call asks how much scratch memory is best.
      guard workSize < 0, info == 0 else { break }
      work = [Double](repeating: 0, count: Int(work[0]))
      workSize = Int32(work.count)
    }
    return Int(info)
  }
}
