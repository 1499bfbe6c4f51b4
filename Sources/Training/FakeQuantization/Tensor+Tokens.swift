import CKernels
package import Tensors

extension Tensor {
  /// Every row rounded to signed integers times a scale of its own, the largest magnitude over the
  /// largest integer (token-wise activations of ZeroQuant, arXiv:2206.01861, section 4.1). On the way
  /// back a gradient passes unchanged: nothing lies outside such a grid.
  ///
  /// - Parameter bits: of the integers, which run from `1 - 2^(bits-1)` to `2^(bits-1) - 1`.
  package func fakeQuantizedTokens(bits: Int) -> Tensor {
    precondition((2...16).contains(bits))
    let (source, columns) = (Unshared(floats), columns)
    let high = Float((1 << (bits - 1)) - 1)
    let rounded = Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(rows, of: rowsPerPiece(columns)) { range in
        for row in range {
          _ = pare_fake_quantize_token(
            source.value + row * columns, high, target.value + row * columns, columns)
        }
      }
    }
    return rounded.recorded(from: self) { [place] in place.receive($0) }
  }
}
