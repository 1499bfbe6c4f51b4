public import Tensors

/// A symmetric matrix without a Cholesky factor: what was left of the diagonal at `pivot` was not a
/// positive number.
public struct NotPositiveDefinite: Error, Equatable, CustomStringConvertible {
  public let pivot: Int

  package init(pivot: Int) { self.pivot = pivot }

  public var description: String {
    "the matrix is not positive definite at row \(pivot); add to its diagonal."
  }
}

/// Factors of symmetric positive definite float32 matrices `[n, n]`.
///
/// The matrix is halved again and again, so that nearly all work is products of large blocks; blocks
/// of 64 on the diagonal are factorized and inverted in double precision. With A = LLᵀ:
///
///     A₁₁ = L₁₁L₁₁ᵀ      L₂₁ = A₂₁L₁₁⁻ᵀ      A₂₂ - L₂₁L₂₁ᵀ = L₂₂L₂₂ᵀ
///     (L⁻¹)₂₁ = -L₂₂⁻¹ L₂₁ L₁₁⁻¹
///
/// Both take n³/3 operations. Only the lower triangle of A is read.
public enum Cholesky {
  /// L, lower triangular with LLᵀ = A.
  public static func lower(of a: Tensor) throws(NotPositiveDefinite) -> Tensor {
    let factor = try factorize(a.columns) { copyLower(a, to: $0) }
    factor.clearUpper()
    return factor.tensor
  }

  /// L⁻¹, lower triangular, so that A⁻¹ = L⁻ᵀL⁻¹.
  public static func inverseLower(of a: Tensor) throws(NotPositiveDefinite) -> Tensor {
    let factor = try factorize(a.columns) { copyLower(a, to: $0) }
    factor.invert(0..<factor.n)
    factor.clearUpper()
    return factor.tensor
  }

  /// U, upper triangular with UᵀU = A⁻¹: what column-by-column compression with error feedback
  /// needs, since row i of U is row i of the inverse of A with rows and columns before i removed,
  /// divided by the square root of its first number.
  ///
  /// With indices in reversed order A = VVᵀ has an upper V, and U = V⁻¹: one factorization and one
  /// triangular inverse, where the Cholesky factor of A⁻¹ would take a third step.
  ///
  /// - Parameters:
  ///   - a: symmetric `[n, n]`.
  ///   - order: row and column i of the matrix that is factorized are `order[i]` of `a`.
  ///   - diagonal: `[n]`, added to the diagonal of `a`, in `a`'s order.
  public static func inverseUpper(
    of a: Tensor, order: [Int]? = nil, adding diagonal: [Float]? = nil
  ) throws(NotPositiveDefinite) -> Tensor {
    let n = a.columns
    precondition(a.shape == [n, n] && order?.count ?? n == n && diagonal?.count ?? n == n)
    let reversed = (0..<n).map { order?[n - 1 - $0] ?? n - 1 - $0 }
    let factor: TriangularFactor
    do {
      factor = try factorize(n) { target in
        let source = Unshared(a.floats)
        let target = Unshared(target)
        Parallel.ranges(n, of: 64) { rows in
          reversed.withUnsafeBufferPointer { reversed in
            for row in rows {
              let line = source.value + reversed[row] * n
              let into = target.value + row * n
              for column in 0...row { into[column] = line[reversed[column]] }
              if let diagonal { into[row] += diagonal[reversed[row]] }
            }
          }
        }
      }
    } catch {
      throw NotPositiveDefinite(pivot: reversed[error.pivot])
    }
    factor.invert(0..<n)
    factor.clearUpper()
    factor.reverse()
    return factor.tensor
  }

  private static func copyLower(_ a: Tensor, to target: UnsafeMutablePointer<Float>) {
    let n = a.columns
    precondition(a.shape == [n, n])
    for row in 0..<n { (target + row * n).update(from: a.floats + row * n, count: row + 1) }
  }

  private static func factorize(_ n: Int, _ fill: (UnsafeMutablePointer<Float>) -> Void)
    throws(NotPositiveDefinite) -> TriangularFactor
  {
    let factor = TriangularFactor(n)
    fill(factor.tiles.base.value)
    try factor.factorize(0..<n)
    return factor
  }
}

/// The lower triangle of a matrix while it becomes L and then L⁻¹.
private struct TriangularFactor {
  /// Rows and columns of a block on the diagonal.
  static let leaf = 64

  let n: Int
  let tiles: SquareTiles
  private let storage: Storage
  /// Inverses of L's blocks on the diagonal, `[leaf, leaf]` each (the last one smaller).
  private let inverses: Storage

  init(_ n: Int) {
    self.n = n
    storage = Storage(matrixByteCount: n * n * 4)
    let leaves = (n + Self.leaf - 1) / Self.leaf
    inverses = Storage(byteCount: leaves * Self.leaf * Self.leaf * 4)
    tiles = SquareTiles(base: Unshared(storage.base.assumingMemoryBound(to: Float.self)), n: n)
  }

