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
      parts = attentionInputs[0](x).deinterleaved(
        units: attention.heads, parts: 3, size: headDim)
    }
    if let queryNorm { parts[0] = queryNorm(parts[0]) }
    if let keyNorm { parts[1] = keyNorm(parts[1]) }
    (state.queries, state.keys, state.values) = (parts[0], parts[1], parts[2])
  }

  func attend(_ state: inout State, _ context: Context) {
    guard let queries = state.queries, let keys = state.keys, let values = state.values else {
      preconditionFailure("attention runs after its inputs are projected")
    }
    if context.isOfWholeTexts {
      state.input = attended(queries, keys, values, context)
    } else {
      let mixtures = context.sequences.map { sequence in
        attended(
          queries.rows(sequence.rows), keys.rows(sequence.rows), values.rows(sequence.rows),
          sequence, block: context.index)
      }
      state.input = Tensor.stacked(mixtures)
    }
    (state.queries, state.keys, state.values) = (nil, nil, nil)
  }

  private var mask: AttentionMask {
    let attention = configuration.attention
    return AttentionMask(
      slidingWindow: attention.slidingWindow, alibiSlopes: attention.alibiSlopes,
      softCap: attention.softCap, scale: attention.scale)
  }

  /// Attention within whole texts, with a backward rule.
  private func attended(
    _ queries: Tensor, _ keys: Tensor, _ values: Tensor, _ context: Context
  ) -> Tensor {
    let attention = configuration.attention
    var (queries, keys) = (queries, keys)
    if let rotary = context.sequences.first?.rotary {
      let positions = context.sequences.map { 0..<$0.rows.count }
      queries = queries.rotated(
        by: rotary, heads: attention.heads, headDim: attention.headDim, segments: positions)
      keys = keys.rotated(
        by: rotary, heads: attention.keyValueHeads, headDim: attention.headDim,
        segments: positions)
    }
    context.onAttention?(queries, keys, values)
    return Tensor.attention(
      queries: queries, keys: keys, values: values, segments: context.sequences.map(\.rows),
      heads: attention.heads, keyValueHeads: attention.keyValueHeads, mask: mask)
  }

  /// Attention of one text's new tokens to all its tokens.
  private func attended(
    _ queries: Tensor, _ keys: Tensor, _ values: Tensor, _ sequence: Context.Sequence, block: Int
  ) -> Tensor {
    var (queries, keys) = (queries, keys)
    let attention = configuration.attention
    guard let cache = sequence.cache else {
      preconditionFailure("texts with and without a cache do not mix")
    }
    let start = cache.length
    if let rotary = sequence.rotary {
      queries = queries.rotated(
        by: rotary, heads: attention.heads, headDim: attention.headDim, start: start)
      keys = keys.rotated(
        by: rotary, heads: attention.keyValueHeads, headDim: attention.headDim, start: start)
    }
    let stored = cache.append(
      keys: keys, values: values, block: block, heads: attention.keyValueHeads,
      headDim: attention.headDim)
    return Tensor.attention(
      queries: queries, stored: stored, start: start, heads: attention.heads, mask: mask)
  }
}
