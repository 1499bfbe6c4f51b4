import CKernels

#if canImport(Accelerate)
  import Accelerate
#else
  import COpenBLAS
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
  /// Queries and keys per tile: scores of a tile stay in the first-level cache.
  private static let queryTile = 32, keyTile = 128

  /// Causal attention with an online softmax over tiles (Dao et al. 2022, arXiv:2205.14135), so
  /// that no matrix of queries by keys exists.
  ///
  /// - Parameters:
  ///   - queries: `[tokens, heads · headDim]`
  ///   - keys: `[keyValueHeads, capacity, headDim]`, of which `start + tokens` rows are filled.
  ///   - values: as `keys`.
  ///   - start: position of the first query.
  /// - Returns: `[tokens, heads · headDim]`
  public static func attention(
    queries: Tensor, keys: Tensor, values: Tensor, start: Int, heads: Int, mask: AttentionMask
  ) -> Tensor {
    precondition(keys.shape.count == 3 && keys.shape == values.shape)
    let (headDim, capacity, tokens) = (keys.shape[2], keys.shape[1], queries.rows)
    precondition(queries.columns == heads * headDim && heads % keys.shape[0] == 0)
    precondition(start + tokens <= capacity)
    useOneBLASThread()
    let group = heads / keys.shape[0]
    let tiles = (tokens + queryTile - 1) / queryTile
    return Tensor(shape: queries.shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      let (q, k, v) = (Unshared(queries.floats), Unshared(keys.floats), Unshared(values.floats))
      Parallel.forEach(heads * tiles) { piece in
        let (head, tile) = (piece / tiles, piece % tiles)
        let offset = head / group * capacity * headDim
        let first = tile * queryTile
        let job = HeadTile(
          queries: q.value + first * heads * headDim + head * headDim,
          keys: k.value + offset, values: v.value + offset,
          target: target.value + first * heads * headDim + head * headDim,
          rows: min(queryTile, tokens - first), rowStride: heads * headDim, headDim: headDim,
          position: start + first, mask: mask, slope: mask.alibiSlopes?[head] ?? 0)
        if job.rows == 1 { job.runOne() } else { job.run() }
      }
    }
  }

  /// A few neighbouring queries of one head.
  private struct HeadTile {
    var queries: UnsafePointer<Float>
    var keys: UnsafePointer<Float>
    var values: UnsafePointer<Float>
    var target: UnsafeMutablePointer<Float>
    var rows: Int
    /// Floats from one token to the next, in queries and target.
    var rowStride: Int
    var headDim: Int
    /// Of the first query.
    var position: Int
    var mask: AttentionMask
    var slope: Float

    /// First key that some query at or after `position` sees.
    var firstKey: Int { mask.slidingWindow.map { max(0, position - $0 + 1) } ?? 0 }

    func runOne() {
      let count = position + 1 - firstKey
      withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { scores in
        guard let scores = scores.baseAddress else { return }
        pare_attend_one(
          queries, keys + firstKey * headDim, values + firstKey * headDim, count, headDim,
          mask.scale, mask.softCap ?? 0, slope, count - 1, scores, target)
      }
    }

    func run() {
      let lastKey = position + rows
      let scratchCount = rows * keyTile + rows * headDim + 3 * rows
      withUnsafeTemporaryAllocation(of: Float.self, capacity: scratchCount) { scratch in
        guard let scores = scratch.baseAddress else { return }
        let mixture = scores + rows * keyTile
        let maximum = mixture + rows * headDim
        let (sum, rescale) = (maximum + rows, maximum + 2 * rows)
        mixture.update(repeating: 0, count: rows * headDim)
        maximum.update(repeating: -.infinity, count: rows)
        sum.update(repeating: 0, count: rows)
        for key in stride(from: firstKey, to: lastKey, by: keyTile) {
          let columns = min(keyTile, lastKey - key)
          cblas_sgemm(
            CblasRowMajor, CblasNoTrans, CblasTrans, Int32(rows), Int32(columns), Int32(headDim),
            mask.scale, queries, Int32(rowStride), keys + key * headDim, Int32(headDim), 0, scores,
            Int32(keyTile))
          var tile = pare_score_tile(
            scores: scores, rows: rows, columns: columns, stride: keyTile, first_query: position,
            first_key: key, window: mask.slidingWindow ?? 0, soft_cap: mask.softCap ?? 0,
            slope: slope, maximum: maximum, sum: sum, rescale: rescale)
          pare_online_softmax(&tile)
          pare_scale_rows(mixture, rescale, rows, headDim)
          cblas_sgemm(
            CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(rows), Int32(headDim), Int32(columns),
            1, scores, Int32(keyTile), values + key * headDim, Int32(headDim), 1, mixture,
            Int32(headDim))
        }
        for row in 0..<rows {
          pare_scale(
            mixture + row * headDim, 1 / sum[row], target + row * rowStride, headDim)
        }
      }
    }
  }
}
