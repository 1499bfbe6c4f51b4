import CKernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What shapes attention scores besides the causal order.
public struct AttentionMask: Sendable {
  /// A query at position i sees keys j with i − window < j ≤ i.
  public var slidingWindow: Int?
  /// One per head: slope · (j − i) is added to a score.
  public var alibiSlopes: [Float]?
  /// cap · tanh(score / cap)
  public var softCap: Float?
  /// Factor on query · key.
  public var scale: Float

  public init(
    slidingWindow: Int? = nil, alibiSlopes: [Float]? = nil, softCap: Float? = nil, scale: Float
  ) {
    self.slidingWindow = slidingWindow
    self.alibiSlopes = alibiSlopes
    self.softCap = softCap
    self.scale = scale
  }
}

extension Tensor {
  /// Causal attention over the tokens so far.
  ///
  /// - Parameters:
  ///   - queries: `[tokens, heads · headDim]`
  ///   - stored: keys and values, of which `start + tokens` rows are filled.
  ///   - start: position of the first query.
  /// - Returns: `[tokens, heads · headDim]`
  public static func attention(
    queries: Tensor, stored: KeyValueRows, start: Int, heads: Int, mask: AttentionMask
  ) -> Tensor {
    precondition(queries.columns == heads * stored.headDim && heads % stored.heads == 0)
    precondition(start + queries.rows <= stored.capacity)
    precondition(queries.node == nil, "the rows of a cache have no place in a computation")
    let attention = Attention(
      queries: queries, stored: stored, start: start, group: heads / stored.heads, mask: mask)
    return queries.rows == 1 ? attention.ofOneToken() : attention.ofManyTokens()
  }
}

/// The query heads that share a key and value head are worked on together, so that each cached row
/// is read and widened once for all of them.
struct Attention {
  var queries: Tensor
  var stored: KeyValueRows
  /// Position of the first query.
  var start: Int
  /// Row of this text's first token, where queries and keys of several lie in one matrix.
  var firstRow = 0
  /// Query heads per key and value head.
  var group: Int
  var mask: AttentionMask

  /// Keys per tile: the scores of a tile stay in the second-level cache.
  static let keyTile = 128
  /// Keys that one piece of a long text's decoding step covers.
  private static let spanKeys = 512

  var headDim: Int { stored.headDim }
  var rowStride: Int { queries.columns }

  private func slopes(of keyValueHead: Int) -> [Float]? {
    mask.alibiSlopes.map { Array($0[(keyValueHead * group)..<((keyValueHead + 1) * group)]) }
  }

  /// Keys and values of one head from a position on.
  private func source(_ head: Int, from key: Int, exact: Bool) -> (
    keys: pare_cache_rows, values: pare_cache_rows
  ) {
    var (keys, values) = (
      stored.keyRows(head, exact: exact), stored.valueRows(head, exact: exact)
    )
    keys.first &+= firstRow + key
    values.first &+= firstRow + key
    return (keys, values)
  }

  /// A range of keys in runs that are kept in one way, as the query at `position` reads them.
  private func runs(_ keys: Range<Int>, position: Int) -> [(keys: Range<Int>, isExact: Bool)] {
    let boundary = min(max(stored.firstExact(at: position), keys.lowerBound), keys.upperBound)
    return [(keys.lowerBound..<boundary, false), (boundary..<keys.upperBound, true)]
      .filter { !$0.0.isEmpty }
  }

  /// First key that a query at `position` sees.
  func firstKey(_ position: Int) -> Int {
    mask.slidingWindow.map { max(0, position - $0 + 1) } ?? 0
  }

  // MARK: Decoding

  /// Long texts are cut into spans of keys, whose partial softmaxes are joined in order: the cut
  /// depends on the text alone, so the result does not depend on the number of threads.
  func ofOneToken() -> Tensor {
    let first = firstKey(start)
    let count = start + 1 - first
    let spans = runs(first..<(start + 1), position: start).flatMap { keys, isExact in
      stride(from: keys.lowerBound, to: keys.upperBound, by: Self.spanKeys).map { begin in
        (keys: begin..<min(begin + Self.spanKeys, keys.upperBound), isExact: isExact)
      }
    }
    let parts = spans.count
    let (heads, dim, group) = (stored.heads, headDim, group)
    let partial = Tensor(
      dtype: .float32, shape: [heads, parts, group, dim + 2],
      storage: Storage(byteCount: heads * parts * group * (dim + 2) * 4))
    // [heads, parts, group, dim], then the maxima, then the sums.
    let mixture = Unshared(UnsafeMutablePointer(mutating: partial.floats))
    let maximum = heads * parts * group * dim
    let sum = maximum + heads * parts * group
    let scratchCount = pare_attention_scratch_floats(min(count, Self.spanKeys), dim, group)
    Parallel.forEach(heads * parts) { piece in
      let (head, part) = (piece / parts, piece % parts)
      let begin = spans[part].keys.lowerBound
      let source = source(head, from: begin, exact: spans[part].isExact)
      let slopes = slopes(of: head) ?? []
      withUnsafeTemporaryAllocation(of: Float.self, capacity: scratchCount) { scratch in
        slopes.withUnsafeBufferPointer { slopes in
          var span = pare_attention_span()
          span.keys = source.keys
          span.values = source.values
          span.count = spans[part].keys.count
          span.dim = dim
          span.queries = queries.floats + head * group * dim
          span.group = group
          span.scale = mask.scale
          span.soft_cap = mask.softCap ?? 0
          span.slopes = slopes.isEmpty ? nil : slopes.baseAddress
          span.first_distance = start - begin
          span.scratch = scratch.baseAddress
          span.mixture = mixture.value + piece * group * dim
          span.maximum = mixture.value + maximum + piece * group
          span.sum = mixture.value + sum + piece * group
          pare_attend_span(&span)
        }
      }
    }
    return Tensor(shape: queries.shape) { target in
      guard let base = target.baseAddress else { return }
      for head in 0..<heads {
        let piece = head * parts * group
        pare_attention_join(
          partial.floats + piece * dim, partial.floats + maximum + piece,
          partial.floats + sum + piece, parts, group, dim, base + head * group * dim)
      }
    }
  }

