import CKernels
import Tensors

extension GroupQuantizedWeight {
  /// `x · Wᵀ` from the packed codes. Few rows are bound by reading the codes, which one pass serves;
  /// many rows are bound by arithmetic, so tiles of the matrix are decoded for sgemm.
  func packedProduct(_ x: Tensor) -> Tensor {
    let x = columnGroups.map { x.detached.columns(in: $0.order) } ?? x
    guard x.rows <= Tensor.fewRows else {
      return tiledProduct(x, outputs: outputs) { rows, target in
        var source = kernelView
        pare_affine_decode_rows(&source, rows.lowerBound, rows.upperBound, target)
      }
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
