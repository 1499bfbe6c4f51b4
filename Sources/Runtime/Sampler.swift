import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Chooses the next token from logits. Penalties come first, then filters in the order transformers
/// uses: temperature, top-k, top-p, min-p.
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
    public var penalties = Penalties()

    public init(
      temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0, seed: UInt64 = 0,
      penalties: Penalties = Penalties()
    ) {
      self.temperature = temperature
      self.topK = topK
      self.topP = topP
      self.minP = minP
      self.seed = seed
      self.penalties = penalties
    }
  }

  public let settings: Settings
  private var random: Xoshiro256

  public init(_ settings: Settings) {
    self.settings = settings
    random = Xoshiro256(seed: settings.seed)
  }

  /// - Parameters:
  ///   - logits: one row, `[vocabulary]`.
  ///   - history: the tokens before, prompt included, for the penalties.
  /// - Returns: a token id; ties go to the lowest.
  public mutating func next(_ logits: UnsafeBufferPointer<Float>, after history: [Int] = []) -> Int
  {
    guard settings.penalties.isOn else { return choose(logits) }
    var penalized = Array(logits)
    settings.penalties.apply(to: &penalized, after: history)
    return penalized.withUnsafeBufferPointer { choose($0) }
  }

  private mutating func choose(_ logits: UnsafeBufferPointer<Float>) -> Int {
    guard settings.temperature > 0 else {
      return logits.indices.max { logits[$0] < logits[$1] || (logits[$0] == logits[$1] && $0 > $1) }
        ?? 0
    }
    guard !logits.isEmpty else { return 0 }
    let draw = random.uniform()
    // The most probable tokens decide nearly always; only if they do not are more of them sorted.
    var count = settings.topK > 0 ? min(settings.topK, logits.count) : min(128, logits.count)
    let ranking = Ranking(logits, temperature: settings.temperature)
    let total = settings.topK > 0 ? nil : ranking.totalWeight
    while true {
      let candidates = ranking.largest(count)
      let isAll = settings.topK > 0 || candidates.count == logits.count
      if let id = Self.choose(candidates, draw, settings, total: total, isAll: isAll) { return id }
      count = candidates.count > logits.count / 64 ? logits.count : candidates.count * 8
    }
  }

  /// - Parameters:
  ///   - candidates: the most probable tokens, in order, weights relative to the first.
  ///   - total: weight of all tokens; nil where the candidates are all that count.
  ///   - isAll: whether no further token could be chosen.
  /// - Returns: nil when more candidates are needed to decide.
  private static func choose(
    _ candidates: [Ranking.Candidate], _ draw: Double, _ settings: Settings, total: Double?,
    isAll: Bool
  ) -> Int? {
    let weights = candidates.map(\.weight)
    var kept = weights.count
    var isComplete = isAll
    if settings.topP < 1 {
      let wanted = Double(settings.topP) * (total ?? weights.reduce(0, +))
      var sum = 0.0
      let last = weights.firstIndex { weight in
        sum += weight
        return sum >= wanted
      }
      if let last {
        kept = last + 1
        isComplete = true
      }
    }
    // The best candidate has weight 1, so the weights are already relative to it.
    if settings.minP > 0 {
      let low = weights[..<kept].reversed().prefix { $0 < Double(settings.minP) }.count
      if low > 0 { isComplete = true }
      kept -= low
    }
    guard isComplete || (settings.topP == 1 && settings.minP == 0) else { return nil }
    let mass = isComplete ? weights[..<kept].reduce(0, +) : total ?? 0
    var rest = draw * mass
    for index in 0..<kept {
      rest -= weights[index]
      if rest < 0 { return candidates[index].id }
    }
    return isComplete ? candidates[kept - 1].id : nil
  }
}

/// Tokens by falling logit, and by rising id among equals, without sorting the whole vocabulary.
private struct Ranking {
  struct Candidate {
    var id: Int
    var logit: Float
    /// exp(logit − best)
    var weight = 0.0
  }

  private let logits: UnsafeBufferPointer<Float>
  private let temperature: Float
  private let best: Float

  init(_ logits: UnsafeBufferPointer<Float>, temperature: Float) {
    self.logits = logits
    self.temperature = temperature
    var best = -Float.infinity
    for logit in logits where logit > best { best = logit }
    self.best = best / temperature
  }

  /// Weight of all tokens, in the order of their ids.
  var totalWeight: Double {
    var sum = 0.0
    for logit in logits { sum += exp(Double(logit / temperature - best)) }
    return sum
  }

  private static func precedes(_ a: Candidate, _ b: Candidate) -> Bool {
    a.logit != b.logit ? a.logit > b.logit : a.id < b.id
  }

  /// The first `count` of the order: a heap keeps the best so far, its worst on top, so that most
  /// logits cost one comparison.
  func largest(_ count: Int) -> [Candidate] {
    var heap: [Candidate] = []
    if count >= logits.count {
      heap = logits.indices.map { Candidate(id: $0, logit: logits[$0] / temperature) }
    } else {
      heap.reserveCapacity(count)
      for (id, logit) in logits.enumerated() {
        let candidate = Candidate(id: id, logit: logit / temperature)
        if heap.count < count {
          heap.append(candidate)
          if heap.count == count {
            for place in (0..<(count / 2)).reversed() { Self.sink(place, &heap) }
          }
        } else if candidate.logit > heap[0].logit {
          heap[0] = candidate
          Self.sink(0, &heap)
        }
      }
    }
    heap.sort(by: Self.precedes)
    for index in heap.indices { heap[index].weight = exp(Double(heap[index].logit - best)) }
    return heap
  }

  private static func sink(_ start: Int, _ heap: inout [Candidate]) {
    var place = start
    while true {
      var child = 2 * place + 1
      guard child < heap.count else { return }
      if child + 1 < heap.count, precedes(heap[child], heap[child + 1]) { child += 1 }
      guard precedes(heap[place], heap[child]) else { return }
      heap.swapAt(place, child)
      place = child
    }
  }
}
