#if canImport(Accelerate)
  import Accelerate
#else
  import COpenBLAS
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

/// Dense products of training: the result is cut into tiles, each one call of single-threaded sgemm,
/// which the pool spreads. The tiles follow from the shape alone, and no sum is cut, so results do
/// not depend on the number of threads.
package enum TiledProduct {
  /// Multiply-adds below which a tile is not worth its packing.
  private static let leastWork = 1 << 21

  /// `c = a · b`, or `c += a · b`.
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
    useOneBLASThread()
    let (height, width) = tile(m, n, k)
    let columns = (n + width - 1) / width
    let target = Unshared(c)
    Parallel.forEach((m + height - 1) / height * columns) { index in
      let (row, column) = (index / columns * height, index % columns * width)
      cblas_sgemm(
        CblasRowMajor, a.isTransposed ? CblasTrans : CblasNoTrans,
        b.isTransposed ? CblasTrans : CblasNoTrans, Int32(min(height, m - row)),
        Int32(min(width, n - column)), Int32(k), scale, a.from(row: row, column: 0),
        Int32(a.stride), b.from(row: 0, column: column), Int32(b.stride), adding ? 1 : 0,
        target.value + row * stride + column, Int32(stride))
    }
  }

  /// Tiles as square as the result lets them be, at least eight where the work is worth it.
  private static func tile(_ m: Int, _ n: Int, _ k: Int) -> (Int, Int) {
    var (height, width) = (min(m, 512), min(n, 1024))
    func count() -> Int { ((m + height - 1) / height) * ((n + width - 1) / width) }
    while count() < 8, height * width * max(k, 1) > 2 * leastWork {
      if height >= width, height > 64 {
        height = ((height + 1) / 2 + 15) / 16 * 16
      } else if width > 64 {
        width = ((width + 1) / 2 + 15) / 16 * 16
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

  /// Whether its numbers can be read as float32 where they lie.
  var isPlainFloat: Bool { dtype == .float32 && Int(bitPattern: rawPointer) % 4 == 0 }

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
