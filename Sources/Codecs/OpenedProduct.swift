import CKernels
import Tensors

extension StoredWeight {
  /// `x · Wᵀ` of a matrix that is opened row by row. Few rows of x are bound by opening, which each row
  /// of the matrix undergoes once for all tokens; many are bound by arithmetic, so tiles are opened for
  /// matrix products.
  func openedProduct(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    guard x.rows <= Tensor.fewRows else {
      return tiledProduct(x, outputs: outputs) { dequantizeRows($0, into: $1) }
    }
    let (tokens, inputs, outputs) = (x.rows, inputs, outputs)
    let input = Unshared(x.floats)
    return Tensor(shape: [tokens, outputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(outputs, of: 32) { rows in
        withUnsafeTemporaryAllocation(of: Float.self, capacity: max(inputs, 1)) { scratch in
          guard let row = scratch.baseAddress else { return }
          for output in rows {
            dequantizeRows(output..<output + 1, into: row)
            for token in 0..<tokens {
              target.value[token * outputs + output] =
                pare_dot_f32(row, input.value + token * inputs, inputs)
            }
          }
        }
      }
    }
  }
}
