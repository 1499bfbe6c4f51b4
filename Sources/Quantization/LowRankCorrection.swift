public import Calibration
import Codecs
import LinearAlgebra
public import Tensors

/// Adds to a compressed matrix a product of two thin ones that makes up for most of its error.
///
/// With `E = W - Ŵ`, the rank-r matrix nearest to E is its truncated singular value decomposition
/// (LoRC: Yao et al. 2023, arXiv:2303.08302, section 4). Nearest to what E does to the inputs is
/// another one (EoRA: Liu et al. 2024, arXiv:2410.21271): with the inputs' second moment
/// `H = Q·diag(λ)·Qᵀ`, decompose
///
///     E · Q · diag(√λ) ≈ U · diag(σ) · Vᵀ        and take      L·R = U · diag(σ) · Vᵀ · diag(1/√λ) · Qᵀ
///
/// which minimizes `tr((E - L·R) · H · (E - L·R)ᵀ)` by the theorem of Eckart and Young. A share of the
/// mean eigenvalue is added to each λ, so that inputs which calibration never showed count a little:
/// none of it is EoRA, all of it LoRC.
public struct LowRankCorrection: WeightCorrection, Hashable {
  public enum Space: Sendable, Hashable {
    /// Errors of all weights count alike.
    case weights
    /// Errors count by what they do to the inputs; `damping` times the mean eigenvalue is added to
    /// each.
    case outputs(damping: Double = 0.01)
  }

  public var rank: Int
  public var space: Space
  /// Type of L and R: float32, bfloat16 or float16.
  public var factorType: DType

  public init(rank: Int, space: Space = .outputs(), factorType: DType = .float16) {
    self.rank = rank
    self.space = space
    self.factorType = factorType
  }

  public var needs: StatisticsNeeds { space == .weights ? [] : .secondMoment }

  /// - Parameters:
  ///   - weight: `[outputs, inputs]`, what was compressed.
  ///   - compressed: what it became.
  ///   - statistics: of the inputs, with the second moment unless the space is that of the weights.
  /// - Returns: a `SumWeight` of both; σ is shared out between L and R.
  public func correct(
    _ weight: Tensor, _ compressed: CompressedWeight, _ statistics: InputStatistics
  ) throws(CompressionError) -> CompressedWeight {
    let (rows, columns) = (compressed.weight.outputs, compressed.weight.inputs)
    precondition(weight.shape == [rows, columns], "a correction of another matrix")
    guard rank >= 1 else {
      throw .unsupportedSetting("a correction of rank \(rank) corrects nothing; choose 1 or more.")
    }
    defer { weight.giveBack() }
    var error = try weight.finiteMatrix()
    let decoded = compressed.weight.dequantized()
    for index in error.indices { error[index] -= Double(decoded.floats[index]) }
    let (left, right) = try factors(of: error, rows, columns, statistics)
    do {
      let correction = try LowRankWeight(
        left: left.stored(as: factorType), right: right.stored(as: factorType))
      return CompressedWeight(
        try SumWeight([compressed.weight, correction]), of: weight, statistics,
        notes: compressed.notes)
    } catch {
      throw CompressionError(error)
    }
  }

  /// L `[rows, r]` and R `[r, columns]` in float32.
  private func factors(
    of error: [Double], _ rows: Int, _ columns: Int, _ statistics: InputStatistics
  ) throws(CompressionError) -> (Tensor, Tensor) {
    guard case .outputs(let damping) = space else {
      return try product(Self.leading(rank, error, rows, columns))
    }
    guard damping >= 0, damping.isFinite else {
      throw .unsupportedSetting(
        "a damping of \(damping) is not possible; choose 0 or more, 0.01 if in doubt.")
    }
    guard let moment = statistics.secondMoment else {
      preconditionFailure("the second moment that `needs` names")
    }
    let eigen = try Self.eigen(moment)
    let mean = max(eigen.values.reduce(0, +) / Double(max(columns, 1)), 0)
    let roots = eigen.values.map { (max($0, 0) + damping * mean).squareRoot() }
    // Without damping, directions that no input has are left out, and float32 sums cannot tell them
    // from a millionth of the largest.
    let floor = (roots.max() ?? 0) * 1e-4
    let inverses = roots.map { $0 > floor ? 1 / $0 : 0 }

    var turned = [Double](repeating: 0, count: rows * columns)
    DoubleProduct.run(
      rows, columns, columns, error, columns, false, eigen.vectors, columns, false, into: &turned)
    for row in 0..<rows {
      for column in 0..<columns {
        turned[row * columns + column] *= inverses[column] == 0 ? 0 : roots[column]
      }
    }
    let svd = try Self.leading(rank, turned, rows, columns)
    var scaled = svd.right
    for row in 0..<svd.count {
      for column in 0..<columns { scaled[row * columns + column] *= inverses[column] }
    }
    var right = [Double](repeating: 0, count: svd.count * columns)
    DoubleProduct.run(
      svd.count, columns, columns, scaled, columns, false, eigen.vectors, columns, true,
      into: &right)
    return product(svd, right: right)
  }

  private func product(_ svd: SingularValues, right: [Double]? = nil) -> (Tensor, Tensor) {
    let (count, columns) = (svd.count, svd.columns)
    let roots = svd.values.map { $0.squareRoot() }
    let right = right ?? svd.right
    let l = Tensor(shape: [svd.rows, count]) { target in
      for index in target.indices { target[index] = Float(svd.left[index] * roots[index % count]) }
    }
    let r = Tensor(shape: [count, columns]) { target in
      for index in target.indices { target[index] = Float(right[index] * roots[index / columns]) }
    }
    return (l, r)
  }

  private static func leading(_ rank: Int, _ matrix: [Double], _ rows: Int, _ columns: Int)
    throws(CompressionError) -> SingularValues
  {
    do {
      return try SingularValues(leading: rank, of: matrix, rows: rows, columns: columns)
    } catch {
      throw .unsupportedSetting(error.description)
    }
  }

  private static func eigen(_ moment: Tensor) throws(CompressionError) -> SymmetricEigen {
    do {
      return try SymmetricEigen(of: moment.array.map(Double.init), count: moment.columns)
    } catch {
      throw .unsupportedSetting(error.description)
    }
  }
}
