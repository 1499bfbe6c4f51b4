public import Tensors

/// A model's computation as data: every number and every wiring choice that `LanguageModel` needs,
/// and the checkpoint's name for each tensor. An architecture is a function from `config.json` to
/// this value.
public struct ModelConfiguration: Sendable {
  public var modelType: String
  public var vocabularySize: Int
  public var hiddenSize: Int
  /// Positions the model was made for; `nil` where positions have no bound (ALiBi).
  public var contextLength: Int?
  public var embedding: EmbeddingConfiguration
  public var blocks: [BlockConfiguration]
  public var finalNorm: NormConfiguration?
  public var head: HeadConfiguration
  public var beginToken: Int?
  /// Every id that ends a text; several models have more than one.
  public var endTokens: [Int]
  /// Prefix of all tensors but the head's, absent from checkpoints saved from the bare model.
  public var basePrefix: String
  /// Endings of tensors that older checkpoints carry and no computation reads.
  public var inertSuffixes: [String] = []
  /// Fields of `config.json` that Pare does not know.
  public var unknownFields: [String] = []
}

public struct EmbeddingConfiguration: Sendable {
  public var name: String
  /// Width of an embedding row; a projection follows where it is not the hidden size (OPT-350m).
  public var width: Int
  public var scale: Float = 1
  public var norm: NormConfiguration?
  public var projection: LinearConfiguration?
  public var positions: LearnedPositions?
}

/// A table of position vectors; the row of position p is `p + offset`.
public struct LearnedPositions: Sendable {
  public var name: String
  public var count: Int
  public var offset = 0
}

public struct HeadConfiguration: Sendable {
  public var name: String
  /// The head multiplies by the embedding matrix itself.
  public var isTied: Bool
  public var projection: LinearConfiguration?
  public var softCap: Float?
  public var hasBias = false
}

public struct NormConfiguration: Sendable {
  public enum Kind: Sendable, Equatable {
    /// x / √(mean x² + ε) · (offset + w)
    case rootMeanSquare(offset: Float)
    /// (x − mean) / √(variance + ε) · w + b
    case layer(hasBias: Bool, hasWeight: Bool)
  }
  public var name: String
  public var kind: Kind
  public var epsilon: Float
  public var width: Int
}

/// One matrix `[outputs, inputs]` of the model.
public struct LinearConfiguration: Sendable {
  /// Module path in the checkpoint, such as `model.layers.0.self_attn.q_proj`.
  public var name: String
  public var role: Role
  public var outputs: Int
  public var inputs: Int
  public var hasBias: Bool
  /// Stored `[inputs, outputs]` (GPT-2's Conv1D).
  public var isTransposed = false
}

/// How the parts of a fused query-key-value output lie in its columns.
public enum QueryKeyValueLayout: Sendable {
  /// Three matrices.
  case separate
  /// All queries, then all keys, then all values.
  case blocks
  /// For each head its query, key and value.
  case perHead
}

public struct AttentionConfiguration: Sendable {
  public var heads: Int
  public var keyValueHeads: Int
  public var headDim: Int
  public var layout: QueryKeyValueLayout
  /// `[q, k, v]` or the one fused matrix.
  public var inputs: [LinearConfiguration]
  public var output: LinearConfiguration
  /// Factor on query · key before the softmax.
  public var scale: Float
  public var softCap: Float?
  /// A query at position i sees keys j with i − window < j ≤ i.
  public var slidingWindow: Int?
  public var rotary: RotaryConfiguration?
  /// One slope per head (Press et al. 2022).
  public var alibiSlopes: [Float]?
  public var queryNorm: NormConfiguration?
  public var keyNorm: NormConfiguration?
}

public struct FeedForwardConfiguration: Sendable {
  public var activation: Activation
  /// `[gate, up]`, one fused `[gate | up]`, or `[up]` alone where nothing gates.
  public var inputs: [LinearConfiguration]
  public var down: LinearConfiguration
  public var isGated: Bool
  public var intermediateSize: Int { down.inputs }
}

/// Where norms stand around a branch (attention or feed-forward) of a block:
/// `x ← after(x + output(branch(before(x))))`.
public struct BranchNorms: Sendable {
  public var before: NormConfiguration?
  public var output: NormConfiguration?
  public var after: NormConfiguration?

  public init(
    before: NormConfiguration? = nil, output: NormConfiguration? = nil,
    after: NormConfiguration? = nil
  ) {
    self.before = before
    self.output = output
    self.after = after
  }
}

public struct BlockConfiguration: Sendable {
  public var name: String
  public var attention: AttentionConfiguration
  public var feedForward: FeedForwardConfiguration
  public var attentionNorms: BranchNorms
  public var feedForwardNorms: BranchNorms
  /// Both branches read the block's input: `x + attention(x) + feedForward(x)` (GPT-NeoX).
  public var isParallel = false
  /// The residual is the normed input, not the input (a switch of BLOOM).
  public var residualIsNormed = false
}
