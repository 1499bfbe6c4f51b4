package import Tensors
public import Text

/// One published family: reads its `config.json` into a `ModelConfiguration`.
package protocol Architecture: Sendable {
  /// The `model_type` values it answers to.
  static var modelTypes: [String] { get }
  static func configuration(_ config: inout ConfigReader) throws(ModelError) -> ModelConfiguration
}

extension ModelConfiguration {
  package static let architectures: [any Architecture.Type] = [
    Llama.self, Mistral.self, Qwen2.self, Qwen3.self, Gemma2.self, Gemma3.self, Phi3.self,
    OLMo2.self, GPT2.self, OPT.self, BLOOM.self, GPTNeoX.self,
  ]

  /// The `model_type` values of all supported families.
  public static var supportedModelTypes: [String] {
    architectures.flatMap { $0.modelTypes }.sorted()
  }

  /// Reads a parsed `config.json`.
  /// - Throws: `ModelError` naming the unknown `model_type`, or the field that is missing, malformed
  ///   or changes the computation in an unsupported way.
  public init(config: JSON, path: String) throws(ModelError) {
    guard let fields = config.object else {
      throw .malformedConfiguration(path: path, reason: "it is not a JSON object")
    }
    var reader = ConfigReader(fields: fields, path: path)
    guard let type = try reader.optionalString("model_type") else {
      throw .missingField("model_type", path: path)
    }
    guard let family = Self.architectures.first(where: { $0.modelTypes.contains(type) }) else {
      throw .unknownModelType(type, known: Self.supportedModelTypes)
    }
    self = try family.configuration(&reader)
    beginToken = try reader.tokens("bos_token_id").first
    endTokens = try reader.tokens("eos_token_id")
    unknownFields = try reader.finish()
  }
}

extension ConfigReader {
  package mutating func activation(_ name: String, default fallback: String) throws(ModelError)
    -> Activation
  {
    switch try optionalString(name) ?? fallback {
    case "silu", "swish": .silu
    case "gelu": .gelu
    case "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh": .geluTanh
    case "relu": .relu
    default: throw unsupported(name, "known: silu, gelu, gelu_new, gelu_pytorch_tanh, relu")
    }
  }

  /// Head counts and width, checked against each other.
  package mutating func heads(hiddenSize: Int, headDim fallback: Int? = nil) throws(ModelError)
    -> (heads: Int, keyValueHeads: Int, headDim: Int)
  {
    let heads = try size("num_attention_heads")
    let keyValueHeads = try optionalSize("num_key_value_heads") ?? heads
    guard heads % keyValueHeads == 0 else {
      throw bad("num_key_value_heads", expected: "a divisor of num_attention_heads (\(heads))")
    }
    if let headDim = try optionalSize("head_dim") ?? fallback {
      return (heads, keyValueHeads, headDim)
    }
    guard hiddenSize % heads == 0 else {
      throw bad("num_attention_heads", expected: "a divisor of hidden_size (\(hiddenSize))")
    }
    return (heads, keyValueHeads, hiddenSize / heads)
  }

  /// Which layers attend within a window, as `layer_types` says or else as `isSliding` does.
  package mutating func slidingLayers(
    count: Int, window: Int?, default isSliding: (Int) -> Bool
  ) throws(ModelError) -> [Int?] {
    guard let types = try optionalStrings("layer_types") else {
      return (0..<count).map { isSliding($0) ? window : nil }
    }
    guard types.count == count else {
      throw bad("layer_types", expected: "one entry for each of the \(count) layers")
    }
    var windows: [Int?] = []
    for type in types {
      switch type {
      case "full_attention": windows.append(nil)
      case "sliding_attention":
        guard let window else { throw .missingField("sliding_window", path: path) }
        windows.append(window)
      default: throw unsupported("layer_types", "known: full_attention, sliding_attention")
      }
    }
    return windows
  }
}
