public import Calibration
import LinearAlgebra
public import Tensors

/// GPTQ towards the outputs of the uncompressed model, "asymmetric calibration".
/// Li et al. 2025, arXiv:2504.02692.
///
/// The blocks before have been compressed, so a matrix sees inputs X where the uncompressed model has
/// X̃. A row w should become the ŵ with the smallest ‖ŵX - wX̃‖². With C = (X̃ - X)ᵀX / tokens, what
/// column q lacks, wᵢ for i = q times X̃ᵢ - Xᵢ, is best made up for by the columns F after q with
///
///     w_F += α w_q C_qF (H_FF)⁻¹ = α w_q P_qF,      P = ((C Uᵀ) ⊙ M) U,   UᵀU = H⁻¹,
///
/// where M keeps what lies strictly above the diagonal. The term is made of the original weight,
/// because that is what the uncompressed model multiplies by; so it does not depend on how any column
/// is rounded, all of it can be added before the first, and ordinary GPTQ follows. (The paper's
/// pseudocode multiplies by the weight as updated so far, which differs in second order.)
///
/// Without M every column takes part, those before q too: W(1 + C H⁻¹) is the least-squares solution
/// before anything is rounded, and GPTQ rounds that.
///
/// The paper has α = 1; its authors' code has 0.25, which does better on models: C is measured on few
/// tokens, and a full correction follows its noise.
public struct GPTAQ: WeightMethod, Hashable {
  /// Which columns make up for what a column lacks.
  public enum Correction: String, Sendable, Hashable, CaseIterable {
    /// Those rounded after it.
    case laterColumns
    /// All.
    case allColumns
  }

  /// How weights are rounded once they are corrected.
  public var gptq: GPTQ
  /// α, from 0 (plain GPTQ) to 1.
  public var strength: Double
  public var correction: Correction

  public init(gptq: GPTQ, strength: Double = 0.25, correction: Correction = .laterColumns) {
    self.gptq = gptq
    self.strength = strength
    self.correction = correction
  }

  public var needs: StatisticsNeeds { [.secondMoment, .crossMoment] }

  /// The result's `relativeOutputError` is of the inputs X, as for every method; it can be larger than
  /// GPTQ's where the outputs are closer to those of the uncompressed model.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    try gptq.compress(weight, try factor(statistics))
  }

  public func compress(_ weights: [Tensor], sharing statistics: InputStatistics)
    throws(CompressionError) -> [CompressedWeight]
  {
    let factor = try factor(statistics)
    var results: [CompressedWeight] = []
    for weight in weights { results.append(try gptq.compress(weight, factor)) }
    return results
  }

  /// What matrices of common inputs share.
  package func factor(_ statistics: InputStatistics) throws(CompressionError) -> GPTQ.Factor {
    guard strength >= 0, strength <= 1 else {
      throw .unsupportedSetting(
        "a correction of strength \(strength) is not possible; choose 0 to 1.")
    }
    guard let cross = statistics.crossMoment else {
      preconditionFailure("GPTAQ needs the cross moment of the inputs")
    }
    let factor = try gptq.factor(statistics)
    guard var solver = factor.solver, strength > 0 else { return factor }
    solver.shift = shift(cross, solver)
    return GPTQ.Factor(solver: solver, notes: factor.notes)
  }

  /// αP, rows and columns as they lie in the weight.
  private func shift(_ cross: Tensor, _ solver: GPTQ.Solver) -> Tensor {
    let n = solver.order.count
    let sorted = Self.permuted(cross, by: solver.order)
    let upper = solver.upper
    let isMasked = correction == .laterColumns
    // Blocks of rows and columns, those below the diagonal only where they are kept.
    let width = 256
    let blocks = (n + width - 1) / width
    func range(_ block: Int) -> Range<Int> { block * width..<min((block + 1) * width, n) }
    let pairs = (0..<blocks).flatMap { column in
      (0...(isMasked ? column : blocks - 1)).map { (range($0), range(column)) }
    }

    // T = (C Uᵀ) ⊙ M, where row k of U begins at k.
    let projected = Tensor(shape: [n, n]) { target in
      target.initialize(repeating: 0)
      guard let base = target.baseAddress else { return }
      let into = Unshared(base)
      Parallel.forEach(pairs.count) { [pairs] index in
        let (rows, columns) = pairs[index]
        let first = columns.lowerBound
        TiledProduct.multiply(
          rows.count, columns.count, n - first,
          sorted.floats + rows.lowerBound * n + first, n, false,
          upper.floats + first * n + first, n, true,
          into: into.value + rows.lowerBound * n + first, n)
        guard isMasked, rows == columns else { return }
        for row in rows {
          for column in first...row { into.value[row * n + column] = 0 }
        }
      }
    }
    // αTU, of which T's row i begins after i when masked and U's column j ends at j.
    let product = Tensor(shape: [n, n]) { target in
      target.initialize(repeating: 0)
      guard let base = target.baseAddress else { return }
      let into = Unshared(base)
      Parallel.forEach(pairs.count) { [pairs] index in
        let (rows, columns) = pairs[index]
        let first = isMasked ? rows.lowerBound : 0
        TiledProduct.multiply(
          rows.count, columns.count, columns.upperBound - first,
          projected.floats + rows.lowerBound * n + first, n, false,
          upper.floats + first * n + columns.lowerBound, n, false,
          into: into.value + rows.lowerBound * n + columns.lowerBound, n, scale: Float(strength))
      }
    }
    var places = [Int](repeating: 0, count: n)
    for (place, column) in solver.order.enumerated() { places[column] = place }
    return Self.permuted(product, by: places)
  }

  /// Row and column i of the result are `order[i]` of the matrix.
  private static func permuted(_ matrix: Tensor, by order: [Int]) -> Tensor {
    let n = order.count
    if order.indices.allSatisfy({ order[$0] == $0 }) { return matrix }
    return Tensor(shape: [n, n]) { target in
      guard let base = target.baseAddress else { return }
      let into = Unshared(base)
      let from = Unshared(matrix.floats)
      Parallel.ranges(n, of: 64) { rows in
        order.withUnsafeBufferPointer { order in
          for row in rows {
            let line = from.value + order[row] * n
            let target = into.value + row * n
            for column in 0..<n { target[column] = line[order[column]] }
          }
        }
      }
    }
  }
}
