import Text

/// Which pairs of tokens merge, how early, and into what.
struct MergeTable: Sendable {
  struct Merge {
    /// Position in the list of merges: lower goes first.
    var rank: UInt32
    var result: Int32
  }

  private struct Slot {
    var pair: UInt64 = .max  // .max where free
    var merge = Merge(rank: .max, result: 0)
  }

  private var slots: [Slot]
  private var count = 0

  init(capacity: Int) {
    var size = 16
    while size < capacity * 2 { size *= 2 }
    slots = [Slot](repeating: Slot(), count: size)
  }

  @inline(__always)
  private static func pair(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }

  /// A repeated pair keeps its last rank, as in `tokenizers`.
  mutating func insert(_ left: Int32, _ right: Int32, _ merge: Merge) {
    precondition(count * 2 < slots.count, "the table was made for fewer merges")
    let pair = Self.pair(left, right)
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: ByteHash.mix(pair)) & mask
    while slots[slot].pair != .max, slots[slot].pair != pair { slot = (slot + 1) & mask }
    if slots[slot].pair == .max { count += 1 }
    slots[slot] = Slot(pair: pair, merge: merge)
  }

  /// The merge of two neighbours; its rank is `.max` when they do not merge.
  @inline(__always)
  func merge(_ left: Int32, _ right: Int32) -> Merge {
    let pair = Self.pair(left, right)
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: ByteHash.mix(pair)) & mask
    while true {
      let entry = slots[slot]
      if entry.pair == pair { return entry.merge }
      if entry.pair == .max { return entry.merge }
      slot = (slot + 1) & mask
    }
  }
}

extension MergeTable {
  /// Merges neighbours, lowest rank first and leftmost among equals, until none merges.
  func mergeAll(_ symbols: inout [Int32]) {
    if symbols.count < 2 { return }
    if symbols.count <= 32 { mergeByScanning(&symbols) } else { mergeByHeap(&symbols) }
  }

  /// Quadratic, and fastest for words.
  private func mergeByScanning(_ symbols: inout [Int32]) {
    var pairs = [Merge]()
    pairs.reserveCapacity(symbols.count)
    for index in 0..<symbols.count - 1 {
      pairs.append(merge(symbols[index], symbols[index + 1]))
    }
    while true {
      var best = -1
      var bestRank = UInt32.max
      for index in 0..<pairs.count where pairs[index].rank < bestRank {
        bestRank = pairs[index].rank
        best = index
      }
      if best < 0 { return }
      symbols[best] = pairs[best].result
      symbols.remove(at: best + 1)
      pairs.remove(at: best)
      if best > 0 { pairs[best - 1] = merge(symbols[best - 1], symbols[best]) }
      if best < pairs.count { pairs[best] = merge(symbols[best], symbols[best + 1]) }
    }
  }

  /// O(n log n): a linked list of symbols and a heap of (rank, place). An entry is stale when
  /// the pair at its place has another rank by now.
  private func mergeByHeap(_ symbols: inout [Int32]) {
    let count = symbols.count
    var next = (1...count).map { Int32($0) }
    var previous = (0..<count).map { Int32($0 - 1) }
    var pairs = [Merge](repeating: Merge(rank: .max, result: 0), count: count)
    var heap = MinimumHeap()
    for index in 0..<count - 1 {
      pairs[index] = merge(symbols[index], symbols[index + 1])
      if pairs[index].rank != .max {
        heap.append(UInt64(pairs[index].rank) << 32 | UInt64(index))
      }
    }
    heap.order()
    while let entry = heap.popMinimum() {
      let place = Int(entry & 0xFFFF_FFFF)
      guard pairs[place].rank == UInt32(entry >> 32), pairs[place].rank != .max else { continue }
      let absorbed = Int(next[place])
      symbols[place] = pairs[place].result
      symbols[absorbed] = -1
      pairs[absorbed].rank = .max
      let after = Int(next[absorbed])
      next[place] = Int32(after)
      if after < count { previous[after] = Int32(place) }
      pairs[place] =
        after < count
        ? merge(symbols[place], symbols[after]) : Merge(rank: .max, result: 0)
      if pairs[place].rank != .max { heap.push(UInt64(pairs[place].rank) << 32 | UInt64(place)) }
      let before = Int(previous[place])
      if before >= 0 {
        pairs[before] = merge(symbols[before], symbols[place])
        if pairs[before].rank != .max {
          heap.push(UInt64(pairs[before].rank) << 32 | UInt64(before))
        }
      }
    }
    symbols.removeAll { $0 < 0 }
  }
}

/// A binary heap of 64-bit keys, smallest first.
private struct MinimumHeap {
  private var keys: [UInt64] = []

  /// Adds a key without restoring the order; call `order()` afterwards.
  mutating func append(_ key: UInt64) { keys.append(key) }

  mutating func order() {
    for index in stride(from: keys.count / 2, through: 0, by: -1) { sink(index) }
  }

  mutating func push(_ key: UInt64) {
    keys.append(key)
    var index = keys.count - 1
    while index > 0, keys[(index - 1) / 2] > key {
      keys[index] = keys[(index - 1) / 2]
      index = (index - 1) / 2
    }
    keys[index] = key
  }

  mutating func popMinimum() -> UInt64? {
    guard let first = keys.first, let last = keys.popLast() else { return nil }
    if !keys.isEmpty {
      keys[0] = last
      sink(0)
    }
    return first
  }

  private mutating func sink(_ start: Int) {
    guard start < keys.count else { return }
    let key = keys[start]
    var index = start
    while true {
      var child = 2 * index + 1
      guard child < keys.count else { break }
      if child + 1 < keys.count, keys[child + 1] < keys[child] { child += 1 }
      guard keys[child] < key else { break }
      keys[index] = keys[child]
      index = child
    }
    keys[index] = key
  }
}
