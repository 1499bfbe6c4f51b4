/// What a tensor does in a model, whatever its checkpoint calls it. Recipes target these.
public enum Role: String, Sendable, Hashable, CaseIterable {
  case query = "attention.q"
  case key = "attention.k"
  case value = "attention.v"
  /// Query, key and value in one matrix.
  case queryKeyValue = "attention.qkv"
  case attentionOutput = "attention.o"
  case gate = "mlp.gate"
  case up = "mlp.up"
  /// Gate and up in one matrix.
  case gateUp = "mlp.gate_up"
  case down = "mlp.down"
  case embedding = "embedding"
  case positionEmbedding = "embedding.position"
  case embeddingProjection = "embedding.projection"
  case headProjection = "head.projection"
  case head = "head"
  case norm = "norm"
  case bias = "bias"

  /// Whether a matrix of this role multiplies activations inside a block, the usual target.
  public var isBlockLinear: Bool {
    switch self {
    case .query, .key, .value, .queryKeyValue, .attentionOutput, .gate, .up, .gateUp, .down: true
    default: false
    }
  }
}
