import Tensors

/// The layer naming and wiring that Llama introduced and most later families vary: RMS norms,
/// rotary positions, separate q, k, v, a gated feed-forward without biases.
struct GatedDecoder {
  var hiddenSize: Int
  var heads: Int
  var keyValueHeads: Int
  var headDim: Int
  var intermediateSize: Int
  var activation = Activation.silu
  var epsilon: Float
  var normOffset: Float = 0
  var queryKeyValueBias = false
  var outputBias = false
  var feedForwardBias = false
  /// Norms of queries and keys: none, one vector per head, or one over all heads together.
  var queryKeyNorm = QueryKeyNorm.none
  var norms = Norms.before
  var scale: Float?
  var softCap: Float?

  enum QueryKeyNorm { case none, perHead, whole }
  enum Norms { case before, output, beforeAndOutput }

  init(
    hiddenSize: Int, heads: (heads: Int, keyValueHeads: Int, headDim: Int), intermediateSize: Int,
    epsilon: Double
  ) {
    self.hiddenSize = hiddenSize
    (self.heads, keyValueHeads, headDim) = heads
    self.intermediateSize = intermediateSize
    self.epsilon = Float(epsilon)
  }

  func norm(_ name: String, width: Int? = nil) -> NormConfiguration {
    NormConfiguration(
      name: name, kind: .rootMeanSquare(offset: normOffset), epsilon: epsilon,
      width: width ?? hiddenSize)
  }

  func block(_ index: Int, rotary: RotaryConfiguration, window: Int? = nil) -> BlockConfiguration {
    let name = "model.layers.\(index)"
    let queries = heads * headDim, keys = keyValueHeads * headDim
    func linear(_ path: String, _ role: Role, _ outputs: Int, _ inputs: Int, bias: Bool)
      -> LinearConfiguration
    {
      LinearConfiguration(
        name: "\(name).\(path)", role: role, outputs: outputs, inputs: inputs, hasBias: bias)
    }
    var attention = AttentionConfiguration(
      heads: heads, keyValueHeads: keyValueHeads, headDim: headDim, layout: .separate,
      inputs: [
        linear("self_attn.q_proj", .query, queries, hiddenSize, bias: queryKeyValueBias),
        linear("self_attn.k_proj", .key, keys, hiddenSize, bias: queryKeyValueBias),
        linear("self_attn.v_proj", .value, keys, hiddenSize, bias: queryKeyValueBias),
      ],
      output: linear("self_attn.o_proj", .attentionOutput, hiddenSize, queries, bias: outputBias),
      scale: scale ?? 1 / Float(headDim).squareRoot(), softCap: softCap, slidingWindow: window,
      rotary: rotary)
    if queryKeyNorm != .none {
      let whole = queryKeyNorm == .whole
      attention.queryNorm = norm("\(name).self_attn.q_norm", width: whole ? queries : headDim)
      attention.keyNorm = norm("\(name).self_attn.k_norm", width: whole ? keys : headDim)
    }
    let feedForward = FeedForwardConfiguration(
      activation: activation,
      inputs: [
        linear("mlp.gate_proj", .gate, intermediateSize, hiddenSize, bias: feedForwardBias),
        linear("mlp.up_proj", .up, intermediateSize, hiddenSize, bias: feedForwardBias),
      ],
      down: linear("mlp.down_proj", .down, hiddenSize, intermediateSize, bias: feedForwardBias),
      isGated: true)
    let (attentionNorms, feedForwardNorms) =
      switch norms {
      case .before:
        (
          BranchNorms(before: norm("\(name).input_layernorm")),
          BranchNorms(before: norm("\(name).post_attention_layernorm"))
        )
      case .output:
        (
          BranchNorms(output: norm("\(name).post_attention_layernorm")),
          BranchNorms(output: norm("\(name).post_feedforward_layernorm"))
        )
      case .beforeAndOutput:
        (
          BranchNorms(
            before: norm("\(name).input_layernorm"),
            output: norm("\(name).post_attention_layernorm")),
          BranchNorms(
            before: norm("\(name).pre_feedforward_layernorm"),
            output: norm("\(name).post_feedforward_layernorm"))
        )
      }
    return BlockConfiguration(
      name: name, attention: attention, feedForward: feedForward, attentionNorms: attentionNorms,
      feedForwardNorms: feedForwardNorms)
  }

  func model(
    _ type: String, vocabularySize: Int, contextLength: Int, blocks: [BlockConfiguration],
    tied: Bool
  ) -> ModelConfiguration {
    ModelConfiguration(
      modelType: type, vocabularySize: vocabularySize, hiddenSize: hiddenSize,
      contextLength: contextLength,
      embedding: EmbeddingConfiguration(name: "model.embed_tokens", width: hiddenSize),
      blocks: blocks, finalNorm: norm("model.norm"),
      head: HeadConfiguration(name: "lm_head", isTied: tied), endTokens: [], basePrefix: "model.",
      inertSuffixes: [".rotary_emb.inv_freq"])
  }
}
