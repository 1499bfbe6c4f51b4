public import Calibration
public import Codecs
public import Tensors

/// Each weight goes to the nearest point of its group's grid.
///
/// What is left to choose is where the grid ends. `minMax` covers every weight. Clipping a few
/// large ones makes every other step finer: `meanSquareError` tries shrunken ranges per group and
/// keeps the one with the smallest sum of squared errors, the widest among equals.
///
/// The search is that of GPTQ's quantizer (IST-DASLab/gptq, `quant.py`, `find_params`): range ends
/// multiplied by `1 - i / grid` for `i` below `maximumShrink * grid`, there with grid 100 and
/// maximumShrink 0.8. llm-compressor's `mse` observer is the same search stopped at 0.2, too early
/// for 2 and 3 bits, whose best range is often half of the whole. Both raise errors to the power
/// 2.4, a value tuned on models; we square them, so that the search minimizes what its name and
/// the reported error say. A candidate's scale is rounded to its stored type before it is judged.
public struct RoundToNearest: WeightMethod, Hashable {
  public enum Clipping: Sendable, Hashable {
    case minMax
    case meanSquareError(maximumShrink: Double = 0.8, grid: Int = 100)
  }

  public var codec: AffineGroups
  public var clipping: Clipping

  public init(codec: AffineGroups, clipping: Clipping = .minMax) {
    self.codec = codec
    self.clipping = clipping
  }

  /// - Parameter weight: `[outputs, inputs]`; its file pages are given back afterwards.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    let choice = try clipping.gridChoice()
    defer { weight.giveBack() }
    do {
      let (compressed, error) = try codec.encode(weight, choosing: choice)
      return CompressedWeight(weight: compressed, error: error)
    } catch {
      throw CompressionError(error)
    }
  }
}

extension RoundToNearest.Clipping {
  /// - Throws: `.unsupportedSetting` where there is nothing to search.
  func gridChoice() throws(CompressionError) -> GridChoice {
    switch self {
    case .minMax:
      return .range
    case .meanSquareError(let maximumShrink, let grid):
      guard (1...10_000).contains(grid), maximumShrink >= 0, maximumShrink < 1 else {
        throw .unsupportedSetting(
          "a clipping search with grid \(grid) and maximum shrink \(maximumShrink) is not "
            + "possible; choose a grid of 1 to 10000 and a shrink from 0 up to, not including, 1.")
      }
      return .search(
        count: max(1, Int((maximumShrink * Double(grid)).rounded())), grid: Float(grid))
    }
  }
}
