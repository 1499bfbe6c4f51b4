import CKernels

#if canImport(Accelerate)
  import Accelerate
#endif

/// A float32 matrix as BLAS sees it: rows `stride` apart, read as it lies or transposed.
package struct MatrixOperand: @unchecked Sendable {
  // `@unchecked Sendable`: constant memory, which `owner` keeps alive during the product.
  package let base: UnsafePointer<Float>
  package let stride: Int
  package let isTransposed: Bool
  private let owner: Storage

  /// - Parameters:
  ///   - tensor: whose memory it is.
  ///   - offset: of the operand's first number.
  package init(_ tensor: Tensor, offset: Int = 0, stride: Int, transposed: Bool = false) {
    base = tensor.floats + offset
    self.stride = stride
    isTransposed = transposed
    owner = tensor.storage
  }

  /// The operand from row `row` and column `column` of what it means (transposed or not).
  fileprivate func from(row: Int, column: Int) -> UnsafePointer<Float> {
    isTransposed ? base + column * stride + row : base + row * stride + column
  }
}

/// Dense products of training: the result is cut into tiles that the pool spreads. No sum is cut, and
/// the kernel adds a number's terms in the same order wherever its tile begins, so results do not
/// depend on the number of threads though the tiles do.
package enum TiledProduct {
  /// Multiply-adds below which a tile is not worth its packing.
  private static let leastWork = 1 << 20

  /// `c = scale · a · b`, or `c += scale · a · b`.
  ///
  /// - Parameters:
  ///   - a: `[m, k]`
  ///   - b: `[k, n]`
  ///   - c: `[m, n]`, its rows `stride` apart.
  package static func run(
    _ m: Int, _ n: Int, _ k: Int, _ a: MatrixOperand, _ b: MatrixOperand,
    into c: UnsafeMutablePointer<Float>, stride: Int, scale: Float = 1, adding: Bool = false
  ) {
    guard m > 0, n > 0 else { return }
    let (height, width) = tile(m, n, k)
    let columns = (n + width - 1) / width
    let target = Unshared(c)
    Parallel.forEach((m + height - 1) / height * columns) { index in
      let (row, column) = (index / columns * height, index % columns * width)
      multiply(
        min(height, m - row), min(width, n - column), k, a.from(row: row, column: 0), a.stride,
        a.isTransposed, b.from(row: 0, column: column), b.stride, b.isTransposed,
        into: target.value + row * stride + column, stride, scale: scale, adding: adding)
    }
  }

  /// The same by the calling thread, for matrices at bare addresses.
  package static func multiply(
    _ m: Int, _ n: Int, _ k: Int, _ a: UnsafePointer<Float>, _ aStride: Int, _ transposesA: Bool,
    _ b: UnsafePointer<Float>, _ bStride: Int, _ transposesB: Bool,
    into c: UnsafeMutablePointer<Float>, _ stride: Int, scale: Float = 1, adding: Bool = false
  ) {
    #if canImport(Accelerate)
      cblas_sgemm(
        CblasRowMajor, transposesA ? CblasTrans : CblasNoTrans,
        transposesB ? CblasTrans : CblasNoTrans, Int32(m), Int32(n), Int32(k), scale, a,
        Int32(aStride), b, Int32(bStride), adding ? 1 : 0, c, Int32(stride))
    #else
      var product = pare_gemm_product(
        m: m, n: n, k: k, a: a, a_stride: aStride, a_transposed: transposesA ? 1 : 0, b: b,
        b_stride: bStride, b_transposed: transposesB ? 1 : 0, c: c, c_stride: stride, scale: scale,
        adding: adding ? 1 : 0)
      pare_gemm(&product)
    #endif
  }

  /// One tile for one thread, else at least four tiles for each where the work is worth it, as square
  /// as the result lets them be: what is packed of `b` serves all rows of a tile.
  private static func tile(_ m: Int, _ n: Int, _ k: Int) -> (Int, Int) {
    let threads = Parallel.threads
    guard threads > 1 else { return (m, n) }
    var (height, width) = (m, n)
    while ((m + height - 1) / height) * ((n + width - 1) / width) < 4 * threads,
      height * width * max(k, 1) > 2 * leastWork
    {
      if height >= width, height > 64 {
        height = ((height + 1) / 2 + 15) / 16 * 16
      } else if width > 64 {
        width = ((width + 1) / 2 + 31) / 32 * 32
      } else {
        break
      }
    }
    return (height, width)
  }
}

extension Tensor {
  /// This float32 matrix as an operand.
  package func operand(transposed: Bool = false) -> MatrixOperand {
    MatrixOperand(self, stride: columns, transposed: transposed)
  }

  /// `op(a) · op(b)` of float32 matrices, a new `[m, n]`.
  package static func product(
    _ m: Int, _ n: Int, _ k: Int, _ a: MatrixOperand, _ b: MatrixOperand, scale: Float = 1
  ) -> Tensor {
    Tensor(shape: [m, n]) { target in
      guard let base = target.baseAddress else { return }
      TiledProduct.run(m, n, k, a, b, into: base, stride: n, scale: scale)
    }
  }

  /// `a · b` of float32 matrices.
  public static func matmul(_ a: Tensor, _ b: Tensor) -> Tensor {
    precondition(b.shape.count == 2 && a.columns == b.shape[0], "\(a.shape) · \(b.shape)")
    let (m, k, n) = (a.rows, a.columns, b.columns)
    return product(m, n, k, a.operand(), b.operand()).recorded(from: a, b) { dy in
      a.place.receive(product(m, k, n, dy.operand(), b.operand(transposed: true)))
      b.place.accumulate { target, isFirst in
        TiledProduct.run(
          k, n, m, a.operand(transposed: true), dy.operand(), into: target, stride: n,
          adding: !isFirst)
      }
    }
  }

  /// `a · bᵀ` of float32 matrices, also where both are activations.
  public static func matmul(_ a: Tensor, transposing b: Tensor) -> Tensor {
    precondition(b.shape.count == 2 && a.columns == b.columns, "\(a.shape) · \(b.shape)ᵀ")
    let (m, k, n) = (a.rows, a.columns, b.rows)
    let y = product(m, n, k, a.operand(), b.operand(transposed: true))
    return y.recorded(from: a, b) { dy in
      a.place.receive(product(m, k, n, dy.operand(), b.operand()))
      b.place.accumulate { target, isFirst in
        TiledProduct.run(
          n, k, m, dy.operand(transposed: true), a.operand(), into: target, stride: k,
          adding: !isFirst)
      }
    }
  }
}
