/// Keeps matching linear. A pattern such as `a+b|a` reads a long run of `a` to its end before it
/// knows that only the first letter matches, and would do so again from every letter. What a run
/// of the automaton can still find depends only on its state and position, so those that led to
/// nothing are remembered and stop later runs (Reps 1998, "Maximal-munch" tokenization in linear
/// time). Only positions 32 bytes apart are looked at.
struct MatchMemo {
  /// One run's states since it started, by position, packed as `position << 24 | state`.
  private var visited: [UInt64] = []
  private var failing: Set<UInt64> = []

  /// The first position after `start` at which a run asks `isHopeless`.
  static func firstCheckpoint(after start: Int) -> Int { (start & ~31) + 64 }
  static func checkpoint(after index: Int) -> Int { (index & ~31) + 32 }

  /// Whether no match ends after `index`; notes the visit if that is not known.
  mutating func isHopeless(_ state: Int, _ index: Int) -> Bool {
    let key = UInt64(index) << 24 | UInt64(state)
    if !failing.isEmpty, failing.contains(key) { return true }
    visited.append(key)
    return false
  }

  /// Ends a run whose last match ended at `end`.
  mutating func finish(_ end: Int) {
    while let last = visited.popLast(), Int(last >> 24) > end { failing.insert(last) }
    visited.removeAll(keepingCapacity: true)
  }
}
