public import Models
public import Tensors

/// A KV cache together with the ids it holds, so that the next text reuses what they have in common.
public final class PrefixCache {
  /// The ids whose keys and values the cache holds.
  public private(set) var tokens: [Int]
  public private(set) var cache: KVCache
  private let model: LanguageModel

  /// - Parameter plannedLength: tokens that will pass through; sizes the first allocation.
  public init(_ model: LanguageModel, plannedLength: Int) {
    self.model = model
    tokens = []
    cache = model.cache(plannedLength: plannedLength)
  }

  /// - Parameters:
  ///   - cache: of `model`, holding `tokens`.
  init(_ model: LanguageModel, tokens: [Int], cache: KVCache) {
    precondition(cache.length == tokens.count)
    self.model = model
    self.tokens = tokens
    self.cache = cache
  }

  /// Where rotary frequencies depend on the planned length, keys of a text planned otherwise are
  /// of no use.
  private func isReusable(forLength length: Int) -> Bool {
    guard cache.plannedLength != length else { return true }
    return !model.configuration.blocks.contains { $0.attention.rotary?.dependsOnLength == true }
  }

  /// How many tokens of a prompt need not be run again. The last one always is: its hidden state
  /// predicts the next.
  public func reusable(of prompt: [Int], plannedLength: Int) -> Int {
    guard isReusable(forLength: plannedLength) else { return 0 }
    return cache.reusable(
      upTo: min(zip(tokens, prompt).prefix { $0 == $1 }.count, max(prompt.count - 1, 0)))
  }

  /// Runs what the cache does not hold of a prompt.
  ///
  /// - Parameter isCancelled: asked between chunks.
  /// - Returns: the last token's hidden state `[1, hidden]`; nil when cancelled.
  /// - Throws: as `LanguageModel.hidden`.
  public func advance(
    to prompt: [Int], plannedLength: Int, isCancelled: () -> Bool = { false }
  ) throws -> Tensor? {
    guard !prompt.isEmpty else { throw ModelError.noTokens }
    if isReusable(forLength: plannedLength) {
      truncate(to: reusable(of: prompt, plannedLength: plannedLength))
    } else {
      tokens = []
      cache = model.cache(plannedLength: plannedLength)
    }
    var last: Tensor?
    while tokens.count < prompt.count {
      if isCancelled() { return nil }
      let end = min(tokens.count + model.chunkTokens, prompt.count)
      let hidden = try append(Array(prompt[tokens.count..<end]))
      last = hidden.rows((hidden.rows - 1)..<hidden.rows)
    }
    return last
  }

  /// Runs further tokens: their hidden states `[tokens, hidden]`.
  func append(_ new: [Int]) throws -> Tensor {
    let hidden = try model.hidden(new, cache: cache)
    tokens += new
    return hidden
  }

  /// Notes a token that was run together with those of other texts.
  func note(_ token: Int) { tokens.append(token) }

  /// - Parameter count: one that `reusable` gives.
  public func truncate(to count: Int) {
    cache.truncate(to: count)
    tokens.removeLast(tokens.count - count)
  }
}
