import Tensors

/// The wiring of the GPT-2 generation: layer norms with biases, a feed-forward of two matrices.
/// Families differ in names, positions and how queries, keys and values are stored.
struct LayerNormDecoder {
  var hiddenSize: Int
  var heads: Int
  var epsilon: Float
  var activation: Activation
  var bias = true
  var isTransposed = false
  var normHasWeight = true
  var normHasBias = true

  var headDim: Int { hiddenSize / heads }

  /// Checks that the heads divide the hidden size.
  init(
    hiddenSize: Int, heads: Int, epsilon: Double, activation: Activation, headsField: String,
    config: ConfigReader
  ) throws(ModelError) {
    guard hiddenSize % heads == 0 else {
      throw config.bad(headsField, expected: "a divisor of the hidden size (\(hiddenSize))")
    }
    self.hiddenSize = hiddenSize
    self.heads = heads
    self.epsilon = Float(epsilon)
    self.activation = activation
  }

  func norm(_ name: String) -> NormConfiguration {
    NormConfiguration(
      name: name, kind: .layer(hasBias: normHasBias, hasWeight: normHasWeight), epsilon: epsilon,
      width: hiddenSize)
  }

  func linear(_ name: String, _ role: Role, _ outputs: Int, _ inputs: Int) -> LinearConfiguration {
    LinearConfiguration(
      name: name, role: role, outputs: outputs, inputs: inputs, hasBias: bias,
      isTransposed: isTransposed)
  }

  func attention(
    layout: QueryKeyValueLayout, inputs: [LinearConfiguration], output: String
  ) -> AttentionConfiguration {
    AttentionConfiguration(
      heads: heads, keyValueHeads: heads, headDim: headDim, layout: layout, inputs: inputs,
      output: linear(output, .attentionOutput, hiddenSize, hiddenSize),
      scale: 1 / Float(headDim).squareRoot())
  }

  func feedForward(up: String, down: String, intermediateSize: Int) -> FeedForwardConfiguration {
    FeedForwardConfiguration(
      activation: activation, inputs: [linear(up, .up, intermediateSize, hiddenSize)],
      down: linear(down, .down, hiddenSize, intermediateSize), isGated: false)
  }
}
