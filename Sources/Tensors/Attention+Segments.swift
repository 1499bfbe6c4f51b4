import CKernels

extension Tensor {
  /// Causal attention within each of several whole texts, none of which sees another, with its
  /// backward rule (Dao et al. 2022, arXiv:2205.14135): of the scores only their softmax's
  /// denominators are kept, and tiles of them are computed again on the way back.
  ///
  /// - Parameters:
  ///   - queries: `[tokens, heads · headDim]`, already rotated.
  ///   - keys: `[tokens, keyValueHeads · headDim]`, already rotated.
  ///   - values: `[tokens, keyValueHeads · headDim]`
  ///   - segments: the rows of each text; together all rows, in order.
  /// - Returns: `[tokens, heads · headDim]`
  package static func attention(
    queries: Tensor, keys: Tensor, values: Tensor, segments: [Range<Int>], heads: Int,
    keyValueHeads: Int, mask: AttentionMask
  ) -> Tensor {
    let (tokens, headDim) = (queries.rows, queries.columns / heads)
    precondition(segments.reduce(0) { $0 + $1.count } == tokens && heads % keyValueHeads == 0)
    let stored = KeyValueRows(
      type: .float32, heads: keyValueHeads, capacity: tokens, headDim: headDim)
    stored.store(keys: keys, values: values, at: 0)
    let pass = SegmentedAttention(
      queries: queries.plain, stored: stored, segments: segments, group: heads / keyValueHeads,
      mask: mask)
    let (mixture, logSums) = pass.forward()
    return mixture.recorded(from: queries, keys, values) {
      [queries = queries.place, keys = keys.place, values = values.place] gradient in
      let (dQ, dK, dV) = pass.backward(gradient, mixture: mixture, logSums: logSums)
      queries.receive(dQ)
      keys.receive(dK)
      values.receive(dV)
    }
  }
}

/// Attention of whole texts side by side.
private struct SegmentedAttention: Sendable {
  /// `[tokens, heads · headDim]`
  var queries: Tensor
  var stored: KeyValueRows
  var segments: [Range<Int>]
  /// Query heads per key and value head.
  var group: Int
  var mask: AttentionMask

  private var heads: Int { stored.heads * group }

  private func attention(of segment: Range<Int>) -> Attention {
    Attention(
      queries: queries, stored: stored, start: 0, firstRow: segment.lowerBound, group: group,
      mask: mask)
  }

  /// - Returns: the result, and the logarithms of the softmaxes' denominators `[tokens, heads]`.
  func forward() -> (mixture: Tensor, logSums: Tensor) {
    let logSums = Tensor(
      dtype: .float32, shape: [queries.rows, heads],
      storage: Storage(byteCount: queries.rows * heads * 4))
    let sums = Unshared(UnsafeMutablePointer(mutating: logSums.floats))
    let size = attention(of: 0..<0).tileTokens
    let tiles = segments.flatMap { segment in
      stride(from: 0, to: segment.count, by: size).map { first in
        (segment, first..<min(first + size, segment.count))
      }
    }
    let mixture = Tensor(shape: queries.shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.forEach(stored.heads * tiles.count) { piece in
        let (head, tile) = (piece % stored.heads, tiles[piece / stored.heads])
        attention(of: tile.0).run(
          head: head, tokens: tile.1, into: target.value, logSums: sums.value)
      }
    }
    return (mixture, logSums)
  }

  /// - Returns: gradients of queries, keys and values, in their shapes.
  func backward(_ gradient: Tensor, mixture: Tensor, logSums: Tensor) -> (Tensor, Tensor, Tensor) {
    func empty(_ columns: Int) -> Tensor {
      Tensor(
        dtype: .float32, shape: [queries.rows, columns],
        storage: Storage(byteCount: queries.rows * columns * 4))
    }
    let width = stored.heads * stored.headDim
    let (dQ, dK, dV) = (empty(queries.columns), empty(width), empty(width))
    Parallel.forEach(stored.heads * segments.count) { piece in
      SegmentGradient(
        attention: attention(of: segments[piece / stored.heads]), head: piece % stored.heads,
        tokens: segments[piece / stored.heads].count, mixture: mixture, logSums: logSums,
        gradient: gradient
      ).run(into: dQ, dK, dV)
    }
    return (dQ, dK, dV)
  }
}

/// The backward pass of one text under one key and value head: for a tile of queries and one of keys,
/// `dV += Pᵀ · dO`, `dP = dO · Vᵀ`, `dS = P ∘ (dP − D)`, `dQ += dS · K`, `dK += dSᵀ · Q`.
private struct SegmentGradient {
  var attention: Attention
  var head: Int
  var tokens: Int
  var mixture: Tensor
  var logSums: Tensor
  var gradient: Tensor

