import CKernels
import Tensors
import Testing

/// Four bits on a grid over `values`, from the definition.
private func fourBits(_ values: [Float]) -> [Double] {
  let (low, high) = (Double(values.min() ?? 0), Double(values.max() ?? 0))
  let scale = Double(Float16(Float((high - low) / 15))), minimum = Double(Float16(Float(low)))
  return values.map { x in
    guard scale > 0 else { return minimum }
    let code = ((Double(x) - minimum) / scale).rounded(.toNearestOrEven)
    return min(max(code, 0), 15) * scale + minimum
  }
}

/// What E4M3 numbers are: sign, four bits of exponent, three of mantissa, bias 7.
func e4m3(_ code: UInt8) -> Double {
  let exponent = Int(code >> 3 & 15), mantissa = Double(code & 7)
  let size =
    exponent == 0
    ? mantissa / 512
    : (1 + mantissa / 8) * Double(sign: .plus, exponent: exponent - 7, significand: 1)
  return code & 0x80 == 0 ? size : -size
}

private func widened(_ rows: pare_cache_rows, _ count: Int, _ dim: Int, stride: Int) -> [Float] {
  var target = [Float](repeating: .nan, count: count * stride)
  withUnsafePointer(to: rows) { pare_cache_widen($0, 0, count, dim, &target, stride) }
  return target
}

@Test func everyNumberOfEightBitsIsItsDefinitionAndEveryOtherGoesToTheNearest() {
  let codes = (0...255).map { UInt8($0) }.filter { $0 & 0x7f != 0x7f }
  let values = codes.withUnsafeBytes {
    widened(
      .init(type: PARE_CACHE_E4M3, rows: $0.baseAddress, scales: nil, first: 0), 1, codes.count,
      stride: codes.count)
  }
  #expect(values.map(Double.init) == codes.map(e4m3))
  var back = [UInt8](repeating: 0, count: codes.count)
  pare_cache_store(PARE_CACHE_E4M3, values, values.count, &back, nil)
  #expect(back == codes)

  var numbers = TestNumbers(3)
  let x =
    numbers.floats(500, scale: 600) + numbers.floats(500) + numbers.floats(500, scale: 0.02)
    + [17, 19, -21, 0x1p-10, 3 * 0x1p-10, .infinity, -500]
  var stored = [UInt8](repeating: 0, count: x.count)
  pare_cache_store(PARE_CACHE_E4M3, x, x.count, &stored, nil)
  for (x, code) in zip(x, stored) {
    let gap = abs(min(max(Double(x), -448), 448) - e4m3(code))
    for other in codes {
      let otherGap = abs(min(max(Double(x), -448), 448) - e4m3(other))
      #expect(gap < otherGap || gap == otherGap && (code & 1 == 0 || e4m3(code) == e4m3(other)))
    }
  }
}