  // MARK: Many tokens

  /// An online softmax over tiles (Dao et al. 2022, arXiv:2205.14135), so that no matrix of queries
  /// by keys exists.
  func ofManyTokens() -> Tensor {
    let tiles = tiles()
    return Tensor(shape: queries.shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.forEach(stored.heads * tiles.count) { piece in
        // Late tiles see the most keys; begun first, they leave no thread waiting at the end.
        let (head, tile) = (piece % stored.heads, tiles.count - 1 - piece / stored.heads)
        run(head: head, tokens: tiles[tile], into: target.value)
      }
    }
  }

  /// Neighbouring queries, which read the same keys exactly.
  private func tiles() -> [Range<Int>] {
    var (tiles, first): ([Range<Int>], Int) = ([], 0)
    for token in 1...queries.rows
    where token == queries.rows || token - first == tileTokens
      || stored.firstExact(at: start + token) != stored.firstExact(at: start + first)
    {
      tiles.append(first..<token)
      first = token
    }
    return tiles
  }

  /// Tokens per tile: with the group's heads, some 128 rows.
  var tileTokens: Int { max(1, 128 / group) }

  /// Some neighbouring tokens' queries of the heads that share one key and value head, laid out head
  /// by head as `[group, tokens, headDim]`.
  ///
  /// - Parameter logSums: takes the logarithm of each softmax's denominator, `[rows, heads]`.
  func run(
    head: Int, tokens: Range<Int>, into target: UnsafeMutablePointer<Float>,
    logSums: UnsafeMutablePointer<Float>? = nil
  ) {
    let (dim, count, keyTile) = (headDim, tokens.count, Self.keyTile)
    let rows = group * count
    let scratchCount = rows * (keyTile + 2 * dim + 3) + keyTile * dim
    withUnsafeTemporaryAllocation(of: Float.self, capacity: scratchCount) { scratch in
      guard let scores = scratch.baseAddress else { return }
      let gathered = scores + rows * keyTile
      let mixture = gathered + rows * dim
      let widened = mixture + rows * dim
      let maximum = widened + keyTile * dim
      let (sum, rescale) = (maximum + rows, maximum + 2 * rows)
      for member in 0..<group {
        for token in tokens {
          (gathered + (member * count + token - tokens.lowerBound) * dim).update(
            from: queries.floats + (firstRow + token) * rowStride + (head * group + member) * dim,
            count: dim)
        }
      }
      mixture.update(repeating: 0, count: rows * dim)
      maximum.update(repeating: -.infinity, count: rows)
      sum.update(repeating: 0, count: rows)
      let firstQuery = start + tokens.lowerBound, lastKey = start + tokens.upperBound
      let seen = runs(firstKey(firstQuery)..<lastKey, position: firstQuery)
      let keyTiles = seen.flatMap { keys, isExact in
        stride(from: keys.lowerBound, to: keys.upperBound, by: keyTile).map { key in
          (key: key, columns: min(keyTile, keys.upperBound - key), isExact: isExact)
        }
      }
      for (key, columns, isExact) in keyTiles {
        var source = source(head, from: key, exact: isExact)
        pare_cache_widen(&source.keys, 0, columns, dim, widened, dim)
        TiledProduct.multiply(
          rows, columns, dim, gathered, dim, false, widened, dim, true, into: scores, keyTile,
          scale: mask.scale)
        for member in 0..<group {
          var tile = pare_score_tile(
            scores: scores + member * count * keyTile, rows: count, columns: columns,
            stride: keyTile, first_query: firstQuery, first_key: key,
            window: mask.slidingWindow ?? 0, soft_cap: mask.softCap ?? 0,
            slope: mask.alibiSlopes?[head * group + member] ?? 0,
            maximum: maximum + member * count, sum: sum + member * count,
            rescale: rescale + member * count)
          pare_online_softmax(&tile)
        }
        pare_scale_rows(mixture, rescale, rows, dim)
        pare_cache_widen(&source.values, 0, columns, dim, widened, dim)
        TiledProduct.multiply(
          rows, dim, columns, scores, keyTile, false, widened, dim, false, into: mixture, dim,
          adding: true)
      }
      for member in 0..<group {
        for token in tokens {
          let row = member * count + token - tokens.lowerBound
          pare_scale(
            mixture + row * dim, 1 / sum[row],
            target + (firstRow + token) * rowStride + (head * group + member) * dim, dim)
          if let logSums {
            logSums[(firstRow + token) * stored.heads * group + head * group + member] =
              maximum[row] + logf(sum[row])
          }
        }
      }
    }
  }
}
