import CKernels
import Tensors

/// The negative log-likelihood of the true next token: what training without a teacher minimizes.
package struct LabelLoss: LogitLoss {
  package let name = "labels"
  package let needsTeacher = false

  package init() {}

  package func accumulate(
    _ rows: LogitRows, factor: Float, into gradient: UnsafeMutablePointer<Float>
  ) -> Double {
    let columns = rows.student.columns
    let target = Unshared(gradient)
    let losses = Parallel.map(rows.student.rows) { row in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: columns) { scratch in
        guard let base = scratch.baseAddress else { return 0.0 }
        let weight = rows.weights[row]
        let loss = pare_cross_entropy(
          rows.student.floats + row * columns, columns, rows.targets[row], weight * factor, base)
        pare_accumulate(1, base, target.value + row * columns, columns)
        return Double(weight) * loss
      }
    }
    return losses.reduce(0, +)
  }
}
