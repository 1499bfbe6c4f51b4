package import Tensors

extension LanguageModel {
  /// Rows of `[rows, vocabulary]` that are in memory together: 64 MB of logits. Each such part passes
  /// over the head's matrix and its gradient once, so few rows are bound by memory: with 32,000
  /// tokens, 128 rows reach 90 % of the speed of 512.
  package var headRows: Int { max(16, (1 << 24) / configuration.vocabularySize / 16 * 16) }

  /// A loss on logits with its way back through the head, some rows at a time, so that the matrix
  /// `[tokens, vocabulary]` never exists. Gradients of the head's parameters arrive here and now.
  ///
  /// - Parameters:
  ///   - hidden: `[tokens, hidden]`, after the final norm.
  ///   - wanted: the rows that have a loss.
  ///   - loss: `(wanted rows of this chunk, their logits [rows, vocabulary])` to their summed loss
  ///     and its derivative with respect to those logits.
  /// - Returns: the sum, and its derivative with respect to `hidden`.
  package func headLoss(
    _ hidden: Tensor, wanted: [Int],
    _ loss: (ArraySlice<Int>, Tensor) throws -> (sum: Double, gradient: Tensor)
  ) rethrows -> (sum: Double, hiddenGradient: Tensor) {
    let states = hidden.detached
    let gradient = Tensor.zeros(hidden.shape)
    let target = UnsafeMutablePointer(mutating: gradient.floats)
    let width = hidden.columns
    var sum = 0.0
    for first in stride(from: 0, to: wanted.count, by: headRows) {
      let rows = wanted[first..<min(first + headRows, wanted.count)]
      let chunk = states.rows(at: Array(rows)).asLeaf
      let logits = logits(chunk)
      let (value, derivative) = try loss(rows, logits.detached)
      sum += value
      Tape.backward([(logits, derivative)])
      guard let arrived = chunk.gradient else { continue }
      for (index, row) in rows.enumerated() {
        (target + row * width).update(from: arrived.floats + index * width, count: width)
      }
    }
    return (sum, gradient)
  }
}
