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
    guard var queries = state.queries, var keys = state.keys, let values = state.values else {
      preconditionFailure("attention runs after its inputs are projected")
    }
    let attention = configuration.attention
    let start = context.cache.length
    if let rotary = context.rotary {
      queries = queries.rotated(
        by: rotary, heads: attention.heads, headDim: attention.headDim, start: start)
      keys = keys.rotated(
        by: rotary, heads: attention.keyValueHeads, headDim: attention.headDim, start: start)
    }
    let stored = context.cache.append(
      keys: keys, values: values, block: context.index, heads: attention.keyValueHeads,
      headDim: attention.headDim)
    state.input = Tensor.attention(
      queries: queries, stored: stored, start: start, heads: attention.heads,
      mask: AttentionMask(
        slidingWindow: attention.slidingWindow, alibiSlopes: attention.alibiSlopes,
        softCap: attention.softCap, scale: attention.scale))
    (state.queries, state.keys, state.values) = (nil, nil, nil)
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