  func run(into dQ: Tensor, _ dK: Tensor, _ dV: Tensor) {
    let (dim, keyTile, group) = (attention.headDim, Attention.keyTile, attention.group)
    let most = min(attention.tileTokens, tokens) * group
    let scratchCount = most * (2 * keyTile + 3 * dim + 2) + 2 * tokens * dim
    withUnsafeTemporaryAllocation(of: Float.self, capacity: scratchCount) { scratch in
      guard let keyGradient = scratch.baseAddress else { return }
      let valueGradient = keyGradient + tokens * dim
      keyGradient.update(repeating: 0, count: 2 * tokens * dim)
      var tile = Tile(base: valueGradient + tokens * dim, rows: most, dim: dim, keyTile: keyTile)
      for first in stride(from: 0, to: tokens, by: attention.tileTokens) {
        tile.tokens = first..<min(first + attention.tileTokens, tokens)
        gather(&tile)
        let rows = group * tile.tokens.count
        let start = attention.firstKey(first)
        for key in stride(from: start, to: tile.tokens.upperBound, by: keyTile) {
          let columns = min(keyTile, tile.tokens.upperBound - key)
          let at = (head * attention.stored.capacity + attention.firstRow + key) * dim
          let (keys, values) = (
            attention.stored.keys.floats + at, attention.stored.values.floats + at
          )
          multiply(rows, columns, dim, attention.mask.scale, tile.queries, keys, tile.scores)
          multiply(rows, columns, dim, 1, tile.arriving, values, tile.gradient)
          differentiate(tile, key: key, columns: columns)
          accumulate(columns, dim, rows, 1, tile.scores, tile.arriving, valueGradient + key * dim)
          accumulate(
            columns, dim, rows, attention.mask.scale, tile.gradient, tile.queries,
            keyGradient + key * dim)
          TiledProduct.multiply(
            rows, dim, columns, tile.gradient, keyTile, false, keys, dim, false,
            into: tile.queryGradient, dim, scale: attention.mask.scale, adding: true)
        }
        scatter(tile, into: dQ)
      }
      let width = attention.stored.heads * dim
      for (source, target) in [(keyGradient, dK), (valueGradient, dV)] {
        let base = UnsafeMutablePointer(mutating: target.floats) + head * dim
        for token in 0..<tokens {
          (base + (attention.firstRow + token) * width).update(
            from: source + token * dim, count: dim)
        }
      }
    }
  }

  /// Scratch memory of one tile of queries; rows are `[group, tokens]`.
  private struct Tile {
    var tokens = 0..<0
    /// `[rows, keyTile]`: scores, then probabilities; and their gradient.
    var scores, gradient: UnsafeMutablePointer<Float>
    /// `[rows, dim]`: queries, the gradient that arrives, the gradient of the queries.
    var queries, arriving, queryGradient: UnsafeMutablePointer<Float>
    /// `[rows]`
    var logSums, means: UnsafeMutablePointer<Float>

    init(base: UnsafeMutablePointer<Float>, rows: Int, dim: Int, keyTile: Int) {
      scores = base
      gradient = scores + rows * keyTile
      queries = gradient + rows * keyTile
      arriving = queries + rows * dim
      queryGradient = arriving + rows * dim
      logSums = queryGradient + rows * dim
      means = logSums + rows
    }
  }

  private func at(_ token: Int, _ member: Int) -> Int {
    (attention.firstRow + token) * attention.rowStride
      + (head * attention.group + member) * attention.headDim
  }

  private func gather(_ tile: inout Tile) {
    let (dim, group) = (attention.headDim, attention.group)
    var row = 0
    for member in 0..<group {
      for token in tile.tokens {
        let place = at(token, member)
        (tile.queries + row * dim).update(from: attention.queries.floats + place, count: dim)
        (tile.arriving + row * dim).update(from: gradient.floats + place, count: dim)
        tile.means[row] = pare_dot_f32(mixture.floats + place, gradient.floats + place, dim)
        tile.logSums[row] =
          logSums.floats[
            (attention.firstRow + token) * logSums.columns + head * group + member]
        row += 1
      }
    }
    tile.queryGradient.update(repeating: 0, count: row * dim)
  }

  private func scatter(_ tile: Tile, into target: Tensor) {
    let base = UnsafeMutablePointer(mutating: target.floats)
    var row = 0
    for member in 0..<attention.group {
      for token in tile.tokens {
        (base + at(token, member)).update(
          from: tile.queryGradient + row * attention.headDim, count: attention.headDim)
        row += 1
      }
    }
  }

  private func differentiate(_ tile: Tile, key: Int, columns: Int) {
    let (count, keyTile) = (tile.tokens.count, Attention.keyTile)
    for member in 0..<attention.group {
      let row = member * count
      var scores = pare_score_gradient(
        scores: tile.scores + row * keyTile, gradient: tile.gradient + row * keyTile, rows: count,
        columns: columns, stride: keyTile, first_query: tile.tokens.lowerBound, first_key: key,
        window: attention.mask.slidingWindow ?? 0, soft_cap: attention.mask.softCap ?? 0,
        slope: attention.mask.alibiSlopes?[head * attention.group + member] ?? 0,
        log_sum: tile.logSums + row, mean: tile.means + row)
      pare_softmax_gradient(&scores)
    }
  }

  /// `c[rows, keyTile] = scale · a[rows, dim] · b[columns, dim]ᵀ`
  private func multiply(
    _ rows: Int, _ columns: Int, _ dim: Int, _ scale: Float, _ a: UnsafePointer<Float>,
    _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>
  ) {
    TiledProduct.multiply(
      rows, columns, dim, a, dim, false, b, dim, true, into: c, Attention.keyTile, scale: scale)
  }

  /// `c[columns, dim] += scale · a[rows, keyTile]ᵀ · b[rows, dim]`
  private func accumulate(
    _ columns: Int, _ dim: Int, _ rows: Int, _ scale: Float, _ a: UnsafePointer<Float>,
    _ b: UnsafePointer<Float>, _ c: UnsafeMutablePointer<Float>
  ) {
    TiledProduct.multiply(
      columns, dim, rows, a, Attention.keyTile, true, b, dim, false, into: c, dim, scale: scale,
      adding: true)
  }
}
