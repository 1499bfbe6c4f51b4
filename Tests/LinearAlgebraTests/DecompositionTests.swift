import LinearAlgebra
import Tensors
import Testing

private func matrix(_ rows: Int, _ columns: Int, seed: UInt64) -> [Double] {
  var random = Xoshiro256(seed: seed)
  return (0..<rows * columns).map { _ in random.normal() }
}

/// `a · b`, `[m, k]` times `[k, n]`.
private func times(_ a: [Double], _ b: [Double], _ m: Int, _ k: Int, _ n: Int) -> [Double] {
  (0..<m * n).map { at in
    (0..<k).reduce(0) { $0 + a[at / n * k + $1] * b[$1 * n + at % n] }
  }
}

private func transposed(_ a: [Double], _ rows: Int, _ columns: Int) -> [Double] {
  (0..<a.count).map { a[$0 % rows * columns + $0 / rows] }
}

private func distance(_ a: [Double], _ b: [Double]) -> Double {
  zip(a, b).reduce(0) { max($0, abs($1.0 - $1.1)) }
}

private func identity(_ n: Int) -> [Double] { (0..<n * n).map { $0 / n == $0 % n ? 1 : 0 } }

/// Singular values of a matrix by one-sided Jacobi rotations, falling.
private func jacobiSingularValues(_ a: [Double], _ rows: Int, _ columns: Int) -> [Double] {
  var a = rows < columns ? transposed(a, rows, columns) : a
  let (m, n) = (max(rows, columns), min(rows, columns))
  for _ in 0..<60 {
    for p in 0..<n {
      for q in p + 1..<max(n, p + 1) {
        var (alpha, beta, gamma) = (0.0, 0.0, 0.0)
        for row in 0..<m {
          let (x, y) = (a[row * n + p], a[row * n + q])
          alpha += x * x
          beta += y * y
          gamma += x * y
        }
        guard abs(gamma) > 1e-16 * (alpha * beta).squareRoot() else { continue }
        let zeta = (beta - alpha) / (2 * gamma)
        let t = (zeta < 0 ? -1 : 1) / (abs(zeta) + (1 + zeta * zeta).squareRoot())
        let c = 1 / (1 + t * t).squareRoot()
        for row in 0..<m {
          let (x, y) = (a[row * n + p], a[row * n + q])
          a[row * n + p] = c * x - c * t * y
          a[row * n + q] = c * t * x + c * y
        }
      }
    }
  }
  return (0..<n).map { column in
    (0..<m).reduce(0) { $0 + a[$1 * n + column] * a[$1 * n + column] }.squareRoot()
  }.sorted(by: >)
}

private let shapes = [(1, 1), (1, 7), (7, 1), (5, 5), (12, 4), (4, 13), (33, 20)]

@Test(arguments: shapes) func singularValuesRebuildTheMatrix(rows: Int, columns: Int) throws {
  let a = matrix(rows, columns, seed: UInt64(rows * 100 + columns))
  let k = min(rows, columns)
  for svd in [
    try SingularValues(of: a, rows: rows, columns: columns),
    try SingularValues(leading: k, of: a, rows: rows, columns: columns),
  ] {
    #expect(svd.count == k)
    let scaled = (0..<rows * k).map { svd.left[$0] * svd.values[$0 % k] }
    #expect(distance(times(scaled, svd.right, rows, k, columns), a) < 1e-10)
    let left = times(transposed(svd.left, rows, k), svd.left, k, rows, k)
    #expect(distance(left, identity(k)) < 1e-7)
    let right = times(svd.right, transposed(svd.right, k, columns), k, columns, k)
    #expect(distance(right, identity(k)) < 1e-7)
    #expect(distance(svd.values, jacobiSingularValues(a, rows, columns)) < 1e-8)
  }
}

@Test(arguments: shapes) func theLargestComponentOfASingularVectorIsPositive(
  rows: Int, columns: Int
) throws {
  let a = matrix(rows, columns, seed: UInt64(rows * 37 + columns))
  let whole = try SingularValues(of: a, rows: rows, columns: columns)
  for index in 0..<whole.count {
    let vector = (0..<rows).map { whole.left[$0 * whole.count + index] }
    let largest = vector.max { abs($0) < abs($1) } ?? 0
    #expect(largest > 0)
  }
  let count = (whole.count + 1) / 2
  let leading = try SingularValues(leading: count, of: a, rows: rows, columns: columns)
  #expect(leading.count == count)
  #expect(distance(leading.right, Array(whole.right.prefix(count * columns))) < 1e-7)
}

@Test func aMatrixWithoutFullRankHasZeroSingularValues() throws {
  let a = times(matrix(9, 2, seed: 3), matrix(2, 6, seed: 4), 9, 2, 6)
  let svd = try SingularValues(of: a, rows: 9, columns: 6)
  #expect(svd.values[1] > 0.1 && svd.values[2] < 1e-12)
  let zero = try SingularValues(leading: 2, of: [0, 0, 0, 0], rows: 2, columns: 2)
  #expect(zero.values == [0, 0])
  let vectors: [Double] = zero.left + zero.right
  #expect(vectors.allSatisfy { $0.isFinite })
}

@Test(arguments: [1, 2, 9, 40]) func eigenvectorsDiagonalize(n: Int) throws {
  let half = matrix(n, n, seed: UInt64(n))
  let s = zip(half, transposed(half, n, n)).map { $0 + $1 }
  // What lies above the diagonal is not read.
  let lower = (0..<n * n).map { $0 % n > $0 / n ? 1e9 : s[$0] }
  let eigen = try SymmetricEigen(of: lower, count: n)
  #expect(eigen.values == eigen.values.sorted())
  let q = eigen.vectors
  #expect(distance(times(transposed(q, n, n), q, n, n, n), identity(n)) < 1e-12)
  let scaled = (0..<n * n).map { q[$0] * eigen.values[$0 % n] }
  #expect(distance(times(scaled, transposed(q, n, n), n, n, n), s) < 1e-11)
  for index in 0..<n {
    let vector = (0..<n).map { q[$0 * n + index] }
    let largest = vector.max { abs($0) < abs($1) } ?? 0
    #expect(largest > 0)
  }
}

@Test func decompositionsAreTheSameForEveryThreadCount() throws {
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  let a = matrix(150, 300, seed: 5)
  let results = try [1, 2].map { count in
    Parallel.threads = count
    return try SingularValues(leading: 10, of: a, rows: 150, columns: 300)
  }
  #expect(results[0].left == results[1].left && results[0].right == results[1].right)
}

@Test func notFiniteMatricesAreRefused() {
  #expect(throws: DecompositionError.notFinite) {
    try SingularValues(of: [1, .nan], rows: 1, columns: 2)
  }
  #expect(throws: DecompositionError.notFinite) {
    try SymmetricEigen(of: [.infinity], count: 1)
  }
}

@Test func doubleProductsFollowTheirTranspositions() {
  let (m, n, k) = (130, 7, 11)
  let (a, b) = (matrix(m, k, seed: 1), matrix(k, n, seed: 2))
  let expected = times(a, b, m, k, n)
  for (first, second) in [(false, false), (true, false), (false, true), (true, true)] {
    var c = [Double](repeating: .nan, count: m * n)
    DoubleProduct.run(
      m, n, k, first ? transposed(a, m, k) : a, first ? m : k, first,
      second ? transposed(b, k, n) : b, second ? k : n, second, into: &c)
    #expect(distance(c, expected) < 1e-12)
  }
}
