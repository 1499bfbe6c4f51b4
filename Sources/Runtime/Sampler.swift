import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Chooses the next token from logits. Filters apply in the order transformers uses: temperature,
/// top-k, top-p, min-p.
public struct Sampler: Sendable {
  public struct Settings: Sendable, Equatable {
    /// 0 takes the most probable token.
    public var temperature: Float = 0
    /// Keeps the k most probable tokens; 0 keeps all.
    public var topK = 0
    /// Keeps the fewest most probable tokens whose probabilities sum to at least this.
    public var topP: Float = 1
    /// Drops tokens less probable than this share of the most probable one.
    public var minP: Float = 0
    public var seed: UInt64 = 0

    public init(
      temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0, seed: UInt64 = 0
    ) {
      self.temperature = temperature
      self.topK = topK
      self.topP = topP
      self.minP = minP
      self.seed = seed
    }
  }

  public let settings: Settings
  private var random: Xoshiro256

  public init(_ settings: Settings) {
    self.settings = settings
    random = Xoshiro256(seed: settings.seed)
  }

  /// - Parameter logits: one row, `[vocabulary]`.
  /// - Returns: a token id; ties go to the lowest.
  public mutating func next(_ logits: UnsafeBufferPointer<Float>) -> Int {
    guard settings.temperature > 0 else {
      return logits.indices.max { logits[$0] < logits[$1] || (logits[$0] == logits[$1] && $0 > $1) }
        ?? 0
    }
    var candidates = logits.indices.map { (id: $0, logit: logits[$0] / settings.temperature) }
    candidates.sort { $0.logit != $1.logit ? $0.logit > $1.logit : $0.id < $1.id }
    if settings.topK > 0 { candidates.removeLast(max(0, candidates.count - settings.topK)) }
    guard let best = candidates.first?.logit else { return 0 }

    var weights = candidates.map { exp(Double($0.logit - best)) }
    if settings.topP < 1 {
      let total = weights.reduce(0, +)
      var sum = 0.0
      let last = weights.firstIndex { weight in
        sum += weight
        return sum >= Double(settings.topP) * total
      }
      weights.removeLast(weights.count - 1 - (last ?? weights.count - 1))
    }
    // The best candidate has weight 1, so the weights are already relative to it.
    if settings.minP > 0 {
      weights.removeLast(weights.reversed().prefix { $0 < Double(settings.minP) }.count)
    }
    var draw = random.uniform() * weights.reduce(0, +)
    for (index, weight) in weights.enumerated() {
      draw -= weight
      if draw < 0 { return candidates[index].id }
    }
    return candidates[weights.count - 1].id
  }
}