  var tensor: Tensor { Tensor(dtype: .float32, shape: [n, n], storage: storage) }

  private func inverse(_ block: Range<Int>) -> UnsafeMutablePointer<Float> {
    inverses.base.assumingMemoryBound(to: Float.self)
      + block.lowerBound / Self.leaf * Self.leaf * Self.leaf
  }

  func factorize(_ block: Range<Int>) throws(NotPositiveDefinite) {
    guard let (first, second) = block.halves(of: Self.leaf) else {
      return try factorizeLeaf(block)
    }
    try factorize(first)
    solveTransposed(second, first)
    tiles.add(to: second, second, inner: first, transposed: true, scale: -1, lower: true)
    try factorize(second)
  }

  /// `A[rows, block] := A[rows, block] · L[block, block]⁻ᵀ`.
  private func solveTransposed(_ rows: Range<Int>, _ block: Range<Int>) {
    guard let (first, second) = block.halves(of: Self.leaf) else {
      return tiles.multiplyRight(rows, block, by: inverse(block), transposed: true, scale: 1)
    }
    solveTransposed(rows, first)
    tiles.add(to: rows, second, inner: first, transposed: true, scale: -1)
    solveTransposed(rows, second)
  }

  /// Replaces L by its inverse.
  func invert(_ block: Range<Int>) {
    guard let (first, second) = block.halves(of: Self.leaf) else {
      let source = inverse(block)
      for row in 0..<block.count {
        tiles.at(block.lowerBound + row, block.lowerBound)
          .update(from: source + row * block.count, count: block.count)
      }
      return
    }
    solveLeft(second, first)
    solveRightNegated(second, first)
    invert(first)
    invert(second)
  }

  /// `A[block, columns] := L[block, block]⁻¹ · A[block, columns]`.
  private func solveLeft(_ block: Range<Int>, _ columns: Range<Int>) {
    guard let (first, second) = block.halves(of: Self.leaf) else {
      return tiles.multiplyLeft(block, columns, by: inverse(block))
    }
    solveLeft(first, columns)
    tiles.add(to: second, columns, inner: first, transposed: false, scale: -1)
    solveLeft(second, columns)
  }

  /// `A[rows, block] := -A[rows, block] · L[block, block]⁻¹`.
  private func solveRightNegated(_ rows: Range<Int>, _ block: Range<Int>) {
    guard let (first, second) = block.halves(of: Self.leaf) else {
      return tiles.multiplyRight(rows, block, by: inverse(block), transposed: false, scale: -1)
    }
    solveRightNegated(rows, second)
    // The second part is negated already.
    tiles.add(to: rows, first, inner: second, transposed: false, scale: 1)
    solveRightNegated(rows, first)
  }

  private func factorizeLeaf(_ block: Range<Int>) throws(NotPositiveDefinite) {
    let size = block.count
    let scratch = Storage(byteCount: 2 * size * size * 8)
    let l = scratch.base.assumingMemoryBound(to: Double.self)
    let x = l + size * size
    for row in 0..<size {
      let source = tiles.at(block.lowerBound + row, block.lowerBound)
      for column in 0...row {
        var sum = Double(source[column])
        for k in 0..<column { sum -= l[row * size + k] * l[column * size + k] }
        if column < row {
          l[row * size + column] = sum / l[column * size + column]
        } else {
          guard sum > 0, sum.isFinite else {
            throw NotPositiveDefinite(pivot: block.lowerBound + row)
          }
          l[row * size + row] = sum.squareRoot()
        }
      }
    }
    // Row i of X = L⁻¹ is the unit row less L's multiples of the rows above, over the diagonal.
    for row in 0..<size {
      let line = x + row * size
      line.initialize(repeating: 0, count: size)
      line[row] = 1
      for k in 0..<row {
        let factor = l[row * size + k]
        let above = x + k * size
        for column in 0...k { line[column] -= factor * above[column] }
      }
      for column in 0...row { line[column] /= l[row * size + row] }
    }
    let inverse = inverse(block)
    for row in 0..<size {
      let target = tiles.at(block.lowerBound + row, block.lowerBound)
      for column in 0...row { target[column] = Float(l[row * size + column]) }
      for column in 0..<size { inverse[row * size + column] = Float(x[row * size + column]) }
    }
  }

  func clearUpper() {
    Parallel.ranges(n, of: 64) { rows in
      for row in rows {
        tiles.at(row, row).advanced(by: 1).initialize(repeating: 0, count: n - row - 1)
      }
    }
  }

  /// Rows and columns in reversed order, in place: the elements in reversed order.
  func reverse() {
    let values = tiles.base
    let last = n * n - 1
    Parallel.ranges(n * n / 2, of: 1 << 16) { range in
      for index in range {
        let kept = values.value[index]
        values.value[index] = values.value[last - index]
        values.value[last - index] = kept
      }
    }
  }
}
