package import Tensors

/// What a pass of one model over a batch left to compare: states with their place in the computation
/// (student) or without (teacher).
package struct PassStates {
  /// `[tokens, hidden]`, what the first block reads.
  package var embedding: Tensor?
  /// Every block's output `[tokens, hidden]`.
  package var blocks: [Tensor] = []
  /// Every block's rotated queries and keys, and values, where asked for.
  package var attention: [AttentionStates] = []
  /// After the final norm.
  package var final: Tensor?

  package struct AttentionStates {
    /// `[tokens, heads · headDim]`
    package var queries: Tensor
    /// `[tokens, keyValueHeads · headDim]`
    package var keys: Tensor
    package var values: Tensor
    package var heads: Int
    package var keyValueHeads: Int
  }

  package init() {}
}

/// A loss on what is inside two models: hidden states, attention, relations between tokens.
package protocol StateLoss: Sendable {
  /// As recipes and logs call it: `hidden`, `minilm`.
  var name: String { get }
  /// Whether it looks at queries, keys and values.
  var needsAttention: Bool { get }
  /// Projections and the like that are trained with the student.
  var parameters: [Parameter] { get }

  /// The loss as a recorded scalar, a tensor of one element, so that the tape finds the way back.
  ///
  /// - Parameters:
  ///   - segments: the texts' rows in the states.
  ///   - weights: how much each row counts, `[tokens]`; rows of zero weight are padding.
  /// - Returns: a mean over whatever the loss is over; recorded.
  func value(
    student: PassStates, teacher: PassStates, segments: [Range<Int>], weights: [Float]
  ) throws -> Tensor
}
