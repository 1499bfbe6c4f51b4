public import Calibration
import Codecs
public import Tensors

/// Each weight goes to the nearest of NormalFloat's sixteen numbers under its block's scale, scales
/// quantized too (Dettmers et al. 2023, QLoRA, arXiv:2305.14314, section 3).
public struct NF4Rounding: WeightMethod, Hashable {
  public init() {}

  /// - Parameter weight: `[outputs, inputs]`; its file pages are given back afterwards.
  public func compress(_ weight: Tensor, _ statistics: InputStatistics)
    throws(CompressionError) -> CompressedWeight
  {
    defer { weight.giveBack() }
    do {
      return CompressedWeight(try NF4.qlora.encode(weight), of: weight, statistics)
    } catch {
      throw CompressionError(error)
    }
  }
}
