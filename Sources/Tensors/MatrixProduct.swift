import CKernels

#if canImport(Accelerate)
  import Accelerate
#else
  import COpenBLAS
#endif

/// Products of activations with stored matrices. Few rows are bound by reading the matrix once and
/// use dot products as they stand; many rows are bound by arithmetic: tiles of the matrix are widened
/// and go through single-threaded sgemm, the tiles spread over the pool. A tile's product does not
/// depend on which thread computes it.
extension Tensor {
  /// Rows that one pass of the kernels over a matrix serves.
  package static let fewRows = Int(PARE_DENSE_TOKENS)
  /// Rows up to which several passes over a part of the matrix that stays in the cache beat a widened
  /// tile.
  private static let severalRows = 6 * fewRows

  /// `x · Wᵀ`.
  ///
  /// - Parameter weight: `[out, in]`, any floating-point type, read as it lies in its file.
  /// - Returns: `[rows, out]`, for `self` of shape `[rows, in]`.
  public func multiplied(byTransposeOf weight: Tensor) -> Tensor {
    precondition(
      weight.shape.count == 2 && weight.shape[1] == columns, "\(shape) · \(weight.shape)ᵀ")
    // The input is kept only for the gradient of a matrix that is trained.
    let x = weight.node == nil ? nil : self
    return transposedProduct(weight).recorded(from: self, weight) { [place] dy in
      let (tokens, inputs, outputs) = (dy.rows, weight.shape[1], weight.shape[0])
      place.receive(
        .product(tokens, inputs, outputs, dy.operand(), weight.plain.widened().operand()))
      guard let x else { return }
      weight.place.accumulate { target, isFirst in
        TiledProduct.run(
          outputs, inputs, tokens, dy.operand(transposed: true), x.operand(), into: target,
          stride: inputs, adding: !isFirst)
      }
    }
  }

  private func transposedProduct(_ weight: Tensor) -> Tensor {
    let (width, outputs) = (columns, weight.shape[0])
    if rows > 0, rows <= Self.severalRows, let type = weight.denseType {
      return fewProducts(weight, type)
    }
    // By the type alone: where a file's bytes happen to lie must not choose the order of a sum.
    if weight.dtype == .float32 {
      return .product(
        rows, outputs, width, operand(), weight.plain.widened().operand(transposed: true))
    }
    return tiledProduct(self, outputs: outputs) { range, target in
      weight.widen((range.lowerBound * width)..<(range.upperBound * width), into: target)
    }
  }

  /// `x · W` for a matrix stored `[in, out]` (GPT-2).
  public func multiplied(by weight: Tensor) -> Tensor {
    precondition(
      weight.shape.count == 2 && weight.shape[0] == columns, "\(shape) · \(weight.shape)")
    let x = weight.node == nil ? nil : self
    return untransposedProduct(weight).recorded(from: self, weight) { [place] dy in
      let (tokens, inputs, outputs) = (dy.rows, weight.shape[0], weight.shape[1])
      place.receive(
        .product(
          tokens, inputs, outputs, dy.operand(),
          weight.plain.widened().operand(transposed: true)))
      guard let x else { return }
      weight.place.accumulate { target, isFirst in
        TiledProduct.run(
          inputs, outputs, tokens, x.operand(transposed: true), dy.operand(), into: target,
          stride: outputs, adding: !isFirst)
      }
    }
  }

  private func untransposedProduct(_ weight: Tensor) -> Tensor {
    let (inputs, outputs) = (columns, weight.shape[1])
    return .product(rows, outputs, inputs, operand(), weight.plain.widened().operand())
  }

  /// The kernels' name for this element type, if they know it.
  private var denseType: pare_dense_type? {
    switch dtype {
    case .float32: PARE_DENSE_F32
    case .bfloat16: PARE_DENSE_BF16
    case .float16: PARE_DENSE_F16
    default: nil
    }
  }

  /// Few rows times a matrix that is read from memory once, as it lies in its file.
  private func fewProducts(_ weight: Tensor, _ type: pare_dense_type) -> Tensor {
    let (rows, width, outputs) = (rows, columns, weight.shape[0])
    let x = Unshared(floats)
    let matrix = Unshared(weight.rawPointer)
    return Tensor(shape: [rows, outputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      // A part of 16 rows stays in the second-level cache from pass to pass.
      let part = rows <= Self.fewRows ? 64 : 16
      Parallel.ranges(outputs, of: 64) { range in
        for first in stride(from: range.lowerBound, to: range.upperBound, by: part) {
          for token in stride(from: 0, to: rows, by: Self.fewRows) {
            pare_dense_multiply_rows(
              type, matrix.value, width, first, min(first + part, range.upperBound),
              x.value + token * width, min(Self.fewRows, rows - token),
              target.value + token * outputs, outputs)
          }
        }
      }
    }
  }
}

/// Matrix rows that are widened and multiplied together. sgemm packs all its input anew for each tile,
/// so many tokens want tall ones (64 rows reach 77 % of its best speed, 256 reach 91 %), as far as
/// eight megabytes of scratch and enough tiles for several threads allow. Shapes alone decide, so that
/// results do not depend on the number of threads.
func tileRows(tokens: Int, outputs: Int, width: Int) -> Int {
  guard tokens >= 64 else { return 64 }
  let fitting = (8 << 20) / (4 * max(width, 1)) / 64 * 64
  return max(64, min(outputs >= 2048 ? 256 : 128, fitting))
}

/// `x · Wᵀ` where `fill` writes rows of W as float32, so that packed weights share this path.
///
/// - Parameters:
///   - x: `[rows, in]`
///   - fill: writes matrix rows `range`, `[range.count, in]`, into scratch memory.
/// - Returns: `[rows, outputs]`
package func tiledProduct(
  _ x: Tensor, outputs: Int, fill: @Sendable (Range<Int>, UnsafeMutablePointer<Float>) -> Void
) -> Tensor {
  useOneBLASThread()
  let (rows, width) = (x.rows, x.columns)
  let input = Unshared(x.floats)
  return Tensor(shape: [rows, outputs]) { target in
    guard let base = target.baseAddress else { return }
    let target = Unshared(base)
    let size = tileRows(tokens: rows, outputs: outputs, width: width)
    Parallel.ranges(outputs, of: size) { range in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: range.count * width) { scratch in
        guard let tile = scratch.baseAddress else { return }
        fill(range, tile)
        cblas_sgemm(
          CblasRowMajor, CblasNoTrans, CblasTrans, Int32(rows), Int32(range.count), Int32(width), 1,
          input.value, Int32(width), tile, Int32(width), 0, target.value + range.lowerBound,
          Int32(outputs))
      }
    }
  }
}

/// OpenBLAS would start threads of its own inside ours; told once.
package func useOneBLASThread() { _ = oneBLASThread }

private let oneBLASThread: Void = {
  #if !canImport(Accelerate)
    openblas_set_num_threads(1)
  #endif
}()
