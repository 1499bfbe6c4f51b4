public import Codecs
import Text

/// How a checkpoint says which of its matrices are quantized, and how they lie in the file.
public protocol Quantization: Sendable {
  /// - Parameters:
  ///   - module: its path as stored.
  ///   - className: what transformers calls it, for descriptions that name classes.
  ///   - isStored: whether the file has a tensor of this ending after the module's path.
  /// - Returns: nil where the matrix is dense.
  func layout(
    of module: String, className: String, isStored: (_ suffix: String) -> Bool
  ) -> (any MatrixLayout)?

  /// What happens to the inputs of some modules at run time.
  var transforms: [CompressedTensors.Transform] { get }
}

extension Quantization {
  /// Only compressed-tensors describes any.
  public var transforms: [CompressedTensors.Transform] { [] }

  /// Only the transforms, of a model whose matrices are plain; nil where there are none.
  package var transformsAlone: CompressedTensors? {
    transforms.isEmpty
      ? nil : try? CompressedTensors(groups: [], ignore: [], transforms: transforms)
  }
}

extension CompressedTensors: Quantization {
  public func layout(
    of module: String, className: String, isStored: (_ suffix: String) -> Bool
  ) -> (any MatrixLayout)? {
    scheme(forModule: module, className: className)
  }
}

/// Reads what a `config.json` says of its quantization: compressed-tensors, GPTQ and AWQ under
/// `quantization_config`, MLX under `quantization`.
///
/// - Throws: `ModelError.unsupportedQuantization` naming the method or setting.
func readQuantization(_ config: JSON, path: String) throws(ModelError) -> (any Quantization)? {
  if let mlx = config["quantization"], !mlx.isNull {
    return try MLXConfiguration(mlx, path: path)
  }
  guard let json = config["quantization_config"] ?? config["compression_config"], !json.isNull
  else { return nil }
  switch json["quant_method"]?.string {
  case "gptq": return try GPTQConfiguration(json, path: path)
  case "bitsandbytes": return try BitsAndBytesConfiguration(json, path: path)
  case "pare": return try FormConfiguration(json, path: path)
  case "awq": return try AWQConfiguration(json, path: path)
  case nil where json["group_size"] != nil && json["bits"] != nil:
    return try MLXConfiguration(json, path: path)
  default: return try CompressedTensors(quantizationConfig: json, path: path)
  }
}
