public import Models

/// How small trained matrices stand beside frozen ones.
///
/// Hu et al. 2021 (LoRA, arXiv:2106.09685): `y = x · (W + s · B · A)ᵀ` with `A` `[rank, inputs]` and `B`
/// `[outputs, rank]`, of which only `A` and `B` are trained.
public struct AdapterSettings: Sendable, Hashable {
  public var rank: Int
  /// The update's weight: `s = alpha / rank`.
  public var alpha: Double
  /// Share of the inputs to `A` that training leaves out at random.
  public var dropout: Double
  /// Whether `s = alpha / √rank`, so that a higher rank does not learn slower (Kalajdzievski 2023,
  /// rsLoRA, arXiv:2312.03732).
  public var isRankStabilized: Bool
  /// Whether each row's length is trained beside its direction (Liu et al. 2024, DoRA,
  /// arXiv:2402.09353).
  public var isWeightDecomposed: Bool

  public init(
    rank: Int = 8, alpha: Double = 16, dropout: Double = 0, isRankStabilized: Bool = false,
    isWeightDecomposed: Bool = false
  ) {
    self.rank = rank
    self.alpha = alpha
    self.dropout = dropout
    self.isRankStabilized = isRankStabilized
    self.isWeightDecomposed = isWeightDecomposed
  }

  /// `s`, what `B · A` is multiplied by.
  public var scale: Float {
    Float(alpha / (isRankStabilized ? Double(rank).squareRoot() : Double(rank)))
  }

  /// Every matrix that multiplies activations inside the blocks.
  public static let allBlockMatrices = Set(Role.allCases.filter(\.isBlockLinear))

  /// - Throws: `TrainingError.badSetting`.
  func check() throws(TrainingError) {
    guard rank >= 1, rank <= 1 << 16 else {
      throw .badSetting("the adapters' rank", value: "\(rank)", expected: "1 to 65536")
    }
    guard alpha > 0, alpha.isFinite else {
      throw .badSetting("the adapters' alpha", value: "\(alpha)", expected: "above 0")
    }
    guard dropout >= 0, dropout < 1 else {
      throw .badSetting(
        "the adapters' dropout", value: "\(dropout)", expected: "at least 0 and below 1")
    }
  }
}
