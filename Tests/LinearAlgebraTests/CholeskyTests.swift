import LinearAlgebra
import Tensors
import TestSupport
import Testing

/// `XᵀX / n + 0.1` on the diagonal, of columns that share two directions.
private func symmetric(_ n: Int, seed: UInt64) -> Tensor {
  var random = Xoshiro256(seed: seed)
  let tokens = n + 3
  let x = (0..<tokens).map { _ in
    let shared = random.uniform() - 0.5
    return (0..<n).map { column in random.uniform() - 0.5 + shared * Double(column % 3) }
  }
  var values = [Float](repeating: 0, count: n * n)
  for row in 0..<n {
    for column in 0...row {
      var sum = 0.0
      for line in x { sum += line[row] * line[column] }
      let value = Float(sum / Double(tokens) + (row == column ? 0.1 : 0))
      values[row * n + column] = value
      values[column * n + row] = value
    }
  }
  return Tensor(values, shape: [n, n])
}

/// `op(a) · op(b)` at a few places of each row, in double precision.
private func expectProduct(
  _ n: Int, _ left: (Int, Int) -> Double, _ right: (Int, Int) -> Double,
  equals expected: (Int, Int) -> Double, tolerance: Double
) {
  for row in stride(from: 0, to: n, by: max(1, n / 23)) {
    for column in stride(from: 0, to: n, by: max(1, n / 19)) {
      var sum = 0.0
      for k in 0..<n { sum += left(row, k) * right(k, column) }
      #expect(abs(sum - expected(row, column)) < tolerance, "(\(row), \(column))")
    }
  }
}

private let sizes = [1, 2, 31, 63, 64, 65, 127, 129, 200, 321]

@Test(arguments: sizes) func theLowerFactorTimesItsTransposeIsTheMatrix(n: Int) throws {
  let a = symmetric(n, seed: UInt64(n))
  let l = try Cholesky.lower(of: a).array
  for row in 0..<n { for column in row + 1..<max(n, row + 1) { #expect(l[row * n + column] == 0) } }
  expectProduct(
    n, { Double(l[$0 * n + $1]) }, { Double(l[$1 * n + $0]) },
    equals: { Double(a.floats[$0 * n + $1]) },
    tolerance: 1e-5)
}

@Test(arguments: sizes) func theInverseOfTheLowerFactorTurnsItIntoTheUnitMatrix(n: Int) throws {
  let a = symmetric(n, seed: UInt64(n) + 7)
  let l = try Cholesky.lower(of: a).array
  let x = try Cholesky.inverseLower(of: a).array
  for row in 0..<n { for column in row + 1..<max(n, row + 1) { #expect(x[row * n + column] == 0) } }
  expectProduct(
    n, { Double(x[$0 * n + $1]) }, { Double(l[$0 * n + $1]) }, equals: { $0 == $1 ? 1 : 0 },
    tolerance: 2e-5)
}

@Test(arguments: sizes) func theUpperFactorOfTheInverseIsUpperAndSolves(n: Int) throws {
  let a = symmetric(n, seed: UInt64(n) + 9)
  var order = Array(0..<n)
  var random = Xoshiro256(seed: 3)
  for index in stride(from: n - 1, to: 0, by: -1) {
    order.swapAt(index, Int(random.uniform() * Double(index + 1)))
  }
  let added = (0..<n).map { Float($0 % 5) * 0.03 }
  let u = try Cholesky.inverseUpper(of: a, order: order, adding: added).array
  for row in 0..<n {
    for column in 0..<row { #expect(u[row * n + column] == 0) }
    #expect(u[row * n + row] > 0)
  }
  // U B Uᵀ = 1 for B with UᵀU = B⁻¹.
  func b(_ row: Int, _ column: Int) -> Double {
    Double(a.floats[order[row] * n + order[column]])
      + (row == column ? Double(added[order[row]]) : 0)
  }
  var ub = [Double](repeating: 0, count: n * n)
  for row in 0..<n {
    for column in 0..<n {
      for k in row..<n { ub[row * n + column] += Double(u[row * n + k]) * b(k, column) }
    }
  }
  expectProduct(
    n, { ub[$0 * n + $1] }, { Double(u[$1 * n + $0]) }, equals: { $0 == $1 ? 1 : 0 },
    tolerance: 1e-4)
}

@Test func factorsDoNotDependOnThreads() throws {
  let a = symmetric(391, seed: 5)
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  Parallel.threads = 1
  let alone = try Cholesky.inverseUpper(of: a).array
  Parallel.threads = 3
  #expect(try Cholesky.inverseUpper(of: a).array == alone)
}

@Test(arguments: [0, 70, 129]) func aMatrixThatIsNotPositiveDefiniteIsRefusedAtItsRow(row: Int) {
  let n = 130
  for bad: Float in [-1, 0, .nan, .infinity] {
    let a = Tensor(
      (0..<n * n).map { index in
        index / n != index % n ? 0 : index / n == row ? bad : 1
      }, shape: [n, n])
    #expect(throws: NotPositiveDefinite(pivot: row)) { try Cholesky.lower(of: a) }
    #expect(throws: NotPositiveDefinite(pivot: row)) { try Cholesky.inverseUpper(of: a) }
  }
}
