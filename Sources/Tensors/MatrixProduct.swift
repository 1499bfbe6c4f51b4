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
  /// Rows up to which dot products beat a widened tile.
  package static let fewRows = 4
  /// Matrix rows per tile: 64 rows of 8192 floats fill the second-level cache.
  static let tileRows = 64

  /// `x · Wᵀ`.
  ///
  /// - Parameter weight: `[out, in]`, any floating-point type, read as it lies in its file.
  /// - Returns: `[rows, out]`, for `self` of shape `[rows, in]`.
  public func multiplied(byTransposeOf weight: Tensor) -> Tensor {
    precondition(
      weight.shape.count == 2 && weight.shape[1] == columns, "\(shape) · \(weight.shape)ᵀ")
    let width = columns
    if rows <= Self.fewRows, let dot = weight.dotProduct {
      return dotProducts(outputs: weight.shape[0]) { output, x in
        dot(weight.rawPointer + output * width * weight.dtype.byteCount, x, width)
      }
    }
    return tiledProduct(self, outputs: weight.shape[0]) { range, target in
      weight.widen((range.lowerBound * width)..<(range.upperBound * width), into: target)
    }
  }

  /// `x · W` for a matrix stored `[in, out]` (GPT-2).
  public func multiplied(by weight: Tensor) -> Tensor {
    precondition(
      weight.shape.count == 2 && weight.shape[0] == columns, "\(shape) · \(weight.shape)")
    let (inputs, outputs) = (columns, weight.shape[1])
    return tiledProduct(self, outputs: outputs) { range, target in
      // The tile is wanted `[out, in]`: read a strip of columns, row by row.
      withUnsafeTemporaryAllocation(of: Float.self, capacity: range.count) { strip in
        guard let row = strip.baseAddress else { return }
        for input in 0..<inputs {
          let start = input * outputs + range.lowerBound
          weight.widen(start..<(start + range.count), into: row)
          for (index, value) in strip.enumerated() { target[index * inputs + input] = value }
        }
      }
    }
  }

  /// The kernel for this element type, if there is one.
  private var dotProduct: (@Sendable (UnsafeRawPointer, UnsafePointer<Float>, Int) -> Float)? {
    switch dtype {
    case .float32: { pare_dot_f32($0, $1, $2) }
    case .bfloat16: { pare_dot_bf16($0, $1, $2) }
    case .float16: { pare_dot_f16($0, $1, $2) }
    default: nil
    }
  }

  /// Every output of every row by its own dot product: `body(output, row of self)`.
  package func dotProducts(
    outputs: Int, _ body: @Sendable (Int, UnsafePointer<Float>) -> Float
  ) -> Tensor {
    let (rows, width) = (rows, columns)
    let x = Unshared(floats)
    return Tensor(shape: [rows, outputs]) { target in
      let target = Unshared(target)
      Parallel.ranges(outputs, of: 64) { range in
        for output in range {
          for row in 0..<rows {
            target.value[row * outputs + output] = body(output, x.value + row * width)
          }
        }
      }
    }
  }
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
    Parallel.ranges(outputs, of: Tensor.tileRows) { range in
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
