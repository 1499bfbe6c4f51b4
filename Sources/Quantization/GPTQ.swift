public import Calibration
public import Codecs
public import Tensors

/// Rounds a weight column by column, letting the columns after it absorb each error.
/// Frantar et al. 2022, arXiv:2210.17323, Algorithm 1.
///
/// For a row w of W, inputs X and H = XᵀX / tokens + λ1, the rounded row ŵ should make
/// (w - ŵ)H(w - ŵ)ᵀ small. Once column i is rounded, the best the columns j > i can do is
///
///     wⱼ -= eᵢUᵢⱼ     with     eᵢ = (wᵢ - ŵᵢ) / Uᵢᵢ,    UᵀU = H⁻¹,  U upper triangular,
///
/// and the loss reached in the end is ‖e‖². Rows do not meet, so they are solved in parallel; columns
/// are taken `blockSize` at a time, and what a block's errors do to all later columns is one product.
///
/// A column whose inputs were always zero (H's diagonal is 0) carries nothing: its weights become 0.
/// Where H has no Cholesky factor, λ grows tenfold, up to the mean diagonal itself, and a note says
/// so. A matrix whose inputs were never seen is rounded to nearest, with a note.
public struct GPTQ: WeightMethod, Hashable {
  /// The order in which columns are rounded.
  public enum Order: String, Sendable, Hashable, CaseIterable {
    /// As they lie.
    case none
    /// Largest diagonal of H first, on the grids of the columns as they lie, from the weights before
    /// any was rounded: the stored form is the usual one.
    case `static`
    /// Largest diagonal of H first, and each group is made of columns that follow each other in that
    /// order. The stored form needs an index of each column's group.
    case group
  }

  /// What a group's grid is fitted to.
  public enum Grids: String, Sendable, Hashable, CaseIterable {
    /// The weights as they are when the group's first column is to be rounded, with all earlier
    /// columns' errors absorbed.
    case current
    /// The weights before any was rounded.
    case original
  }

  public var codec: AffineGroups
  /// λ over the mean of H's diagonal.
  public var damping: Double
  /// Columns rounded between two updates of all later ones. Changes nothing but rounding errors.
  public var blockSize: Int
  public var order: Order
  /// `static` order always takes the original weights.
  public var grids: Grids
  /// How far a group's grid reaches.
  public var clipping: RoundToNearest.Clipping

  public init(
    codec: AffineGroups, damping: Double = 0.01, blockSize: Int = 128, order: Order = .static,
    grids: Grids = .current, clipping: RoundToNearest.Clipping = .minMax
  ) {
    self.codec = codec
    self.damping = damping
    self.blockSize = blockSize
    self.order = order
    self.grids = grids
    self.clipping = clipping
  }

  public var needs: StatisticsNeeds { .secondMoment }

  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    try compress(weight, try factor(statistics))
  }

  public func compress(_ weights: [Tensor], sharing statistics: InputStatistics)
    throws(CompressionError) -> [CompressedWeight]
  {
    let factor = try factor(statistics)
    var results: [CompressedWeight] = []
    for weight in weights { results.append(try compress(weight, factor)) }
    return results
  }

  /// The same with a factor that matrices of common inputs share.
  package func compress(_ weight: Tensor, _ factor: Factor) throws(CompressionError)
    -> CompressedWeight
  {
    if order == .group {
      throw .unsupportedSetting(
        "columns grouped in activation order need an index of groups (g_idx), which the stored "
          + "form does not hold; choose the order \"static\" or \"none\".")
    }
    guard let solver = factor.solver else {
      var result = try RoundToNearest(codec: codec, clipping: clipping)
        .compress(weight, .none(inputs: weight.columns))
      result.notes = factor.notes
      return result
    }
    let solution = try solve(weight, solver)
    return CompressedWeight(
      weight: codec.weight(codes: solution.codes, grids: solution.grids), error: solution.error,
      relativeOutputError: solution.relativeOutputError, notes: factor.notes)
  }

  func checkSettings() throws(CompressionError) {
    guard damping >= 0, damping.isFinite else {
      throw .unsupportedSetting("a damping of \(damping) is not possible; choose 0 or more.")
    }
    guard (1...4096).contains(blockSize) else {
      throw .unsupportedSetting(
        "a block size of \(blockSize) columns is not possible; choose 1 to 4096.")
    }
  }
}
