public import Checkpoints
public import Tensors

/// A decoder-only language model: embedding, blocks, norm, head. Weights stay in the mapped
/// checkpoint; what is resident besides is the activations of the tokens in flight.
public struct LanguageModel: Sendable {
  public let configuration: ModelConfiguration
  public let checkpoint: Checkpoint
  public var embedding: Embedding
  public var blocks: [Block]
  public var finalNorm: Norm?
  public var headProjection: Linear?
  /// `[vocabulary, width]`; the embedding's own table when tied.
  public var head: any Weight
  /// Ids that end a text, from the config and the generation config.
  public var endTokens: [Int]

  /// Runs tokens through all blocks, appending their keys and values to the cache.
  ///
  /// - Returns: hidden states after the final norm, `[tokens, hidden]`.
  /// - Throws: `ModelError` for ids outside the vocabulary or more tokens than the context holds;
  ///   `CheckpointError` if the mapped weights became unreadable meanwhile.
  public func hidden(_ tokens: [Int], cache: KVCache) throws -> Tensor {
    try check(tokens, after: cache.length)
    let length = max(cache.plannedLength, cache.length + tokens.count)
    var tables: [(RotaryConfiguration, RotaryTable)] = []
    func table(_ rotary: RotaryConfiguration?) -> RotaryTable? {
      guard let rotary else { return nil }
      if let known = tables.first(where: { $0.0 == rotary }) { return known.1 }
      let table = RotaryTable(
        inverseFrequencies: rotary.inverseFrequencies(length: length),
        positions: cache.length..<(cache.length + tokens.count),
        attentionScaling: rotary.attentionFactor)
      tables.append((rotary, table))
      return table
    }
    var x = embedding(tokens, start: cache.length)
    for (index, block) in blocks.enumerated() {
      let rotary = table(block.configuration.attention.rotary)
      x = block.forward(x, .init(cache: cache, index: index, rotary: rotary))
    }
    cache.advance(by: tokens.count)
    try checkpoint.checkIntact()
    return finalNorm?(x) ?? x
  }

  /// - Parameter hidden: `[tokens, hidden]`, as `hidden(_:cache:)` returns it.
  /// - Returns: `[tokens, vocabulary]`, before any softmax.
  public func logits(_ hidden: Tensor) -> Tensor {
    let projected = headProjection?(hidden) ?? hidden
    let logits = head.multiply(projected)
    guard let cap = configuration.head.softCap else { return logits }
    return logits.softCapped(cap)
  }

  /// An empty cache for a text that will have `plannedLength` tokens.
  public func cache(
    plannedLength: Int, elementType: KeyValueRows.ElementType = .float32
  ) -> KVCache {
    KVCache(blocks: blocks.count, plannedLength: plannedLength, elementType: elementType)
  }

  /// - Throws: `ModelError.tokenOutOfRange` for the first id outside the vocabulary.
  package func checkTokens(_ tokens: [Int]) throws(ModelError) {
    for id in tokens where id < 0 || id >= configuration.vocabularySize {
      throw .tokenOutOfRange(id: id, vocabulary: configuration.vocabularySize)
    }
  }

  private func check(_ tokens: [Int], after length: Int) throws(ModelError) {
    guard !tokens.isEmpty else { throw .noTokens }
    try checkTokens(tokens)
    if let context = configuration.contextLength, length + tokens.count > context {
      throw .contextExceeded(tokens: length + tokens.count, context: context)
    }
  }
}
