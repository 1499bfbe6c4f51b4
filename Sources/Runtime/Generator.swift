public import Models
import Tensors

/// Continues texts token by token.
///
/// The cache keeps every token; nothing is evicted. At the context's end generation stops with the
/// reason `context`.
public struct Generator {
  public enum StopReason: String, Sendable {
    /// An end token was chosen; it is not part of the result.
    case endToken = "end_token"
    /// A stop string was completed; it is not part of the text.
    case stopString = "stop_string"
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
    /// Tokens of the prompt that a cache already held.
    public var reusedTokens = 0
    /// One for each id, where asked for.
    public var logProbabilities: [LogProbabilities] = []

    public var tokensPerSecond: Double {
      ids.count > 1 && secondsDecoding > 0 ? Double(ids.count - 1) / secondsDecoding : 0
    }
  }

  public let model: LanguageModel
  public var sampler: Sampler
  /// How many of the most probable tokens to note with each new one; nil for none.
  public var logProbabilities: Int?
  /// Asked between the pieces of a long prompt; once tokens come, `onToken` decides.
  public var isCancelled: @Sendable () -> Bool = { false }

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

  /// The length to plan a cache for.
  public func plannedLength(prompt: [Int], maxTokens: Int) -> Int {
    let (length, overflow) = prompt.count.addingReportingOverflow(maxTokens)
    return min(model.configuration.contextLength ?? Int.max, overflow ? Int.max : length)
  }

  /// - Parameters:
  ///   - prefix: holds what an earlier text left, and will hold this one.
  ///   - onToken: sees each new id as it comes; returning false stops.
  /// - Throws: as `check(prompt:)`.
  public mutating func generate(
    prompt: [Int], maxTokens: Int, prefix: PrefixCache? = nil,
    onToken: (Int) throws -> Bool = { _ in true }
  ) throws -> Result {
    try check(prompt: prompt)
    let planned = plannedLength(prompt: prompt, maxTokens: maxTokens)
    let prefix = prefix ?? PrefixCache(model, plannedLength: planned)
    let start = ContinuousClock.now
    var sequence = Sequence(prompt: prompt, sampler: sampler, start: start)
    sequence.result.reusedTokens = prefix.reusable(of: prompt, plannedLength: planned)
    let hidden = try prefix.advance(
      to: prompt, plannedLength: planned, isCancelled: isCancelled)
    guard var hidden else {
      sequence.result.stopReason = .cancelled
      return sequence.result
    }
    while true {
      let logits = model.logits(hidden)
      let row = UnsafeBufferPointer(start: logits.floats, count: logits.count)
      let next = try sequence.take(row, self, maxTokens: maxTokens, cached: prefix.tokens.count) {
        try onToken($0)
      }
      guard let next else { break }
      hidden = try prefix.append([next])
    }
    sampler = sequence.sampler
    return sequence.result
  }

  /// Continues several texts together: each step runs the newest token of all that go on, so that
  /// every weight is read once for all of them. Each text gets what it would get alone, up to the
  /// rounding of products of more than four rows.
  ///
  /// - Parameters:
  ///   - settings: one for each prompt, each with its own seed.
  ///   - onToken: sees the text's number and its new id; returning false stops that text.
  /// - Throws: as `check(prompt:)`.
  public func generate(
    prompts: [[Int]], settings: [Sampler.Settings], maxTokens: Int,
    onToken: (Int, Int) throws -> Bool = { _, _ in true }
  ) throws -> [Result] {
    precondition(prompts.count == settings.count, "each prompt has its settings")
    for prompt in prompts { try check(prompt: prompt) }
    let start = ContinuousClock.now
    var sequences: [Sequence] = []
    var caches: [PrefixCache] = []
    var states: [Tensor] = []
    for (prompt, settings) in zip(prompts, settings) {
      let planned = plannedLength(prompt: prompt, maxTokens: maxTokens)
      let cache = PrefixCache(model, plannedLength: planned)
      guard let hidden = try cache.advance(to: prompt, plannedLength: planned) else { continue }
      sequences.append(Sequence(prompt: prompt, sampler: Sampler(settings), start: start))
      caches.append(cache)
      states.append(hidden)
    }
    var live = Array(sequences.indices)
    var hidden = Tensor.stacked(states)
    while true {
      let logits = model.logits(hidden)
      var going: [Int] = []
      var texts: [(tokens: [Int], cache: KVCache)] = []
      for (row, number) in live.enumerated() {
        let rowLogits = UnsafeBufferPointer(
          start: logits.floats + row * logits.columns, count: logits.columns)
        let next = try sequences[number].take(
          rowLogits, self, maxTokens: maxTokens, cached: caches[number].tokens.count
        ) { try onToken(number, $0) }
        guard let next else { continue }
        going.append(number)
        texts.append(([next], caches[number].cache))
      }
      if going.isEmpty { break }
      hidden = try model.hidden(texts)
      for (number, text) in zip(going, texts) { caches[number].note(text.tokens[0]) }
      live = going
    }
    return sequences.map(\.result)
  }
}

extension Generator {
  /// One text on its way.
  private struct Sequence {
    var result: Result
    var sampler: Sampler
    private var history: [Int]
    private let start: ContinuousClock.Instant
    private var first: ContinuousClock.Instant?

    init(prompt: [Int], sampler: Sampler, start: ContinuousClock.Instant) {
      result = Result(ids: [], stopReason: .maxTokens, secondsToFirstToken: 0, secondsDecoding: 0)
      self.sampler = sampler
      history = prompt
      self.start = start
    }

    /// Chooses a token from logits `[vocabulary]`.
    /// - Parameter cached: tokens in the cache by now.
    /// - Returns: the id to run next; nil when the text has ended.
    mutating func take(
      _ logits: UnsafeBufferPointer<Float>, _ generator: Generator, maxTokens: Int, cached: Int,
      onToken: (Int) throws -> Bool
    ) throws -> Int? {
      guard result.ids.count < maxTokens else { return nil }
      let id = sampler.next(logits, after: history)
      let now = ContinuousClock.now
      let first = self.first ?? now
      self.first = first
      result.secondsToFirstToken = (first - start).inSeconds
      result.secondsDecoding = (now - first).inSeconds
      if generator.model.endTokens.contains(id) {
        result.stopReason = .endToken
        return nil
      }
      result.ids.append(id)
      history.append(id)
      if let count = generator.logProbabilities {
        result.logProbabilities.append(LogProbabilities(logits, chosen: id, top: count))
      }
      guard try onToken(id) else {
        result.stopReason = .cancelled
        return nil
      }
      guard result.ids.count < maxTokens else { return nil }
      guard cached < generator.model.configuration.contextLength ?? Int.max else {
        result.stopReason = .context
        return nil
      }
      return id
    }
  }
}

extension Duration {
  package var inSeconds: Double {
    Double(components.seconds) + Double(components.attoseconds) * 1e-18
  }
}
