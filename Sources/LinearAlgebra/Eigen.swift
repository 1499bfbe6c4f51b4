import Tensors

#if canImport(Accelerate)
  import Accelerate
#else
  import COpenBLAS
#endif

/// `S = Q · diag(λ) · Qᵀ` of a symmetric matrix S.
///
/// The largest component of each eigenvector, the first among equals, is positive, so that equal
/// matrices give equal factors.
package struct SymmetricEigen: Sendable {
  package let count: Int
  /// λ, rising.
  package let values: [Double]
  /// Q, `[count, count]`, row by row: column i is the eigenvector of `values[i]`.
  package let vectors: [Double]

  /// By LAPACK's `dsyevd` on one thread.
  ///
  /// - Parameter matrix: `[count, count]`, of which the part on and below the diagonal is read.
  package init(of matrix: [Double], count: Int) throws(DecompositionError) {
    precondition(matrix.count == count * count)
    guard count <= 1 << 14 else { throw .tooLarge(rows: count, columns: count) }
    guard matrix.allSatisfy(\.isFinite) else { throw .notFinite }
    self.count = count
    var values = [Double](repeating: 0, count: count)
    var vectors = [Double](repeating: 0, count: count * count)
    if count > 0 {
      var a = matrix
      guard Self.decompose(&a, count, &values) == 0 else {
        throw .notConverged(routine: "dsyevd")
      }
      // Column by column, `a` holds an eigenvector after the other.
      for index in 0..<count {
        var largest = 0.0
        for row in 0..<count where abs(a[index * count + row]) > abs(largest) {
          largest = a[index * count + row]
        }
        let sign = largest < 0 ? -1.0 : 1.0
        for row in 0..<count { vectors[row * count + index] = sign * a[index * count + row] }
      }
    }
    self.values = values
    self.vectors = vectors
  }

  private static func decompose(_ a: inout [Double], _ n: Int, _ w: inout [Double]) -> Int {
    useOneBLASThread()
    var job = Int8(UInt8(ascii: "V"))
    // Our lower triangle, row by row, is LAPACK's upper one.
    var triangle = Int8(UInt8(ascii: "U"))
    var size = Int32(n)
    var stride = size
    var work = [0.0]
    var integers: [Int32] = [0]
    var (workSize, integerSize): (Int32, Int32) = (-1, -1)
    var info: Int32 = 0
    for _ in 0..<2 {
      #if canImport(Accelerate)
        dsyevd_(
          &job, &triangle, &size, &a, &stride, &w, &work, &workSize, &integers, &integerSize, &info)
      #else
        dsyevd_(
          &job, &triangle, &size, &a, &stride, &w, &work, &workSize, &integers, &integerSize, &info,
          1, 1)
      #endif
      guard workSize < 0, info == 0 else { break }
      work = [Double](repeating: 0, count: Int(work[0]))
      integers = [Int32](repeating: 0, count: Int(integers[0]))
      (workSize, integerSize) = (Int32(work.count), Int32(integers.count))
    }
    return Int(info)
  }
}
