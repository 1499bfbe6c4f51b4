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
      let compressed = try NF4.qlora.encode(weight)
      return CompressedWeight(
        weight: compressed, error: EncodingError.between(weight.widened(), compressed))
    } catch {
      throw CompressionError(error)
    }
  }
}

extension EncodingError {
  /// What decoding a matrix again gives beside what it was.
  static func between(_ weight: Tensor, _ compressed: any Weight) -> EncodingError {
    let columns = weight.columns
    var error = EncodingError(
      squaredError: 0, squaredWeight: 0, largestError: 0, count: weight.count)
    let decoded = compressed.dequantized()
    for index in 0..<weight.rows * columns {
      let (w, d) = (weight.floats[index], weight.floats[index] - decoded.floats[index])
      error.squaredError += Double(d) * Double(d)
      error.squaredWeight += Double(w) * Double(w)
      error.largestError = max(error.largestError, abs(d))
    }
    return error
  }
}
