public import Tensors

/// Keys and values of the tokens seen so far, block by block. Grows by doubling; nothing is evicted.
public final class KVCache {
  /// Tokens whose keys and values every block holds.
  public private(set) var length = 0
  /// How long the text will become, where the rotary frequencies depend on it.
  public let plannedLength: Int
  public let elementType: KeyValueRows.ElementType
  /// Newest tokens that int4 keeps exactly.
  public let window: Int

  private var blocks: [KeyValueRows?]

  /// - Parameters:
  ///   - plannedLength: tokens that will pass through in all; sizes the first allocation.
  ///   - window: newest tokens that int4 keeps exactly, at least 1; other types have no use for it.
  public init(
    blocks: Int, plannedLength: Int, elementType: KeyValueRows.ElementType = .float32,
    window: Int = KeyValueRows.ElementType.defaultWindow
  ) {
    self.plannedLength = plannedLength
    self.elementType = elementType
    self.window = window
    self.blocks = Array(repeating: nil, count: blocks)
  }

  public var residentBytes: Int { blocks.reduce(0) { $0 + ($1?.byteCount ?? 0) } }

  /// Forgets all tokens but keeps the memory.
  public func reset() { length = 0 }

  /// How many of the first `length` tokens another text that begins with them can go on from: all,
  /// unless int4 has rounded some that its next token would read exactly; then none, so that what a
  /// text gives never depends on what was in the cache before.
  public func reusable(upTo length: Int) -> Int {
    blocks.reduce(length) { min($0, $1?.reusable(upTo: length) ?? length) }
  }

  /// Forgets the tokens from `length` on, which takes no work: a later text overwrites them.
  ///
  /// - Parameter length: one that `reusable` gives.
  public func truncate(to length: Int) {
    precondition(length >= 0 && length <= self.length && reusable(upTo: length) == length)
    self.length = length
  }

  /// The first tokens' keys and values of a block, keys as attention reads them (rotated), without
  /// room behind them; nil while the cache holds fewer, and with int4, whose newest tokens are kept in
  /// another form.
  package func rows(block: Int, count length: Int) -> KeyValueRows? {
    guard elementType != .int4, length > 0, length <= self.length else { return nil }
    return blocks[block]?.grown(to: length, used: length)
  }

  /// Takes rows of every block, as `rows(block:count:)` gave them, into an empty cache.
  package func restore(_ blocks: [KeyValueRows]) {
    precondition(length == 0 && blocks.count == self.blocks.count)
    let tokens = blocks.first?.capacity ?? 0
    for (index, rows) in blocks.enumerated() {
      precondition(rows.capacity == tokens && rows.type == elementType)
      self.blocks[index] = rows.grown(to: max(tokens, min(plannedLength, 1 << 16)), used: tokens)
    }
    length = tokens
  }

  /// Counts tokens that all blocks have now stored.
  package func advance(by tokens: Int) { length += tokens }

  /// Stores rows `[tokens, heads · headDim]` behind those of `block` and returns all its rows.
  package func append(
    keys: Tensor, values: Tensor, block: Int, heads: Int, headDim: Int
  ) -> KeyValueRows {
    let needed = length + keys.rows
    let old = blocks[block]
    var rows: KeyValueRows
    if let old, old.capacity >= needed {
      rows = old
    } else {
      let capacity = max(needed, min(plannedLength, 1 << 16), (old?.capacity ?? 0) * 2)
      rows =
        old?.grown(to: capacity, used: length)
        ?? KeyValueRows(
          type: elementType, heads: heads, capacity: capacity, headDim: headDim, window: window)
      blocks[block] = rows
    }
    rows.store(keys: keys, values: values, at: length)
    return rows
  }
}
