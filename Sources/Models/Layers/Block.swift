public import Tensors

/// A transformer block as an ordered list of stages, each a few matrices that share one input.
/// `forward` runs them in turn; a calibration walk runs one stage over all samples before the next,
/// so that a stage's matrices can be replaced while only its inputs are kept.
public struct Block: Sendable {
  public enum Stage: CaseIterable, Sendable {
    case queryKeyValue, attention, attentionOutput, feedForwardInput, feedForwardOutput
  }

  public let configuration: BlockConfiguration
  /// `[q, k, v]`, or one fused matrix.
  public var attentionInputs: [Linear]
  public var attentionOutput: Linear
  /// `[gate, up]`, one fused `[gate | up]`, or `[up]`.
  public var feedForwardInputs: [Linear]
  public var feedForwardOutput: Linear
  public var attentionNorms: Norms
  public var feedForwardNorms: Norms
  public var queryNorm: Norm?
  public var keyNorm: Norm?

  /// All matrices in the order of computation.
  public var linears: [Linear] {
    attentionInputs + [attentionOutput] + feedForwardInputs + [feedForwardOutput]
  }

  /// The matrices that a stage multiplies its input by; attention has none.
  package func linears(of stage: Stage) -> [Linear] {
    switch stage {
    case .queryKeyValue: attentionInputs
    case .attention: []
    case .attentionOutput: [attentionOutput]
    case .feedForwardInput: feedForwardInputs
    case .feedForwardOutput: [feedForwardOutput]
    }
  }

  /// Visits every matrix with its bias in the order of computation.
  package mutating func updateLinears(_ body: (inout Linear) throws -> Void) rethrows {
    for index in attentionInputs.indices { try body(&attentionInputs[index]) }
    try body(&attentionOutput)
    for index in feedForwardInputs.indices { try body(&feedForwardInputs[index]) }
    try body(&feedForwardOutput)
  }

  /// Visits every norm.
  package mutating func updateNorms(_ body: (inout Norm) throws -> Void) rethrows {
    func visit(_ norm: inout Norm?) throws {
      guard var visited = norm else { return }
      try body(&visited)
      norm = visited
    }
    try visit(&attentionNorms.before)
    try visit(&queryNorm)
    try visit(&keyNorm)
    try visit(&attentionNorms.output)
    try visit(&attentionNorms.after)
    try visit(&feedForwardNorms.before)
    try visit(&feedForwardNorms.output)
    try visit(&feedForwardNorms.after)
  }

  public struct Norms: Sendable {
    public var before: Norm?
    public var output: Norm?
    public var after: Norm?
  }

  /// Where a block stands between two stages.
  public struct State {
    /// The residual stream `[tokens, hidden]`.
    public var residual: Tensor
    /// What the matrices of the next stage multiply.
    public var input: Tensor
    var queries, keys, values: Tensor?
    /// The other branch's contribution, where both read the block's input.
    var pending: Tensor?

    init(residual: Tensor, input: Tensor) {
      self.residual = residual
      self.input = input
    }

    /// Everything it holds, to be kept somewhere until the next stage.
    package var parts: [Tensor?] { [residual, input, queries, keys, values, pending] }

    /// - Parameter parts: as `parts` gave them.
    /// - Returns: nil where the first two are missing.
    package init?(parts: [Tensor?]) {
      guard parts.count == 6, let residual = parts[0], let input = parts[1] else { return nil }
      self.init(residual: residual, input: input)
      (queries, keys, values, pending) = (parts[2], parts[3], parts[4], parts[5])
    }
  }

  /// What attention needs to know of the texts around the tokens.
  package struct Context {
    /// Rows of the input that continue one text.
    package struct Sequence {
      /// The tokens before; nil for a whole text, which begins at position 0 and leaves nothing behind.
      package let cache: KVCache?
      package let rows: Range<Int>
      package let rotary: RotaryTable?
      /// Where the first position of a whole text lies in `rotary`.
      package let firstRotation: Int

      package init(
        cache: KVCache?, rows: Range<Int>, rotary: RotaryTable?, firstRotation: Int = 0
      ) {
        self.cache = cache
        self.rows = rows
        self.rotary = rotary
        self.firstRotation = firstRotation
      }
    }

    /// Side by side, they cover all rows. Only attention tells them apart: every matrix multiplies
    /// the rows of all of them together.
    package let sequences: [Sequence]
    /// Of the block.
    package let index: Int
    /// Sees queries and keys, both rotated, and values of whole texts:
    /// `[tokens, heads · headDim]`, `[tokens, keyValueHeads · headDim]` twice.
    package var onAttention: ((_ queries: Tensor, _ keys: Tensor, _ values: Tensor) -> Void)?

    /// Whether nothing came before and nothing will follow, as in training: all texts are then worked
    /// on in one operation, and share one table of rotations.
    package var isOfWholeTexts: Bool { sequences.allSatisfy { $0.cache == nil } }

    package init(sequences: [Sequence], index: Int) {
      self.sequences = sequences
      self.index = index
    }
  }

  /// - Parameter x: `[tokens, hidden]`
  package func forward(_ x: Tensor, _ context: Context) -> Tensor {
    var state = begin(x)
    for stage in Stage.allCases { run(stage, &state, context) }
    return state.residual
  }

  package func begin(_ x: Tensor) -> State {
    let normed = attentionNorms.before?(x) ?? x
    return State(residual: configuration.residualIsNormed ? normed : x, input: normed)
  }

  package func run(_ stage: Stage, _ state: inout State, _ context: Context) {
    switch stage {
    case .queryKeyValue: projectInputs(&state)
    case .attention: attend(&state, context)
    case .attentionOutput: finishAttention(&state)
    case .feedForwardInput: expand(&state)
    case .feedForwardOutput: finishFeedForward(&state)
    }
  }

  private func finishAttention(_ state: inout State) {
    var branch = attentionOutput(state.input)
    if let norm = attentionNorms.output { branch = norm(branch) }
    if configuration.isParallel {
      state.pending = branch
      state.input = feedForwardNorms.before?(state.residual) ?? state.residual
      return
    }
    var x = state.residual + branch
    if let norm = attentionNorms.after { x = norm(x) }
    let normed = feedForwardNorms.before?(x) ?? x
    state.residual = configuration.residualIsNormed ? normed : x
    state.input = normed
  }

  private func expand(_ state: inout State) {
    let activation = configuration.feedForward.activation
    guard configuration.feedForward.isGated else {
      state.input = feedForwardInputs[0](state.input).activated(activation)
      return
    }
    let size = configuration.feedForward.intermediateSize
    let (gate, up): (Tensor, Tensor)
    if feedForwardInputs.count == 1 {
      let both = feedForwardInputs[0](state.input)
      (gate, up) = (both.columns(0..<size), both.columns(size..<(2 * size)))
    } else {
      (gate, up) = (feedForwardInputs[0](state.input), feedForwardInputs[1](state.input))
    }
    state.input = Tensor.gated(gate, up, activation)
  }

  private func finishFeedForward(_ state: inout State) {
    var branch = feedForwardOutput(state.input)
    if let norm = feedForwardNorms.output { branch = norm(branch) }
    var x = state.residual + branch
    if let pending = state.pending { x = x + pending }
    if let norm = feedForwardNorms.after { x = norm(x) }
    state.residual = x
    state.input = x
    state.pending = nil
  }
}
