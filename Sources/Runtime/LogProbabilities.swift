import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What the model itself thought of a token: natural logarithms of its probabilities at temperature
/// 1, before penalties and filters.
public struct LogProbabilities: Sendable {
  public struct Entry: Sendable, Equatable {
    public var id: Int
    public var logProbability: Double
  }

  /// The token that was chosen.
  public var chosen: Entry
  /// The most probable ones, ties by id.
  public var top: [Entry]

  /// - Parameter logits: one row, `[vocabulary]`.
  public init(_ logits: UnsafeBufferPointer<Float>, chosen id: Int, top count: Int) {
    let best = logits.max() ?? 0
    var sum = 0.0
    for logit in logits { sum += exp(Double(logit - best)) }
    let normalizer = Double(best) + log(sum)
    var ranking: [Int] = []
    for candidate in logits.indices where count > 0 {
      let isIn = ranking.count < count || logits[candidate] > logits[ranking[ranking.count - 1]]
      guard isIn else { continue }
      let place = ranking.firstIndex { logits[$0] < logits[candidate] } ?? ranking.count
      ranking.insert(candidate, at: place)
      if ranking.count > count { ranking.removeLast() }
    }
    func entry(_ id: Int) -> Entry {
      Entry(id: id, logProbability: Double(logits[id]) - normalizer)
    }
    chosen = entry(id)
    top = ranking.map(entry)
  }
}
