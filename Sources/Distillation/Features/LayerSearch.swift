import Tensors

/// Finds, for each layer of a student, the layer of its teacher that is most like it already, on a
/// sample of text.
package struct LayerSearch: Sendable, Equatable {
  package enum Similarity: String, Sendable, Equatable, CaseIterable {
    /// ‖YᵀX‖² / (‖XᵀX‖ · ‖YᵀY‖) of centered states (Kornblith et al. 2019, arXiv:1905.00414).
    case linearCKA = "cka"
    /// The part of the teacher's variance that a linear map of the student's states explains.
    case regression
  }

  /// What a search found.
  package struct Result: Sendable {
    package var map: LayerMap
    /// `[student layers][teacher layers]`, 1 for states that are the same up to what the similarity
    /// does not see.
    package var similarities: [[Double]]
  }

  package var similarity: Similarity
  /// Tokens that are looked at, evenly taken from those that count.
  package var rows: Int
  /// Added to the diagonal of the regression, in units of its mean.
  package var ridge: Double

  package init(similarity: Similarity = .linearCKA, rows: Int = 2048, ridge: Double = 1e-6) {
    self.similarity = similarity
    self.rows = rows
    self.ridge = ridge
  }

  /// - Parameters:
  ///   - student, teacher: states of the same batch.
  ///   - weights: rows of weight 0 are not looked at.
  /// - Returns: for each student layer the most similar teacher layer, the lowest of equals.
  /// - Throws: `tooFewRows` where a regression would explain anything, `missingStates`.
  package func map(student: PassStates, teacher: PassStates, weights: [Float])
    throws(DistillationError) -> Result
  {
    guard !student.blocks.isEmpty, !teacher.blocks.isEmpty else {
      throw .missingStates("the outputs of blocks")
    }
    let counted = weights.indices.filter { weights[$0] != 0 }
    let count = min(max(rows, 1), counted.count)
    let chosen = (0..<count).map { counted[$0 * counted.count / count] }
    let needed = similarity == .regression ? student.blocks[0].columns + 2 : 2
    guard count >= needed else {
      throw .tooFewRows(count, needed: needed, for: "The search for layers")
    }
    let ours = student.blocks.map { centered($0.detached.rows(at: chosen)) }
    let theirs = teacher.blocks.map { centered($0.detached.rows(at: chosen)) }
    let similarities: [[Double]]
    switch similarity {
    case .linearCKA:
      let sizes = theirs.map { norm(cross($0, $0)).squareRoot() }
      similarities = ours.map { x in
        let size = norm(cross(x, x)).squareRoot()
        return zip(theirs, sizes).map { y, other in
          size * other > 0 ? norm(cross(y, x)) / (size * other) : 0
        }
      }
    case .regression:
      similarities = ours.map { x in
        let solver = LinearSolver(cross(x, x), ridge: ridge)
        return theirs.map { explained($0, by: x, solver) }
      }
    }
    let pairs = similarities.enumerated().map { layer, row in
      LayerPair(
        student: layer, teacher: row.firstIndex(of: row.max() ?? 0) ?? 0)
    }
    return Result(map: .list(pairs), similarities: similarities)
  }

  private func centered(_ x: Tensor) -> Tensor {
    let (rows, width) = (x.rows, x.columns)
    var means = [Double](repeating: 0, count: width)
    for i in 0..<x.count { means[i % width] += Double(x.floats[i]) / Double(rows) }
    return Tensor(shape: x.shape) { target in
      for i in target.indices {
        target.initializeElement(at: i, to: Float(Double(x.floats[i]) - means[i % width]))
      }
    }
  }

  /// `aᵀ · b`
  private func cross(_ a: Tensor, _ b: Tensor) -> Tensor {
    .product(a.columns, b.columns, a.rows, a.operand(transposed: true), b.operand())
  }

  /// The squared Frobenius norm.
  private func norm(_ x: Tensor) -> Double {
    (0..<x.count).reduce(0.0) { $0 + Double(x.floats[$1]) * Double(x.floats[$1]) }
  }

  private func explained(_ y: Tensor, by x: Tensor, _ solver: LinearSolver) -> Double {
    let total = norm(y)
    guard total > 0 else { return 0 }
    let map = solver.solve(cross(x, y))
    return 1 - norm(y - Tensor.matmul(x, map)) / total
  }
}

/// Solves `(A + λ·I) · W = B` for a symmetric A by Cholesky's factors, in double.
private struct LinearSolver: Sendable {
  /// Lower triangle, `[n, n]`.
  private var factor: [Double]
  private let n: Int

  /// - Parameter ridge: λ in units of the diagonal's mean.
  init(_ a: Tensor, ridge: Double) {
    n = a.columns
    factor = a.array.map(Double.init)
    let trace = (0..<n).reduce(0.0) { $0 + factor[$1 * n + $1] }
    let least = max(trace / Double(n) * max(ridge, 1e-12), .leastNormalMagnitude)
    for i in 0..<n { factor[i * n + i] += least }
    for j in 0..<n {
      for i in j..<n {
        var sum = factor[i * n + j]
        for k in 0..<j { sum -= factor[i * n + k] * factor[j * n + k] }
        // Rounding may leave nothing of a direction without variance.
        factor[i * n + j] = i == j ? max(sum, least).squareRoot() : sum / factor[j * n + j]
      }
    }
  }

  /// - Parameter b: `[n, columns]`
  func solve(_ b: Tensor) -> Tensor {
    let (n, columns) = (n, b.columns)
    let source = Unshared(b.floats)
    return Tensor(shape: [n, columns]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.forEach(columns) { column in
        var w = (0..<n).map { Double(source.value[$0 * columns + column]) }
        for i in 0..<n {
          for k in 0..<i { w[i] -= factor[i * n + k] * w[k] }
          w[i] /= factor[i * n + i]
        }
        for i in (0..<n).reversed() {
          for k in (i + 1)..<n { w[i] -= factor[k * n + i] * w[k] }
          w[i] /= factor[i * n + i]
        }
        for i in 0..<n { target.value[i * columns + column] = Float(w[i]) }
      }
    }
  }
}
