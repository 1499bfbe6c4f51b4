import Tensors

extension Block {
  func projectInputs(_ state: inout State) {
    let attention = configuration.attention
    let headDim = attention.headDim
    let queries = attention.heads * headDim, keys = attention.keyValueHeads * headDim
    let x = state.input
    var parts: [Tensor]
    switch attention.layout {
    case .separate:
      parts = attentionInputs.map { $0(x) }
    case .blocks:
      let fused = attentionInputs[0](x)
      parts = [
        fused.columns(0..<queries), fused.columns(queries..<(queries + keys)),
        fused.columns((queries + keys)..<(queries + 2 * keys)),
      ]
    case .perHead:
      parts = Self.deinterleaved(attentionInputs[0](x), heads: attention.heads, headDim: headDim)
    }
    if let queryNorm { parts[0] = queryNorm(parts[0]) }
    if let keyNorm { parts[1] = keyNorm(parts[1]) }
    (state.queries, state.keys, state.values) = (parts[0], parts[1], parts[2])
  }

  func attend(_ state: inout State, _ context: Context) {
    guard let queries = state.queries, let keys = state.keys, let values = state.values else {
      preconditionFailure("attention runs after its inputs are projected")
    }
    let mixtures = context.sequences.map { sequence in
      attended(
        queries.rows(sequence.rows), keys.rows(sequence.rows), values.rows(sequence.rows), sequence,
        block: context.index)
    }
    state.input = Tensor.stacked(mixtures)
    (state.queries, state.keys, state.values) = (nil, nil, nil)
  }

  /// Attention of one text's new tokens to all its tokens.
  private func attended(
    _ queries: Tensor, _ keys: Tensor, _ values: Tensor, _ sequence: Context.Sequence, block: Int
  ) -> Tensor {
    var (queries, keys) = (queries, keys)
    let attention = configuration.attention
    let start = sequence.cache.length
    if let rotary = sequence.rotary {
      queries = queries.rotated(
        by: rotary, heads: attention.heads, headDim: attention.headDim, start: start)
      keys = keys.rotated(
        by: rotary, heads: attention.keyValueHeads, headDim: attention.headDim, start: start)
    }
    let stored = sequence.cache.append(
      keys: keys, values: values, block: block, heads: attention.keyValueHeads,
      headDim: attention.headDim)
    return Tensor.attention(
      queries: queries, stored: stored, start: start, heads: attention.heads,
      mask: AttentionMask(
        slidingWindow: attention.slidingWindow, alibiSlopes: attention.alibiSlopes,
        softCap: attention.softCap, scale: attention.scale))
  }

  /// Splits `[tokens, heads · 3 · headDim]` into queries, keys and values `[tokens, heads · headDim]`.
  private static func deinterleaved(_ fused: Tensor, heads: Int, headDim: Int) -> [Tensor] {
    let tokens = fused.rows
    return (0..<3).map { part in
      Tensor(shape: [tokens, heads * headDim]) { target in
        guard let base = target.baseAddress else { return }
        for unit in 0..<(tokens * heads) {
          (base + unit * headDim).update(
            from: fused.floats + (unit * 3 + part) * headDim, count: headDim)
        }
      }
    }
  }
}
