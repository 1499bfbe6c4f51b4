public import Tensors

/// A random orthogonal matrix Q `[n, n]`, multiplied by without being written down where a Hadamard
/// matrix of its size is known.
///
/// Every entry of Q is of the size 1/√n, so a single large coordinate is spread over all others
/// (Ashkboos et al. 2024, QuaRot, section 3).
public struct Rotation: Sendable {
  public enum Kind: Sendable, Equatable {
    /// `diag(±1) Hᵀ / √n`
    case hadamard
    /// `Hᵀ diag(1, ±1, …) H / n`, which leaves the vector of ones alone: rotated or not, a vector has
    /// the same mean.
    case keepingMean
    /// A matrix as it is: learned, or of orthonormalized normal numbers where no Hadamard matrix of the
    /// size is known.
    case dense
  }

  public let size: Int
  public let kind: Kind
  private let hadamard: Hadamard?
  private let signs: [Float]
  /// Q and Qᵀ.
  private let dense: (matrix: Tensor, transposed: Tensor)?

  /// - Parameters:
  ///   - seed: the same one gives the same matrix on every machine.
  ///   - keepsMean: whether the vector of ones is left alone.
  public init(size: Int, seed: UInt64, keepsMean: Bool = false) {
    precondition(size > 0)
    self.size = size
    var random = Xoshiro256(seed: seed)
    hadamard = Hadamard(size: size)
    guard hadamard != nil else {
      kind = .dense
      signs = []
      let matrix = Tensor(
        Self.orthonormal(size, &random, keepsMean: keepsMean), shape: [size, size])
      dense = (matrix, matrix.transposed())
      return
    }
    kind = keepsMean ? .keepingMean : .hadamard
    var signs = (0..<size).map { _ in Float(random.next() >> 63 == 0 ? 1 : -1) }
    if keepsMean { signs[0] = 1 }
    self.signs = signs
    dense = nil
  }

  /// - Parameter matrix: Q, float32 `[n, n]`, orthogonal.
  public init(matrix: Tensor) {
    precondition(matrix.shape.count == 2 && matrix.rows == matrix.columns)
    size = matrix.rows
    kind = .dense
    hadamard = nil
    signs = []
    dense = (matrix.detached, matrix.detached.transposed())
  }

  /// Q written down, float32 `[n, n]`.
  public var matrix: Tensor {
    let size = size
    return Tensor(shape: [size, size]) { target in
      guard let base = target.baseAddress else { return }
      for index in 0..<size * size { base[index] = index / size == index % size ? 1 : 0 }
      rotateRows(base, lines: size, stride: size)
    }
  }

  /// Bytes that the matrix itself takes; 0 where it is not written down.
  public var storedBytes: Int { dense == nil ? 0 : 8 * size * size }

  // MARK: Applying

