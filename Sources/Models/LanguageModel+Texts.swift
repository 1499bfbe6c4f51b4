public import Tensors

/// Who wants to see inside a pass of whole texts; what is seen has its place in the computation.
package struct PassObserver {
  /// The blocks' input, `[tokens, hidden]`.
  package var onEmbedding: ((Tensor) -> Void)?
  /// A block's output, `(block, [tokens, hidden])`.
  package var onBlock: ((Int, Tensor) -> Void)?
  /// `(block, queries, keys, values)` as `Block.Context.onAttention` has them. Not to be had of a pass
  /// that recomputes its blocks on the way back.
  package var onAttention: ((Int, Tensor, Tensor, Tensor) -> Void)?

  package init() {}
}

extension LanguageModel {
  /// Whole texts side by side, as training and calibration see them: each begins at position 0,
  /// attends within itself only, and leaves no cache. Where the model's tensors are parameters, the
  /// result can be differentiated.
  ///
  /// - Parameters:
  ///   - tokens: of all texts, one after the other.
  ///   - segments: the texts' places in `tokens`; together all of it, in order.
  ///   - recomputing: keeps only each block's input, and computes the rest again on the way back.
  /// - Returns: hidden states after the final norm, `[tokens, hidden]`.
  /// - Throws: `ModelError` for ids outside the vocabulary or a text longer than the context;
  ///   `CheckpointError` if mapped weights became unreadable meanwhile.
  public func hidden(tokens: [Int], segments: [Range<Int>], recomputing: Bool = false) throws
    -> Tensor
  {
    try hidden(
      tokens: tokens, segments: segments, recomputing: recomputing, observer: PassObserver())
  }

  package func hidden(
    tokens: [Int], segments: [Range<Int>], recomputing: Bool = false, observer: PassObserver
  ) throws -> Tensor {
    precondition(!(recomputing && observer.onAttention != nil))
    try check(tokens, segments)
    let positions = segments.flatMap { 0..<$0.count }
    let longest = segments.reduce(0) { max($0, $1.count) }
    var tables: [(RotaryConfiguration, RotaryTable)] = []
    var x = embedding(tokens, positions: positions)
    observer.onEmbedding?(x)
    for (index, block) in blocks.enumerated() {
      var table: RotaryTable?
      if let rotary = block.configuration.attention.rotary {
        let known = tables.first { $0.0 == rotary }?.1
        table =
          known
          ?? RotaryTable(
            inverseFrequencies: rotary.inverseFrequencies(length: longest), positions: 0..<longest,
            attentionScaling: rotary.attentionFactor)
        if known == nil, let table { tables.append((rotary, table)) }
      }
      var context = Block.Context(
        sequences: segments.map { .init(cache: nil, rows: $0, rotary: table) }, index: index)
      if let onAttention = observer.onAttention {
        context.onAttention = { onAttention(index, $0, $1, $2) }
      }
      x =
        recomputing
        ? Tape.recomputing(x) { block.forward($0, context) } : block.forward(x, context)
      observer.onBlock?(index, x)
    }
    try checkpoint.checkIntact()
    return finalNorm?(x) ?? x
  }

  private func check(_ tokens: [Int], _ segments: [Range<Int>]) throws(ModelError) {
    guard !tokens.isEmpty else { throw .noTokens }
    precondition(segments.reduce(0) { $0 + $1.count } == tokens.count)
    try checkTokens(tokens)
    guard let context = configuration.contextLength else { return }
    for segment in segments where segment.count > context {
      throw .contextExceeded(tokens: segment.count, context: context)
    }
  }
}
