import Tensors

#if canImport(Accelerate)
  import Accelerate
#else
  import COpenBLAS
#endif

/// Products of matrices in float64, row by row, for decompositions whose sums must be exact enough.
package enum DoubleProduct {
  /// Rows of a tile; fixed, so that sums do not depend on the number of threads.
  private static let height = 128

  /// `c = op(a) · op(b)`.
  ///
  /// - Parameters:
  ///   - a: `[m, k]` once transposed where asked for, rows `aStride` apart as it lies.
  ///   - b: `[k, n]` likewise.
  ///   - c: `[m, n]`.
  package static func run(
    _ m: Int, _ n: Int, _ k: Int, _ a: [Double], _ aStride: Int, _ transposesA: Bool, _ b: [Double],
    _ bStride: Int, _ transposesB: Bool, into c: inout [Double]
  ) {
    precondition(c.count == m * n)
    guard m > 0, n > 0 else { return }
    guard k > 0 else {
      c = [Double](repeating: 0, count: m * n)
      return
    }
    useOneBLASThread()
    a.withUnsafeBufferPointer { a in
      b.withUnsafeBufferPointer { b in
        c.withUnsafeMutableBufferPointer { c in
          guard let a = a.baseAddress, let b = b.baseAddress, let c = c.baseAddress else { return }
          let shared = Unshared((a, b, c))
          Parallel.ranges(m, of: height) { rows in
            let (a, b, c) = shared.value
            cblas_dgemm(
              CblasRowMajor, transposesA ? CblasTrans : CblasNoTrans,
              transposesB ? CblasTrans : CblasNoTrans, Int32(rows.count), Int32(n), Int32(k), 1,
              a + rows.lowerBound * (transposesA ? 1 : aStride), Int32(aStride), b, Int32(bStride),
              0, c + rows.lowerBound * n, Int32(n))
          }
        }
      }
    }
  }

  /// `c -= a · b` for matrices at bare addresses, rows their strides apart.
  ///
  /// - Parameters:
  ///   - a: `[m, k]`
  ///   - b: `[k, n]`
  ///   - c: `[m, n]`
  package static func subtract(
    _ m: Int, _ n: Int, _ k: Int, _ a: UnsafePointer<Double>, _ aStride: Int,
    _ b: UnsafePointer<Double>, _ bStride: Int, from c: UnsafeMutablePointer<Double>, _ cStride: Int
  ) {
    guard m > 0, n > 0, k > 0 else { return }
    useOneBLASThread()
    let shared = Unshared((a, b, c))
    Parallel.ranges(m, of: height) { rows in
      let (a, b, c) = shared.value
      cblas_dgemm(
        CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(rows.count), Int32(n), Int32(k), -1,
        a + rows.lowerBound * aStride, Int32(aStride), b, Int32(bStride), 1,
        c + rows.lowerBound * cStride, Int32(cStride))
    }
  }
}
