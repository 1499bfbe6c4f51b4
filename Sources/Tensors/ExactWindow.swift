import CKernels

/// The newest tokens' keys and values in float16, beside older ones in four bits.
///
/// Tokens leave in groups of 32: the query at position p reads those before
/// `(p + 1 - window) / 32 · 32` rounded and the rest exactly, so between `window` and `window + 31`
/// tokens are exact. A pass of many tokens keeps all that its first query reads until the next pass.
///
/// `@unchecked Sendable`: the cache that holds it writes, between passes that read.
final class ExactWindow: @unchecked Sendable {
  /// Tokens that are exact at least.
  let window: Int
  /// Position of the first row.
  private(set) var start = 0
  /// Float16; row r is the token at `start + r`.
  private var rows: KeyValueRows
  /// Groups of 32 tokens that exist in four bits.
  private var encodedGroups = 0

  private static let group = KeyValueRows.ElementType.groupTokens

  init(tokens window: Int, heads: Int, headDim: Int) {
    precondition(window >= 1, "the newest token is read before its group is complete")
    self.window = window
    rows = KeyValueRows(
      type: .float16, heads: heads, capacity: window + 2 * Self.group, headDim: headDim)
  }

  var byteCount: Int { rows.byteCount }

  func firstExact(at position: Int) -> Int {
    max(0, position + 1 - window) / Self.group * Self.group
  }

  /// Takes the rows of new tokens, `[tokens, heads · headDim]`, behind those of `position` tokens.
  func store(keys: Tensor, values: Tensor, at position: Int) {
    if position == 0 { (start, encodedGroups) = (0, 0) }
    // What lay behind a cut is written anew.
    encodedGroups = min(encodedGroups, position / Self.group)
    makeRoom(for: keys.rows, at: position)
    rows.storeRows(keys: keys, values: values, at: position - start)
  }

  /// The groups that the next query reads in four bits and that have not been handed out.
  func takeGroups(before position: Int) -> Range<Int> {
    let end = firstExact(at: position) / Self.group
    guard end > encodedGroups else { return 0..<0 }
    defer { encodedGroups = end }
    return encodedGroups..<end
  }

  private func makeRoom(for tokens: Int, at position: Int) {
    let first = firstExact(at: position)
    precondition(first >= start, "exact rows of this text are gone; ask `reusable` first")
    if position + tokens - start <= rows.capacity, rows.capacity <= 2 * leastCapacity { return }
    let kept = position - first
    let capacity = max(leastCapacity, kept + tokens)
    let moved =
      capacity == rows.capacity
      ? rows
      : KeyValueRows(
        type: .float16, heads: rows.heads, capacity: capacity, headDim: rows.headDim)
    let bytes = rows.headDim * 2
    for (from, to) in [(rows.keys, moved.keys), (rows.values, moved.values)] {
      for head in 0..<rows.heads {
        // Regions may overlap: memmove.
        UnsafeMutableRawPointer(mutating: to.rawPointer + head * capacity * bytes).copyMemory(
          from: from.rawPointer + (head * rows.capacity + first - start) * bytes,
          byteCount: kept * bytes)
      }
    }
    (rows, start) = (moved, first)
  }

  private var leastCapacity: Int { window + 2 * Self.group }

  func keyRows(_ head: Int) -> pare_cache_rows { shifted(rows.keyRows(head, exact: true)) }
  func valueRows(_ head: Int) -> pare_cache_rows { shifted(rows.valueRows(head, exact: true)) }

  /// Rows by their position in the text. The row of position 0 may lie before the memory; only rows
  /// from `start` on are ever read.
  private func shifted(_ rows: pare_cache_rows) -> pare_cache_rows {
    var rows = rows
    rows.first = 0 &- start
    return rows
  }
}
