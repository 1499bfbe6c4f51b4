/// Why a matrix has no decomposition.
package enum DecompositionError: Error, Equatable, CustomStringConvertible {
  /// An element that is NaN or infinite.
  case notFinite
  /// The iteration inside LAPACK did not end.
  case notConverged(routine: String)
  /// Sides that LAPACK's 32-bit sizes do not reach.
  case tooLarge(rows: Int, columns: Int)

  package var description: String {
    switch self {
    case .notFinite:
      "a matrix with NaN or infinite elements cannot be decomposed; check the weights and the "
        + "calibration text."
    case .notConverged(let routine):
      "the decomposition by \(routine) did not converge; leave this matrix out."
    case .tooLarge(let rows, let columns):
      "a matrix of \(rows) × \(columns) is too large to be decomposed; leave it out."
    }
  }
}
