import CKernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The most probable tokens of one row, and what is left for all others.
struct TopSelection {
  /// Most probable first; of equals the lower id.
  var ids: [Int32]
  /// How far each logit is below the largest, `0` first.
  var gaps: [Double]
  /// Logarithm of the probability of all other tokens; −∞ where there are none.
  var logTail: Double
  /// Whether every logit was a number and none too large.
  let isFinite: Bool

  /// - Parameters:
  ///   - logits: before any softmax.
  ///   - k: at most `count`.
  init(_ logits: UnsafePointer<Float>, count: Int, k: Int) {
    var heap = SmallestOnTop(logits, capacity: k)
    for id in 0..<count { heap.offer(id) }
    ids = heap.ids.sorted { heap.precedes(Int($0), Int($1)) }
    let top = logits[Int(ids[0])]
    gaps = ids.map { Double(top) - Double(logits[Int($0)]) }
    let kept = gaps.reduce(0) { $0 + exp(-$1) }
    let ids = ids
    // Summed by itself and not as what is left of 1, where it would drown in rounding.
    let rest = withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { buffer in
      guard let base = buffer.baseAddress else { return 0.0 }
      _ = pare_exp_shifted(logits, top, base, count)
      for id in ids { base[Int(id)] = 0 }
      var sum = 0.0
      for id in 0..<count { sum += Double(base[id]) }
      return sum
    }
    logTail = log(rest) - log(rest + kept)
    isFinite = (rest + kept).isFinite
  }
}

/// A heap of the `capacity` most probable ids so far, the least probable of them on top.
private struct SmallestOnTop {
  let logits: UnsafePointer<Float>
  let capacity: Int
  var ids: [Int32] = []

  init(_ logits: UnsafePointer<Float>, capacity: Int) {
    self.logits = logits
    self.capacity = capacity
    ids.reserveCapacity(capacity)
  }

  /// Whether `a` is more probable than `b`.
  func precedes(_ a: Int, _ b: Int) -> Bool {
    logits[a] > logits[b] || (logits[a] == logits[b] && a < b)
  }

  /// Ids come in rising order, so that of equals the first stays.
  mutating func offer(_ id: Int) {
    if ids.count < capacity {
      ids.append(Int32(truncatingIfNeeded: id))
      var place = ids.count - 1
      while place > 0, precedes(Int(ids[(place - 1) / 2]), Int(ids[place])) {
        ids.swapAt(place, (place - 1) / 2)
        place = (place - 1) / 2
      }
      return
    }
    guard logits[id] > logits[Int(ids[0])] else { return }
    ids[0] = Int32(truncatingIfNeeded: id)
    var place = 0
    while true {
      var least = place
      for child in (2 * place + 1)...(2 * place + 2)
      where child < ids.count && precedes(Int(ids[least]), Int(ids[child])) {
        least = child
      }
      if least == place { return }
      ids.swapAt(least, place)
      place = least
    }
  }
}
