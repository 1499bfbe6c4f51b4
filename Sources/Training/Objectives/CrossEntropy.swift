import CKernels
import Models
package import Tensors

/// The negative log-likelihood of the next token, nats.
package enum CrossEntropy {
  /// The summed loss of some rows and its derivative with respect to their logits.
  ///
  /// - Parameters:
  ///   - logits: `[rows, vocabulary]`
  ///   - targets: the true token of each row.
  ///   - weights: a factor on each row's loss.
  ///   - overwriting: whether the derivative takes the place of the logits, which nobody reads again.
  package static func evaluate(
    _ logits: Tensor, targets: [Int], weights: [Float], overwriting: Bool = false
  ) -> (sum: Double, gradient: Tensor) {
    let columns = logits.columns
    precondition(targets.count == logits.rows && weights.count == logits.rows)
    let gradient =
      overwriting
      ? logits
      : Tensor(
        dtype: .float32, shape: logits.shape, storage: Storage(byteCount: logits.byteCount))
    let target = Unshared(UnsafeMutablePointer(mutating: gradient.floats))
    let losses = Parallel.map(logits.rows) { row in
      Double(weights[row])
        * pare_cross_entropy(
          logits.floats + row * columns, columns, targets[row], weights[row],
          target.value + row * columns)
    }
    return (losses.reduce(0, +), gradient)
  }
}