@Test func fourBitRowsAndColumnsAreTheirDefinitionOverAllTails() {
  for dim in Array(1...70) + [96, 128, 200] {
    var numbers = TestNumbers(UInt64(dim))
    let tokens = Int(PARE_CACHE_GROUP)
    var x = numbers.floats(tokens * dim, scale: 3)
    for token in 0..<tokens { x[token * dim] += 40 }  // a channel that stands out
    for i in 0..<dim { x[5 * dim + i] = 1.5 }  // a token without a range
    let stride = dim + 3
    var moved = 0
    func compare(_ value: Float, _ expected: Double, _ x: Float, range: Double) {
      let step = range / 15
      if abs(Double(value) - expected) > 1e-5 * max(1, abs(expected)) { moved += 1 }
      // Half a step, and float16's rounding of minimum and scale.
      #expect(abs(Double(value) - Double(x)) <= step / 2 + (range + abs(Double(x))) * 0x1p-10)
    }

    let rowBytes = pare_cache_row_bytes(PARE_CACHE_I4_ROWS, dim)
    var rows = [UInt8](repeating: 0xff, count: tokens * rowBytes)
    for token in 0..<tokens {
      rows.withUnsafeMutableBytes { target in
        x.withUnsafeBufferPointer { x in
          pare_cache_store(
            PARE_CACHE_I4_ROWS, x.baseAddress.map { $0 + token * dim }, dim,
            target.baseAddress.map { $0 + token * rowBytes }, nil)
        }
      }
    }
    let fromRows = rows.withUnsafeBytes {
      widened(
        .init(type: PARE_CACHE_I4_ROWS, rows: $0.baseAddress, scales: nil, first: 0), tokens, dim,
        stride: stride)
    }
    for token in 0..<tokens {
      for start in Swift.stride(from: 0, to: dim, by: 32) {
        let part = Array(x[(token * dim + start)..<(token * dim + min(start + 32, dim))])
        let range = Double((part.max() ?? 0) - (part.min() ?? 0))
        for (i, expected) in fourBits(part).enumerated() {
          compare(fromRows[token * stride + start + i], expected, part[i], range: range)
        }
      }
      #expect(fromRows[(token * stride + dim)..<((token + 1) * stride)].allSatisfy { $0 == 0 })
    }

    var columns = [UInt8](
      repeating: 0xff, count: pare_cache_row_bytes(PARE_CACHE_I4_COLUMNS, dim))
    pare_cache_store_columns(x, dim, &columns)
    let fromColumns = columns.withUnsafeBytes {
      widened(
        .init(type: PARE_CACHE_I4_COLUMNS, rows: $0.baseAddress, scales: nil, first: 0), tokens,
        dim, stride: stride)
    }
    for i in 0..<dim {
      let part = (0..<tokens).map { x[$0 * dim + i] }
      let range = Double((part.max() ?? 0) - (part.min() ?? 0))
      for (token, expected) in fourBits(part).enumerated() {
        compare(fromColumns[token * stride + i], expected, part[token], range: range)
      }
    }
    // A quotient halfway between two codes may round either way.
    #expect(moved <= 1 + tokens * dim / 500)
  }
}

/// A text's keys and values and its cache, filled by passes of some sizes.
private struct Filled {
  let heads = 2
  let dim = 40
  let length = 203
  var keys, values, queries: Tensor

  init() {
    var numbers = TestNumbers(77)
    keys = numbers.tensor([length, heads * dim], scale: 2)
    values = numbers.tensor([length, heads * dim])
    queries = numbers.tensor([length, 2 * heads * dim], scale: 2)
  }

  /// Each pass's attention, as a model computes it, token after token.
  func attended(
    _ type: KeyValueRows.ElementType, window: Int, passes: [Int], mask: AttentionMask
  ) -> [Float] {
    var stored = KeyValueRows(
      type: type, heads: heads, capacity: passes.first ?? 0, headDim: dim, window: window)
    var (start, result): (Int, [Float]) = (0, [])
    for count in passes {
      let rows = start..<(start + count)
      if stored.capacity < rows.upperBound {
        stored = stored.grown(to: 2 * rows.upperBound, used: start)
      }
      stored.store(keys: keys.rows(rows), values: values.rows(rows), at: start)
      result +=
        Tensor.attention(
          queries: queries.rows(rows), stored: stored, start: start, heads: 2 * heads, mask: mask
        ).array
      start += count
    }
    return result
  }

  /// Attention in Double over keys and values rounded from the definition.
  func expected(window: Int, mask: AttentionMask, position: Int) -> [Double] {
    let half = { (tensor: Tensor) in tensor.array.map { Float(Float16($0)) } }
    let (K, V, q) = (half(keys), half(values), queries.doubles)
    let boundary = max(0, position + 1 - window) / 32 * 32
    let first = mask.slidingWindow.map { max(0, position - $0 + 1) } ?? 0
    var result: [Double] = []
    for head in 0..<(2 * heads) {
      func at(_ token: Int, _ d: Int) -> Int { token * heads * dim + head / 2 * dim + d }
      var k = (0...position).map { token in (0..<dim).map { Double(K[at(token, $0)]) } }
      var v = (0...position).map { token in (0..<dim).map { Double(V[at(token, $0)]) } }
      for group in Swift.stride(from: 0, to: boundary, by: 32) {
        for d in 0..<dim {
          let column = fourBits((0..<32).map { K[at(group + $0, d)] })
          for token in 0..<32 { k[group + token][d] = column[token] }
        }
        for token in group..<(group + 32) {
          v[token] = [0..<32, 32..<dim].flatMap { part in fourBits(part.map { V[at(token, $0)] }) }
        }
      }
      let query = (0..<dim).map { q[position * 2 * heads * dim + head * dim + $0] }
      let scores = (first...position).map { token in
        zip(query, k[token]).reduce(0.0) { $0 + $1.0 * $1.1 } * Double(mask.scale)
      }
      let top = scores.max() ?? 0
      let weights = scores.map { exponential($0 - top) }
      let sum = weights.reduce(0, +)
      for d in 0..<dim {
        result.append(zip(weights, first...position).reduce(0) { $0 + $1.0 * v[$1.1][d] } / sum)
      }
    }
    return result
  }

