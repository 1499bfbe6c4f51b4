public import Calibration
import Codecs
import LinearAlgebra
public import Tensors

/// Signs with one factor for each row and one for each column: `W ≈ sign(W) ⊙ (a · bᵀ)`, where `a · bᵀ`
/// is the best rank-one approximation of |W| (sign-value-independent decomposition: Xu et al. 2024,
/// OneBit, arXiv:2402.11295, section 3.2). One bit a weight; a starting point for training, from
/// which the paper distills.
///
/// Since |W| has no negative entries, its leading singular vectors have none either, and a and b share
/// the root of the singular value.
public struct OneBit: WeightMethod, Hashable {
  /// Type of a and b: float32, bfloat16 or float16.
  public var factorType: DType

  public init(factorType: DType = .float16) { self.factorType = factorType }

  /// - Parameter weight: `[outputs, inputs]`; its file pages are given back afterwards.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    defer { weight.giveBack() }
    let values = try weight.finiteMatrix()
    let (outputs, inputs) = (weight.shape[0], weight.shape[1])
    let svd: SingularValues
    do {
      svd = try SingularValues(leading: 1, of: values.map(abs), rows: outputs, columns: inputs)
    } catch {
      throw .unsupportedSetting(error.description)
    }
    let root = (svd.values.first ?? 0).squareRoot()
    // Rounding inside LAPACK may leave a zero slightly negative.
    let rows = (0..<outputs).map { Float(max(svd.values.isEmpty ? 0 : svd.left[$0], 0) * root) }
    let columns = (0..<inputs).map { Float(max(svd.values.isEmpty ? 0 : svd.right[$0], 0) * root) }
    do {
      let stored = try BinaryWeight(
        signs: [values.map { $0 >= 0 }], scales: [rows], offsets: [0, inputs], outputs: outputs,
        columnFactors: columns, scaleType: factorType)
      return CompressedWeight(stored, of: weight, statistics)
    } catch {
      throw CompressionError(error)
    }
  }
}
