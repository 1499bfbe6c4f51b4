package import Tensors

/// Keys and values of the tokens seen so far, per block `[keyValueHeads, capacity, headDim]` in
/// float32, so that each head's rows lie together. Grows by doubling; nothing is evicted.
public final class KVCache {
  /// Tokens whose keys and values every block holds.
  public private(set) var length = 0
  /// How long the text will become, where the rotary frequencies depend on it.
  public let plannedLength: Int

  private var keys: [Tensor?]
  private var values: [Tensor?]

  /// - Parameter plannedLength: tokens that will pass through in all; sizes the first allocation.
  public init(blocks: Int, plannedLength: Int) {
    self.plannedLength = plannedLength
    keys = Array(repeating: nil, count: blocks)
    values = Array(repeating: nil, count: blocks)
  }

  public var residentBytes: Int {
    (keys + values).reduce(0) { $0 + ($1?.byteCount ?? 0) }
  }

  /// Forgets all tokens but keeps the memory.
  public func reset() { length = 0 }

  /// Forgets the tokens from `length` on, which takes no work: a later text overwrites them.
  public func truncate(to length: Int) {
    precondition(length >= 0 && length <= self.length)
    self.length = length
  }

  /// The first keys and values of a block, float32 `[keyValueHeads, count, headDim]`, keys as
  /// attention reads them (rotated); nil while the cache holds fewer.
  package func rows(block: Int, count length: Int) -> (keys: Tensor, values: Tensor)? {
    guard length > 0, length <= self.length, let keys = keys[block], let values = values[block]
    else { return nil }
    return (Self.gathered(keys, length), Self.gathered(values, length))
  }

  /// Takes rows of every block, as `rows(block:count:)` gave them, into an empty cache.
  package func restore(_ blocks: [(keys: Tensor, values: Tensor)]) {
    precondition(length == 0 && blocks.count == keys.count)
    let tokens = blocks.first?.keys.shape[1] ?? 0
    for (block, stored) in blocks.enumerated() {
      func taken(_ rows: Tensor) -> Tensor {
        precondition(rows.shape.count == 3 && rows.shape[1] == tokens)
        let (heads, headDim) = (rows.shape[0], rows.shape[2])
        let target = Self.withCapacity(
          tokens, planned: plannedLength, nil, used: 0, heads: heads, headDim: headDim)
        let capacity = target.shape[1]
        for head in 0..<heads {
          target.mutableFloats.advanced(by: head * capacity * headDim).update(
            from: rows.floats + head * tokens * headDim, count: tokens * headDim)
        }
        return target
      }
      keys[block] = taken(stored.keys)
      values[block] = taken(stored.values)
    }
    length = tokens
  }

  private static func gathered(_ stored: Tensor, _ length: Int) -> Tensor {
    let (heads, capacity, headDim) = (stored.shape[0], stored.shape[1], stored.shape[2])
    return Tensor(shape: [heads, length, headDim]) { target in
      guard let base = target.baseAddress else { return }
      for head in 0..<heads {
        (base + head * length * headDim).update(
          from: stored.floats + head * capacity * headDim, count: length * headDim)
      }
    }
  }

  /// Counts tokens that all blocks have now stored.
  package func advance(by tokens: Int) { length += tokens }

  /// Stores rows `[tokens, heads · headDim]` behind those of `block` and returns all its rows.
  package func append(
    keys newKeys: Tensor, values newValues: Tensor, block: Int, heads: Int, headDim: Int
  ) -> (keys: Tensor, values: Tensor) {
    let needed = length + newKeys.rows
    func stored(_ old: Tensor?, _ new: Tensor) -> Tensor {
      let target = Self.withCapacity(
        needed, planned: plannedLength, old, used: length, heads: heads, headDim: headDim)
      Self.scatter(new, into: target, at: length, heads: heads, headDim: headDim)
      return target
    }
    let allKeys = stored(keys[block], newKeys), allValues = stored(values[block], newValues)
    keys[block] = allKeys
    values[block] = allValues
    return (allKeys, allValues)
  }

  private static func withCapacity(
    _ needed: Int, planned: Int, _ old: Tensor?, used: Int, heads: Int, headDim: Int
  ) -> Tensor {
    if let old, old.shape[1] >= needed { return old }
    let capacity = max(needed, min(planned, 1 << 16), (old?.shape[1] ?? 0) * 2)
    let grown = Tensor(
      dtype: .float32, shape: [heads, capacity, headDim],
      storage: Storage(byteCount: heads * capacity * headDim * 4))
    if let old {
      for head in 0..<heads {
        grown.mutableFloats.advanced(by: head * capacity * headDim).update(
          from: old.floats + head * old.shape[1] * headDim, count: used * headDim)
      }
    }
    return grown
  }

  private static func scatter(
    _ rows: Tensor, into target: Tensor, at start: Int, heads: Int, headDim: Int
  ) {
    let capacity = target.shape[1]
    for token in 0..<rows.rows {
      for head in 0..<heads {
        target.mutableFloats.advanced(by: (head * capacity + start + token) * headDim).update(
          from: rows.floats + (token * heads + head) * headDim, count: headDim)
      }
    }
  }
}

extension Tensor {
  /// The cache is the one owner that writes a tensor after it was made: rows beyond `length`, which
  /// nobody reads before `advance`.
  fileprivate var mutableFloats: UnsafeMutablePointer<Float> {
    UnsafeMutablePointer(mutating: floats)
  }
}