  /// e^x by its series, halved until it converges fast.
  private func exponential(_ x: Double) -> Double {
    var (sum, term) = (1.0, 1.0)
    let small = x / 1024
    for n in 1...12 {
      term *= small / Double(n)
      sum += term
    }
    for _ in 0..<10 { sum *= sum }
    return sum
  }
}

@Test(arguments: [nil, 50] as [Int?])
func fourBitAttentionReadsOldGroupsRoundedAndTheNewestTokensExactly(slidingWindow: Int?) {
  let text = Filled()
  let mask = AttentionMask(slidingWindow: slidingWindow, scale: 0.2)
  let width = 4 * text.dim
  for window in [1, 20, 64] {
    let whole = text.attended(.int4, window: window, passes: [text.length], mask: mask)
    for position in [0, 31, 32, 51, 52, 83, 84, 95, 96, 130, 202] {
      let expected = text.expected(window: window, mask: mask, position: position)
      // Rounding the other way at a tie of one of 32 tokens is rare and small.
      for (a, b) in zip(whole[(position * width)...], expected) {
        #expect(abs(Double(a) - b) < 2e-3)
      }
    }
    // However a text is cut, the same rows are read; only the order of sums differs.
    for passes in [
      Array(repeating: 1, count: text.length), [100, 1, 1, 1, 50, 50], [33, 31, 64, 1, 74],
      [7, 196],
    ] {
      let cut = text.attended(.int4, window: window, passes: passes, mask: mask)
      for (a, b) in zip(cut, whole) { #expect(abs(a - b) < 1e-5) }
    }
  }
}

@Test func tokensInsideTheWindowAreThoseOfAFloat16Cache() {
  let text = Filled()
  let mask = AttentionMask(scale: 0.2)
  let passes = [120, 1, 1, 40, 41]
  // Some 31 tokens beyond the window are exact too.
  let exact = text.attended(.float16, window: 1, passes: passes, mask: mask)
  #expect(text.attended(.int4, window: 203, passes: passes, mask: mask) == exact)
  #expect(text.attended(.int4, window: 172, passes: passes, mask: mask) == exact)
  #expect(text.attended(.int4, window: 171, passes: passes, mask: mask) != exact)
}

@Test func textsThatStayInsideWhatIsExactAreReusable() {
  let text = Filled()
  let stored = KeyValueRows(type: .int4, heads: 2, capacity: 203, headDim: text.dim, window: 16)
  func store(_ rows: Range<Int>) {
    stored.store(
      keys: text.keys.rows(rows), values: text.values.rows(rows), at: rows.lowerBound)
  }
  store(0..<100)
  #expect((0...100).allSatisfy { stored.reusable(upTo: $0) == $0 })
  for token in 100..<203 { store(token..<(token + 1)) }
  #expect(stored.reusable(upTo: 203) == 203 && stored.reusable(upTo: 202) == 202)
  #expect(stored.reusable(upTo: 90) == 0 && stored.reusable(upTo: 0) == 0)
  #expect(
    KeyValueRows(type: .int8, heads: 2, capacity: 4, headDim: 8).reusable(upTo: 3) == 3)
}

@Test func bytesOfATokenAreThoseOfItsRows() {
  for type in KeyValueRows.ElementType.allCases {
    let rows = KeyValueRows(type: type, heads: 3, capacity: 4096, headDim: 48, window: 1)
    let window = type == .int4 ? 65 * 3 * 48 * 4 : 0
    let expected = Int(type.bytesPerToken(heads: 3, headDim: 48) * 4096)
    #expect(rows.byteCount - window == expected)
  }
  let four = KeyValueRows.ElementType.int4.bytesPerToken(heads: 1, headDim: 64)
  // Codes and grids of keys, codes and grids of values.
  let parts: [Double] = [32, 8, 32, 8]
  #expect(four == parts.reduce(0, +))
}
