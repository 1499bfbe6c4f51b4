/// Counts of the runs of `n` words in a text.
struct NGrams: Sendable {
  typealias Word = WordTokenization.Word

  private(set) var counts: [ArraySlice<Word>: Int] = [:]
  /// Runs in all, repeated ones counted each time.
  private(set) var total = 0

  init() {}

  init(_ words: [Word], n: Int) {
    add(words, n: n)
  }

  var distinct: Int { counts.count }

  mutating func add(_ words: [Word], n: Int) {
    guard words.count >= n else { return }
    total += words.count - n + 1
    for start in 0...(words.count - n) { counts[words[start..<(start + n)], default: 0] += 1 }
  }

  /// For every run the larger of both counts; what several references allow together.
  mutating func formMaximum(_ other: NGrams) {
    for (gram, count) in other.counts { counts[gram] = max(counts[gram] ?? 0, count) }
  }

  /// Runs that both have, each as often as the one that has it less often.
  func overlap(_ other: NGrams) -> Int {
    let (few, many) = counts.count <= other.counts.count ? (self, other) : (other, self)
    return few.counts.reduce(0) { $0 + min($1.value, many.counts[$1.key] ?? 0) }
  }
}
