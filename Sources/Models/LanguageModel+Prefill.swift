public import Tensors

extension LanguageModel {
  /// Tokens that pass through the blocks together: enough to reuse every weight often, few enough
  /// that a 32k-token window needs no more activation memory than a short one. Packed weights are
  /// opened fast, so fewer tokens repay it; dense ones are widened for sgemm.
  public var chunkTokens: Int { activations == .int8 ? 128 : 256 }

  /// Runs a long text chunk by chunk and hands each chunk's hidden states over.
  ///
  /// - Parameter consume: `(position of the chunk's first token, hidden [tokens, hidden])`.
  public func forEachChunk(
    of tokens: [Int], cache: KVCache, _ consume: (Int, Tensor) throws -> Void
  ) throws {
    guard !tokens.isEmpty else { throw ModelError.noTokens }
    if let context = configuration.contextLength, cache.length + tokens.count > context {
      throw ModelError.contextExceeded(tokens: cache.length + tokens.count, context: context)
    }
    var start = 0
    while start < tokens.count {
      let end = min(start + chunkTokens, tokens.count)
      try consume(start, hidden(Array(tokens[start..<end]), cache: cache))
      start = end
    }
  }

  /// Logits of some positions, a few rows at a time, because `[tokens, vocabulary]` of a large
  /// vocabulary would not fit.
  ///
  /// - Parameters:
  ///   - rows: the positions wanted; all when nil.
  ///   - consume: `(position of the first row, logits [rows, vocabulary])`.
  public func forEachLogits(
    of tokens: [Int], rows: Range<Int>? = nil, _ consume: (Int, Tensor) throws -> Void
  ) throws {
    let wanted = rows ?? 0..<tokens.count
    let cache = cache(plannedLength: tokens.count)
    let step = max(1, min(chunkTokens, (1 << 24) / configuration.vocabularySize))
    try forEachChunk(of: tokens, cache: cache) { start, hidden in
      let inChunk = wanted.clamped(to: start..<(start + hidden.rows))
      for first in stride(from: inChunk.lowerBound, to: inChunk.upperBound, by: step) {
        let last = min(first + step, inChunk.upperBound)
        try consume(first, logits(hidden.rows((first - start)..<(last - start))))
      }
    }
  }
}
