/// Why a quantized model cannot be carried into another layout.
public enum ConversionError: Error, CustomStringConvertible, Sendable, Equatable {
  public struct Refusal: Sendable, Equatable {
    public var tensor: String
    public var reason: String
  }

  /// Matrices whose grids the target has no place for.
  case refused([Refusal], target: String, path: String)
  case nothingQuantized(target: String, path: String)

  public var description: String {
    switch self {
    case .refused(let refusals, let target, let path):
      "\(path) cannot be written as \(target) as it is: "
        + refusals.prefix(3).map { "\($0.tensor): \($0.reason)" }.joined(separator: " ")
        + (refusals.count > 3 ? " (\(refusals.count) tensors in all.)" : "")
        + " Add --requantize to round such matrices anew, or choose another format."
    case .nothingQuantized("gguf", let path):
      "\(path) has no quantized matrix whose codes could be kept. Give --type, such as --type q4_k_m."
    case .nothingQuantized(let target, let path):
      "\(path) has no quantized matrix that \(target) could hold. Quantize it first with "
        + "pare quantize."
    }
  }
}
