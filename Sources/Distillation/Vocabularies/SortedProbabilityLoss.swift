import CKernels
import Tensors

/// Universal logit distillation (Boizard et al. 2024, arXiv:2402.12030): the distance between sorted
/// probabilities, which needs no common vocabulary. Its gradient goes through the softmax of the
/// student; the teacher's order and the student's are taken as they are.
package struct SortedProbabilityLoss: LogitLoss {
  package let name = "uld"
  package let needsTeacher = true
  /// Of both softmaxes.
  package let temperature: Double

  /// - Throws: `badSetting` for a temperature that is not positive.
  package init(temperature: Double = 1) throws(DistillationError) {
    guard temperature > 0, temperature.isFinite else {
      throw .badSetting(
        "the temperature", value: "\(temperature)", expected: "a positive number")
    }
    self.temperature = temperature
  }

  /// Rows whose teacher says nothing (it begins with NaN) have no loss.
  ///
  /// - Throws: `badSetting` when the teacher gives its most probable tokens only.
  package func accumulate(
    _ rows: LogitRows, factor: Float, into gradient: UnsafeMutablePointer<Float>
  ) throws -> Double {
    guard case .logits(let teacher) = rows.teacher else {
      throw DistillationError.badSetting(
        "the teacher of uld", value: "a cache of its most probable tokens", expected: "a model")
    }
    let (columns, teacherColumns) = (rows.student.columns, teacher.columns)
    let (student, target) = (Unshared(rows.student.floats), Unshared(gradient))
    let (source, weights) = (Unshared(teacher.floats), rows.weights)
    let scale = Float(1 / temperature)
    defer { withExtendedLifetime((rows.student, teacher)) {} }
    let losses = Parallel.map(rows.student.rows) { row in
      let said = source.value + row * teacherColumns
      guard !said[0].isNaN, weights[row] != 0 else { return 0.0 }
      let capacity = 3 * max(columns, teacherColumns)
      return withUnsafeTemporaryAllocation(of: UInt64.self, capacity: capacity) { scratch in
        Double(weights[row])
          * pare_sorted_distance(
            student.value + row * columns, columns, said, teacherColumns, scale,
            weights[row] * factor, target.value + row * columns, scratch.baseAddress)
      }
    }
    return losses.reduce(0, +)
  }
}
