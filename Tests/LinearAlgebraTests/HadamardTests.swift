import CKernels
import LinearAlgebra
import Tensors
import TestSupport
import Testing

private func identity(_ n: Int) -> [Float] {
  (0..<n * n).map { $0 / n == $0 % n ? 1 : 0 }
}

/// The matrix that a transform multiplies columns by.
private func explicit(_ hadamard: Hadamard, transposed: Bool = false) -> [Float] {
  let n = hadamard.size
  var matrix = identity(n)
  var scratch = matrix
  matrix.withUnsafeMutableBufferPointer { matrix in
    scratch.withUnsafeMutableBufferPointer {
      guard let base = matrix.baseAddress else { return }
      hadamard.transform(base, width: n, transposed: transposed, scratch: $0.baseAddress)
    }
  }
  return matrix
}

@Test func everyKnownSizeUpTo160IsAHadamardMatrix() {
  for n in 1...160 {
    guard let hadamard = Hadamard(size: n) else { continue }
    let matrix = explicit(hadamard)
    let unit = 1 / Double(n).squareRoot()
    #expect(matrix.allSatisfy { abs(abs(Double($0)) - unit) < 1e-6 }, "\(n)")
    #expect(matrix[..<n].allSatisfy { $0 == matrix[0] && $0 > 0 }, "\(n)")
    // All entries are ±1/√n, so their signs tell whether rows are orthogonal.
    let words = (n + 63) / 64
    var signs = [UInt64](repeating: 0, count: n * words)
    for index in matrix.indices where matrix[index] < 0 {
      signs[index / n * words + index % n / 64] |= 1 << UInt64(index % n % 64)
    }
    var isOrthogonal = true
    for a in 0..<n {
      for b in 0..<a {
        var differing = 0
        for word in 0..<words {
          differing += (signs[a * words + word] ^ signs[b * words + word]).nonzeroBitCount
        }
        if 2 * differing != n { isOrthogonal = false }
      }
    }
    #expect(isOrthogonal, "\(n)")
  }
}

@Test func everyKnownSizeUpTo1024IsUndoneByItsTranspose() {
  var random = Xoshiro256(seed: 9)
  var known: [Int] = []
  for n in 1...1024 {
    guard let hadamard = Hadamard(size: n) else { continue }
    known.append(n)
    let x = (0..<n).map { _ in Float(random.normal()) }
    var (y, scratch) = (x, x)
    y.withUnsafeMutableBufferPointer { y in
      scratch.withUnsafeMutableBufferPointer {
        hadamard.transform(y.baseAddress!, width: 1, scratch: $0.baseAddress)
        hadamard.transform(y.baseAddress!, width: 1, transposed: true, scratch: $0.baseAddress)
      }
    }
    #expect(zip(x, y).allSatisfy { abs($0 - $1) < 2e-5 }, "\(n)")
  }
  #expect(known.starts(with: [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64]))
  let missed = stride(from: 4, through: 256, by: 4).filter { !known.contains($0) }
  #expect(missed == [92, 116, 156, 172, 184, 188, 232, 236], "\(missed)")
}

@Test(arguments: [12, 28, 32, 40])
func theTransposedTransformIsTheInverse(n: Int) throws {
  let hadamard = try #require(Hadamard(size: n))
  let (matrix, transposed) = (explicit(hadamard), explicit(hadamard, transposed: true))
  for row in 0..<n {
    for column in 0..<n {
      #expect(abs(matrix[row * n + column] - transposed[column * n + row]) < 1e-6)
    }
  }
}

@Test func fastKernelsAreTheirReferencesAtEveryWidth() {
  var random = Xoshiro256(seed: 1)
  for n in [1, 2, 4, 8, 16, 32, 128, 1024] {
    for width in [1, 2, 3, 7, 16, 17, 33] {
      let x = (0..<n * width).map { _ in Float(random.normal()) }
      var (fast, slow) = (x, x)
      pare_hadamard(&fast, n, width)
      pare_hadamard_reference(&slow, n, width)
      #expect(fast == slow, "\(n) \(width)")
    }
  }
  for m in [1, 4, 12, 20] {
    let core = (0..<m * m).map { _ in Float(random.next() & 1 == 0 ? 1 : -1) }
    for width in 1...35 {
      let x = (0..<m * width).map { _ in Float(random.normal()) }
      for transposed: Int32 in [0, 1] {
        var (fast, slow) = (x, x)
        pare_hadamard_core(core, m, transposed, x, 0.3, &fast, width)
        pare_hadamard_core_reference(core, m, transposed, x, 0.3, &slow, width)
        #expect(zip(fast, slow).allSatisfy { abs($0 - $1) < 1e-5 })
      }
    }
  }
}

