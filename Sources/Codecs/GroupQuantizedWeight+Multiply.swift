import CKernels
import Tensors

extension GroupQuantizedWeight {
  /// `x · Wᵀ` from the packed codes. Few rows are bound by reading the codes, which one pass serves;
  /// many rows are bound by arithmetic, so tiles of the matrix are decoded for sgemm.
  func packedProduct(_ x: Tensor) -> Tensor {
    guard x.rows <= Tensor.fewRows else {
      return tiledProduct(x, outputs: outputs) { dequantizeRows($0, into: $1) }
    }
    let (tokens, outputs) = (x.rows, outputs)
    let input = Unshared(x.floats)
    return Tensor(shape: [tokens, outputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(outputs, of: 32) { rows in
        var source = kernelView
        pare_affine_multiply_rows(
          &source, rows.lowerBound, rows.upperBound, input.value, tokens,
          target.value + rows.lowerBound, outputs)
      }
    }
  }
}