  /// `x Q` of each line: in place, `[lines, n]` with lines `stride` apart.
  package func rotateRows(_ x: UnsafeMutablePointer<Float>, lines: Int, stride: Int) {
    if let dense {
      for first in Swift.stride(from: 0, to: lines, by: Self.denseLines) {
        let count = min(Self.denseLines, lines - first)
        let product = Self.copy(x + first * stride, count, size, stride)
          .multiplied(by: dense.matrix)
        Self.paste(product, to: x + first * stride, stride)
      }
      return
    }
    let (size, target) = (size, Unshared(x))
    Parallel.ranges(lines, of: max(1, (1 << 16) / size)) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: size) { scratch in
        for line in range {
          apply(target.value + line * stride, width: 1, scratch: scratch.baseAddress)
        }
      }
    }
  }

  /// `Qᵀ W`: in place, `[n, columns]` with rows `stride` apart.
  package func rotateColumns(_ x: UnsafeMutablePointer<Float>, columns: Int, stride: Int) {
    if let dense {
      for first in Swift.stride(from: 0, to: columns, by: Self.denseLines) {
        let count = min(Self.denseLines, columns - first)
        let product = dense.transposed.multiplied(by: Self.copy(x + first, size, count, stride))
        Self.paste(product, to: x + first, stride)
      }
      return
    }
    let (size, target, width) = (size, Unshared(x), 32)
    Parallel.ranges(columns, of: width) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * size * width) { memory in
        guard let tile = memory.baseAddress else { return }
        for row in 0..<size {
          (tile + row * range.count).update(
            from: target.value + row * stride + range.lowerBound, count: range.count)
        }
        apply(tile, width: range.count, scratch: tile + size * range.count)
        for row in 0..<size {
          (target.value + row * stride + range.lowerBound).update(
            from: tile + row * range.count, count: range.count)
        }
      }
    }
  }

  /// `Qᵀ x` of each column of `[n, width]`, which is `x Q` of a row.
  private func apply(
    _ x: UnsafeMutablePointer<Float>, width: Int, scratch: UnsafeMutablePointer<Float>?
  ) {
    switch kind {
    case .hadamard:
      flip(x, width)
      hadamard?.transform(x, width: width, scratch: scratch)
    case .keepingMean:
      hadamard?.transform(x, width: width, scratch: scratch)
      flip(x, width)
      hadamard?.transform(x, width: width, transposed: true, scratch: scratch)
    case .dense: preconditionFailure("dense matrices multiply many lines at a time")
    }
  }

  /// Lines that a dense matrix multiplies together.
  private static let denseLines = 1024

  private static func copy(
    _ x: UnsafeMutablePointer<Float>, _ rows: Int, _ columns: Int, _ stride: Int
  ) -> Tensor {
    Tensor(shape: [rows, columns]) { target in
      guard let base = target.baseAddress else { return }
      for row in 0..<rows {
        (base + row * columns).initialize(from: x + row * stride, count: columns)
      }
    }
  }

  private static func paste(_ tensor: Tensor, to x: UnsafeMutablePointer<Float>, _ stride: Int) {
    for row in 0..<tensor.rows {
      (x + row * stride).update(from: tensor.floats + row * tensor.columns, count: tensor.columns)
    }
  }

  private func flip(_ x: UnsafeMutablePointer<Float>, _ width: Int) {
    for row in 0..<size where signs[row] < 0 {
      for column in 0..<width { x[row * width + column] = -x[row * width + column] }
    }
  }

  // MARK: Making

  /// Rows of normal numbers made orthonormal one after the other (Gram and Schmidt, modified).
  private static func orthonormal(_ n: Int, _ random: inout Xoshiro256, keepsMean: Bool) -> [Float]
  {
    var rows = (0..<n * n).map { _ in random.normal() }
    if keepsMean { for column in 0..<n { rows[column] = 1 } }
    rows.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return }
      let rows = Unshared(base)
      for pivot in 0..<n {
        let row = rows.value + pivot * n
        let length = (0..<n).reduce(0) { $0 + row[$1] * row[$1] }.squareRoot()
        for column in 0..<n { row[column] /= length }
        Parallel.ranges(n - pivot - 1, of: 16) { range in
          for index in range {
            let (row, other) = (rows.value + pivot * n, rows.value + (pivot + 1 + index) * n)
            let product = (0..<n).reduce(0) { $0 + row[$1] * other[$1] }
            for column in 0..<n { other[column] -= product * row[column] }
          }
        }
      }
    }
    guard keepsMean else { return rows.map { Float($0) } }
    // B has 1/√n in its first row; Bᵀ diag(1, R) B leaves ones alone whatever R is. A cyclic shift of
    // the other rows is one.
    var matrix = [Float](repeating: 0, count: n * n)
    for i in 0..<n {
      for j in 0..<n {
        var sum = rows[i] * rows[j]
        for k in 1..<max(n, 1) {
          let next = k == n - 1 ? 1 : k + 1
          sum += rows[k * n + i] * rows[next * n + j]
        }
        matrix[i * n + j] = Float(sum)
      }
    }
    return matrix
  }
}
