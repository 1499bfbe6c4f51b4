public import Tensors

/// Why a stored weight cannot be read or a matrix cannot be encoded. Components are named by their
/// suffix; whoever knows the module's path says it too.
public enum CodecError: Error, Equatable, CustomStringConvertible {
  /// Bits, group size or scale type outside what the codec does.
  case unsupportedSetting(String)
  /// A matrix that is not `[outputs, inputs]` or has a type the codec cannot read.
  case unsupportedShape(shape: [Int], dtype: DType)
  /// Columns that the group size does not divide.
  case groupDoesNotDivide(inputs: Int, groupSize: Int)
  case missing(component: String)
  case unexpected(component: String)
  case wrongType(component: String, expected: String, actual: DType)
  case wrongShape(component: String, expected: [Int], actual: [Int])
  /// A value inside a component that no writer of this format produces.
  case wrongValue(component: String, reason: String)
  case notFinite(row: Int, column: Int)
  /// A scale too large for its stored type.
  case scaleOverflow(row: Int, column: Int, scaleType: DType)
  /// A row that is no whole number of GGUF blocks.
  case blockDoesNotDivide(inputs: Int, type: GGUFType)
  /// Weights too large for the float16 scales of a GGUF block.
  case blockScaleOverflow(row: Int, column: Int, type: GGUFType)
  /// Stored numbers that another layout has no place for.
  case notRepresentable(String)
  /// Importances that do not fit the matrix, or are no weights of a sum.
  case wrongImportance(String)

  public var description: String {
    switch self {
    case .unsupportedSetting(let reason):
      reason
    case .unsupportedShape(let shape, let dtype):
      "a tensor of shape \(shape) and type \(dtype.rawValue) cannot be encoded; "
        + "a floating-point matrix is needed."
    case .groupDoesNotDivide(let inputs, let groupSize):
      "groups of \(groupSize) do not divide \(inputs) input columns; choose a smaller dividing "
        + "group, one scale per channel, or leave the tensor out."
    case .missing(let component):
      "the component '\(component)' is missing; the checkpoint is incomplete or of another format."
    case .unexpected(let component):
      "the component '\(component)' does not belong to this quantization scheme; check "
        + "quantization_config in config.json."
    case .wrongType(let component, let expected, let actual):
      "the component '\(component)' has type \(actual.rawValue) where \(expected) is expected; "
        + "check quantization_config in config.json."
    case .wrongShape(let component, let expected, let actual):
      "the component '\(component)' has shape \(actual) where \(expected) is expected; check the "
        + "bits and group size in quantization_config."
    case .wrongValue(let component, let reason):
      "the component '\(component)' is damaged: \(reason)."
    case .notFinite(let row, let column):
      "the weight at row \(row), column \(column) is NaN or infinite; repair the checkpoint or "
        + "leave this tensor out."
    case .scaleOverflow(let row, let column, let scaleType):
      "the scale of the group at row \(row), column \(column) does not fit \(scaleType.rawValue); "
        + "store scales as BF16 or F32."
    case .blockDoesNotDivide(let inputs, let type):
      "rows of \(inputs) input columns are no whole blocks of \(type.blockLength), which "
        + "\(type.name) has; choose a type whose block length divides them, or F16."
    case .blockScaleOverflow(let row, let column, let type):
      "the scale of the \(type.name) block at row \(row), column \(column) does not fit float16; "
        + "keep this tensor in BF16 or F32."
    case .notRepresentable(let reason):
      "\(reason)."
    case .wrongImportance(let reason):
      "\(reason); importance is one finite number, zero or more, for each input column."
    }
  }
}