@Test(arguments: [1, 2, 7, 12, 48, 60, 64, 92, 288], [false, true])
func rotationsAreOrthogonalAndRowsAndColumnsAgree(n: Int, keepsMean: Bool) {
  let rotation = Rotation(size: n, seed: 5, keepsMean: keepsMean)
  #expect((rotation.kind == .dense) == (n == 7 || n == 92))
  var q = identity(n)
  rotation.rotateRows(&q, lines: n, stride: n)
  var transposed = identity(n)
  rotation.rotateColumns(&transposed, columns: n, stride: n)
  for row in 0..<n {
    for column in 0..<n {
      #expect(abs(q[row * n + column] - transposed[column * n + row]) < 1e-6)
      var product = 0.0
      for k in 0..<n { product += Double(q[row * n + k]) * Double(q[column * n + k]) }
      #expect(abs(product - (row == column ? 1 : 0)) < 2e-6)
    }
    let sum = (0..<n).reduce(0) { $0 + Double(q[row * n + $1]) }
    if keepsMean { #expect(abs(sum - 1) < 1e-5) }
  }
  // Every seed has a matrix of its own.
  var other = identity(n)
  Rotation(size: n, seed: 6, keepsMean: keepsMean).rotateRows(&other, lines: n, stride: n)
  if n > 2 { #expect(other != q) }
}

@Test func rotationsOfStridedLinesLeaveTheRestAlone() {
  var random = Xoshiro256(seed: 2)
  let x = (0..<40 * 50).map { _ in Float(random.normal()) }
  let rotation = Rotation(size: 12, seed: 1)
  var rows = x
  rows.withUnsafeMutableBufferPointer {
    rotation.rotateRows($0.baseAddress! + 3, lines: 40, stride: 50)
  }
  var columns = x
  columns.withUnsafeMutableBufferPointer {
    rotation.rotateColumns($0.baseAddress! + 5 * 50 + 2, columns: 37, stride: 50)
  }
  let threads = Parallel.threads
  Parallel.threads = 1
  var alone = x
  alone.withUnsafeMutableBufferPointer {
    rotation.rotateColumns($0.baseAddress! + 5 * 50 + 2, columns: 37, stride: 50)
  }
  Parallel.threads = threads
  #expect(alone == columns)
  for index in x.indices {
    let (row, column) = (index / 50, index % 50)
    if !(3..<15).contains(column) { #expect(rows[index] == x[index]) }
    if !(5..<17).contains(row) || !(2..<39).contains(column) { #expect(columns[index] == x[index]) }
  }
}

@Test func blocksAreTheirOwnInverseAndGradientsPassLikeInputs() throws {
  var random = Xoshiro256(seed: 4)
  func normal() -> Tensor {
    Tensor((0..<3 * 24).map { _ in Float(random.normal()) }, shape: [3, 24])
  }
  let (x, dy) = (normal().asLeaf, normal())
  let transform = BlockHadamard(size: 8)
  let y = transform(x)
  let back = transform(y.detached)
  for index in 0..<x.count { #expect(abs(back.floats[index] - x.floats[index]) < 1e-6) }
  Tape.backward([(y, dy)])
  // The matrix is symmetric, so ⟨dy, T x⟩ = ⟨T dy, x⟩.
  let gradient = try #require(x.gradient)
  let (left, right) = (0..<x.count).reduce((0.0, 0.0)) {
    (
      $0.0 + Double(dy.floats[$1]) * Double(y.floats[$1]),
      $0.1 + Double(gradient.floats[$1]) * Double(x.floats[$1])
    )
  }
  #expect(abs(left - right) < 1e-4)
}
