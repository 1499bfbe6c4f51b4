public import Checkpoints
public import Codecs
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
  /// What happens to the head's input first; nil: nothing.
  public var headQuantizer: ActivationQuantizer?
  /// Ids that end a text, from the config and the generation config.
  public var endTokens: [Int]
  /// What quantized matrices are multiplied by; see `withActivations`.
  public internal(set) var activations = Activations.float32
  /// Threads for passes of several tokens, which are bound by arithmetic, where decoding's number,
  /// which is bound by memory, is not the best; nil: the same.
  public var prefillThreads: Int?
  /// The file that packed matrices are mapped from, if they are.
  var packedFile: Checkpoint?
  /// What new caches keep keys and values in.
  public var cacheType = KeyValueRows.ElementType.float32
  /// Newest tokens that new caches of int4 keep exactly.
  public var cacheWindow = KeyValueRows.ElementType.defaultWindow

  /// Runs tokens through all blocks, appending their keys and values to the cache.
  ///
  /// - Returns: hidden states after the final norm, `[tokens, hidden]`.
  /// - Throws: `ModelError` for ids outside the vocabulary or more tokens than the context holds;
  ///   `CheckpointError` if the mapped weights became unreadable meanwhile.
  public func hidden(_ tokens: [Int], cache: KVCache) throws -> Tensor {
    try hidden([(tokens, cache)])
  }

  /// Runs tokens of several texts through all blocks together, so that each weight is read once for
  /// all of them.
  ///
  /// - Parameter texts: new tokens of each, and the cache of its own that holds those before.
  /// - Returns: hidden states after the final norm, text after text, `[tokens of all, hidden]`.
  /// - Throws: as `hidden(_:cache:)`.
  public func hidden(_ texts: [(tokens: [Int], cache: KVCache)]) throws -> Tensor {
    for (tokens, cache) in texts { try check(tokens, after: cache.length) }
    guard !texts.isEmpty else { throw ModelError.noTokens }
    let decodeThreads = Parallel.threads
    if let prefillThreads, texts.contains(where: { $0.tokens.count > 1 }) {
      Parallel.threads = prefillThreads
    }
    defer { Parallel.threads = decodeThreads }
    var tables: [(text: Int, RotaryConfiguration, RotaryTable)] = []
    func table(_ rotary: RotaryConfiguration?, _ text: Int) -> RotaryTable? {
      guard let rotary else { return nil }
      if let known = tables.first(where: { $0.text == text && $0.1 == rotary }) { return known.2 }
      let (tokens, cache) = texts[text]
      let end = cache.length + tokens.count
      let table = RotaryTable(
        inverseFrequencies: rotary.inverseFrequencies(length: max(cache.plannedLength, end)),
        positions: cache.length..<end, attentionScaling: rotary.attentionFactor)
      tables.append((text, rotary, table))
      return table
    }
    var x = Tensor.stacked(texts.map { embedding($0.tokens, start: $0.cache.length) })
    for (index, block) in blocks.enumerated() {
      var sequences: [Block.Context.Sequence] = []
      for (number, text) in texts.enumerated() {
        let first = sequences.last?.rows.upperBound ?? 0
        sequences.append(
          .init(
            cache: text.cache, rows: first..<(first + text.tokens.count),
            rotary: table(block.configuration.attention.rotary, number)))
      }
      x = block.forward(x, .init(sequences: sequences, index: index))
    }
    for (tokens, cache) in texts { cache.advance(by: tokens.count) }
    try checkpoint.checkIntact()
    try packedFile?.checkIntact()
    return finalNorm?(x) ?? x
  }

  /// - Parameter hidden: `[tokens, hidden]`, as `hidden(_:cache:)` returns it.
  /// - Returns: `[tokens, vocabulary]`, before any softmax.
  public func logits(_ hidden: Tensor) -> Tensor {
    let projected = headProjection?(hidden) ?? hidden
    let logits =
      headQuantizer?.multiply(projected, by: head) ?? head.multiply(projected)
    guard let cap = configuration.head.softCap else { return logits }
    return logits.softCapped(cap)
  }

  /// An empty cache for a text that will have `plannedLength` tokens.
  public func cache(plannedLength: Int) -> KVCache {
    KVCache(
      blocks: blocks.count, plannedLength: plannedLength, elementType: cacheType,
      window: cacheWindow)
  }

  /// Bytes that a token of a long text costs in the cache, all blocks together.
  public var cacheBytesPerToken: Double {
    blocks.reduce(0) { sum, block in
      let attention = block.configuration.attention
      return sum
        + cacheType.bytesPerToken(heads: attention.keyValueHeads, headDim: attention.headDim)
    }
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
