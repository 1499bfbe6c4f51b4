/// What can be wrong with a model's description or with tensors that should fit it.
public enum ModelError: Error, CustomStringConvertible, Sendable {
  case missingConfiguration(path: String)
  case malformedConfiguration(path: String, reason: String)
  case unknownModelType(String, known: [String])
  case missingField(String, path: String)
  case badField(String, expected: String, found: String, path: String)
  case unsupportedField(String, value: String, reason: String, path: String)
  case missingTensors([String], path: String)
  case unexpectedTensors([String], path: String)
  case wrongShape(name: String, expected: [Int], actual: [Int], path: String)
  case wrongType(name: String, found: String, path: String)
  case tiedTensorsDiffer(embedding: String, head: String, path: String)
  case tokenOutOfRange(id: Int, vocabulary: Int)
  case contextExceeded(tokens: Int, context: Int)
  case noTokens
  case badWeight(module: String, reason: String, path: String)
  case unsupportedQuantization(reason: String, path: String)
  case notForGGUF([String], path: String)
  case badPackedCache(path: String, reason: String)
  case notStorable(name: String, path: String)

  public var description: String {
    switch self {
    case .badPackedCache(let path, let reason):
      "\(path) cannot serve as cache of packed weights: \(reason). Delete it to have it made again."
    case .notStorable(let name, let path):
      "\(name) of \(path) is kept in a form that a Hugging Face folder has no place for. "
        + "Convert the model with pare convert --dtype first."
    case .missingConfiguration(let path):
      "\(path) has no config.json. Point at the folder of a Hugging Face checkpoint."
    case .malformedConfiguration(let path, let reason):
      "\(path)/config.json cannot be used: \(reason). Fetch the file again from its source."
    case .unknownModelType(let type, let known):
      "model_type \"\(type)\" is not an architecture Pare knows. It knows: "
        + known.joined(separator: ", ") + "."
    case .missingField(let field, let path):
      "\(path)/config.json lacks \"\(field)\", which this architecture needs. Add it."
    case .badField(let field, let expected, let found, let path):
      "\(path)/config.json: \"\(field)\" should be \(expected) but is \(found). Correct it."
    case .unsupportedField(let field, let value, let reason, let path):
      "\(path)/config.json: \"\(field)\": \(value) changes the computation in a way Pare does not "
        + "support (\(reason)). Use a checkpoint without it."
    case .missingTensors(let names, let path):
      "\(path) lacks \(Self.list(names)), which its config.json calls for. "
        + "Fetch the checkpoint again or correct the config."
    case .unexpectedTensors(let names, let path):
      "\(path) holds \(Self.list(names)), which its config.json has no place for. "
        + "Correct the config or remove them."
    case .wrongShape(let name, let expected, let actual, let path):
      "\(path): tensor \(name) has shape \(actual) where config.json implies \(expected). "
        + "Config and weights are of different models; fetch both again."
    case .wrongType(let name, let found, let path):
      "\(path): tensor \(name) has element type \(found); a floating-point type is needed. "
        + "If it is quantized, config.json must say how in quantization_config."
    case .tiedTensorsDiffer(let embedding, let head, let path):
      "\(path): config.json ties the output head to the embedding, but \(head) and \(embedding) "
        + "differ. Set tie_word_embeddings to false to keep both, or remove \(head)."
    case .tokenOutOfRange(let id, let vocabulary):
      "token id \(id) is outside the vocabulary of \(vocabulary). Use ids from 0 to "
        + "\(vocabulary - 1); the tokenizer may belong to another model."
    case .contextExceeded(let tokens, let context):
      "\(tokens) tokens are more than the model's context of \(context). Shorten the input or "
        + "generate fewer tokens."
    case .noTokens:
      "there are no tokens to run. Give a text or ids that are not empty."
    case .badWeight(let module, let reason, let path):
      "\(path): \(module): \(reason)"
    case .unsupportedQuantization(let reason, let path):
      "\(path): its quantization cannot be read: \(reason). Convert it to compressed-tensors "
        + "pack-quantized or int-quantized first."
    case .notForGGUF(let reasons, let path):
      "\(path) cannot be written as GGUF: \(reasons.joined(separator: "; "))."
    }
  }

  private static func list(_ names: [String]) -> String {
    let shown = names.prefix(4).joined(separator: ", ")
    return names.count > 4
      ? "\(names.count) tensors (\(shown), …)"
      : (names.count == 1 ? "tensor " : "tensors ") + shown
  }
}
