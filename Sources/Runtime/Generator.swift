public import Models
import Tensors

/// Continues a text token by token.
public struct Generator {
  public enum StopReason: String, Sendable {
    /// An end token was chosen; it is not part of the result.
    case endToken = "end_token"
    case maxTokens = "max_tokens"
    /// The model's context is full.
    case context
    case cancelled
  }

  public struct Result: Sendable {
    public var ids: [Int]
    public var stopReason: StopReason
    /// From the prompt's first token to the first new one.
    public var secondsToFirstToken: Double
    /// From the first new token to the last.
    public var secondsDecoding: Double

    public var tokensPerSecond: Double {
      ids.count > 1 && secondsDecoding > 0 ? Double(ids.count - 1) / secondsDecoding : 0
    }
  }

  public let model: LanguageModel
  public var sampler: Sampler

  public init(model: LanguageModel, settings: Sampler.Settings = .init()) {
    self.model = model
    sampler = Sampler(settings)
  }

  /// Whether a prompt can be continued at all.
  /// - Throws: `ModelError` for an empty prompt, ids outside the vocabulary, or a prompt that fills
  ///   the context.
  public func check(prompt: [Int]) throws(ModelError) {
    guard !prompt.isEmpty else { throw .noTokens }
    if let context = model.configuration.contextLength, prompt.count >= context {
      throw .contextExceeded(tokens: prompt.count + 1, context: context)
    }
    try model.checkTokens(prompt)
  }

  /// - Parameters:
  ///   - onToken: sees each new id as it comes; returning false stops.
  /// - Throws: as `check(prompt:)`.
  public mutating func generate(
    prompt: [Int], maxTokens: Int, onToken: (Int) throws -> Bool = { _ in true }
  ) throws -> Result {
    try check(prompt: prompt)
    let context = model.configuration.contextLength ?? Int.max
    let clock = ContinuousClock()
    let start = clock.now
    let planned = min(context, prompt.count + maxTokens)
    let cache = model.cache(plannedLength: planned)
    var last: Tensor?
    try model.forEachChunk(of: prompt, cache: cache) { _, hidden in
      last = hidden.rows((hidden.rows - 1)..<hidden.rows)
    }
    guard var hidden = last else { throw ModelError.noTokens }

    var ids: [Int] = []
    var reason = StopReason.maxTokens
    var first = clock.now, end = first
    while ids.count < maxTokens {
      let logits = model.logits(hidden)
      let id = sampler.next(UnsafeBufferPointer(start: logits.floats, count: logits.count))
      end = clock.now
      if ids.isEmpty { first = end }
      if model.endTokens.contains(id) {
        reason = .endToken
        break
      }
      ids.append(id)
      guard try onToken(id) else {
        reason = .cancelled
        break
      }
      if ids.count == maxTokens { break }
      guard cache.length < context else {
        reason = .context
        break
      }
      hidden = try model.hidden([id], cache: cache)
    }
    return Result(
      ids: ids, stopReason: reason, secondsToFirstToken: (first - start).inSeconds,
      secondsDecoding: (end - first).inSeconds)
  }
}

extension Duration {
  package var inSeconds: Double {
    Double(components.seconds) + Double(components.attoseconds) * 1e-18
  }
}
