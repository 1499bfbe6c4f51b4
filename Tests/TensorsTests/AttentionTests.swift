import CKernels
import Foundation
import Tensors
import Testing

/// Attention of one head of one query, as the formula says.
private func attend(
  query: [Double], keys: [[Double]], values: [[Double]], position: Int, mask: AttentionMask,
  slope: Double
) -> [Double] {
  let visible = (0...position).filter { key in
    mask.slidingWindow.map { position - key < $0 } ?? true
  }
  let scores = visible.map { key in
    var score = zip(query, keys[key]).reduce(0) { $0 + $1.0 * $1.1 } * Double(mask.scale)
    if let cap = mask.softCap.map(Double.init) { score = cap * tanh(score / cap) }
    return score + slope * Double(key - position)
  }
  let largest = scores.max() ?? 0
  let weights = scores.map { exp($0 - largest) }
  let sum = weights.reduce(0, +)
  return query.indices.map { d in
    zip(visible, weights).reduce(0) { $0 + $1.1 * values[$1.0][d] } / sum
  }
}

struct AttentionCase: Sendable, CustomStringConvertible {
  var heads: Int, keyValueHeads: Int, headDim: Int, start: Int, tokens: Int
  var mask: AttentionMask
  var description: String {
    "\(heads)/\(keyValueHeads) heads of \(headDim), \(start)+\(tokens), window "
      + "\(mask.slidingWindow ?? 0)"
  }

  static let all: [AttentionCase] = {
    var cases: [AttentionCase] = []
    for (heads, keyValueHeads, headDim) in [(1, 1, 8), (4, 2, 12), (6, 1, 7), (3, 3, 64)] {
      for (start, tokens) in [(0, 1), (0, 33), (17, 1), (5, 70), (150, 3), (0, 300)] {
        for window in [nil, 1, 9, 130] as [Int?] {
          cases.append(
            .init(
              heads: heads, keyValueHeads: keyValueHeads, headDim: headDim, start: start,
              tokens: tokens,
              mask: AttentionMask(
                slidingWindow: window,
                alibiSlopes: heads == 3 ? [0.5, 0.1, 0.02] : nil,
                softCap: heads == 4 ? 2 : nil, scale: 0.7)))
        }
      }
    }
    return cases
  }()
}

@Test(arguments: AttentionCase.all)
func attentionAgreesWithItsFormula(test: AttentionCase) {
  var numbers = TestNumbers(UInt64(test.tokens * 31 + test.start))
  let (dim, length) = (test.headDim, test.start + test.tokens)
  // Room behind the filled rows must not be read into the result.
  let capacity = length + 5
  let queries = numbers.tensor([test.tokens, test.heads * dim], scale: 2)
  let keys = numbers.tensor([length, test.keyValueHeads * dim], scale: 2)
  let values = numbers.tensor([length, test.keyValueHeads * dim])
  let stored = KeyValueRows(
    type: .float32, heads: test.keyValueHeads, capacity: capacity, headDim: dim)
  stored.store(keys: keys, values: values, at: 0)
  let result = Tensor.attention(
    queries: queries, stored: stored, start: test.start, heads: test.heads, mask: test.mask)
  #expect(result.shape == queries.shape)
  func rows(_ tensor: Tensor, _ head: Int) -> [[Double]] {
    let all = tensor.doubles
    return (0..<length).map { row in
      let at = (row * test.keyValueHeads + head) * dim
      return Array(all[at..<(at + dim)])
    }
  }
  let q = queries.doubles
  let r = result.doubles
  for head in 0..<test.heads {
    let shared = head / (test.heads / test.keyValueHeads)
    let (k, v) = (rows(keys, shared), rows(values, shared))
    // A few rows tell; all of a long text would take the oracle minutes.
    for token in Set([0, 1, test.tokens / 2, test.tokens - 1]) where token < test.tokens {
      let at = token * test.heads * dim + head * dim
      let expected = attend(
        query: Array(q[at..<(at + dim)]), keys: k, values: v, position: test.start + token,
        mask: test.mask, slope: Double(test.mask.alibiSlopes?[head] ?? 0))
      for d in 0..<dim { #expect(abs(r[at + d] - expected[d]) < 5e-6) }
    }
  }
}

/// Rows kept in fewer bits: attention over them is exactly that over what they widen to.
@Test(arguments: [KeyValueRows.ElementType.float16, .int8, .fp8], [1, 40])
func attentionReadsNarrowRowsAsTheyWiden(type: KeyValueRows.ElementType, tokens: Int) {
  var numbers = TestNumbers(UInt64(tokens))
  let (heads, dim, length) = (2, 24, 600)
  let keys = numbers.tensor([length, heads * dim], scale: 2)
  let values = numbers.tensor([length, heads * dim])
  let narrow = KeyValueRows(type: type, heads: heads, capacity: length, headDim: dim)
  narrow.store(keys: keys, values: values, at: 0)
  func widened(_ rows: Tensor, _ stored: Tensor, _ scales: Tensor?) -> Tensor {
    let values = Tensor(shape: rows.shape) { target in
      let wide: [Float] =
        switch type {
        case .int8: stored.bytes.map { Float(Int8(bitPattern: $0)) }
        case .fp8: stored.bytes.map { Float(e4m3($0)) }
        default: stored.widened().array
        }
      for token in 0..<length {
        for head in 0..<heads {
          for d in 0..<dim {
            let row = head * length + token
            target[(token * heads + head) * dim + d] =
              wide[row * dim + d] * (scales?.floats[row] ?? 1)
          }
        }
      }
    }
    let largest = zip(values.doubles, rows.doubles).map { abs($0 - $1) }.max() ?? 1
    // Half a step: 2⁻¹¹ of a float16 value, 2⁻⁴ of one with 3 bits, 1/254 of an int8 row's largest.
    #expect(
      largest > 0
        && largest < (type == .int8 ? 6 / 254.0 : type == .fp8 ? 2 * 0x1p-4 : 6 * 0x1p-11))
    return values
  }
  let wide = KeyValueRows(type: .float32, heads: heads, capacity: length, headDim: dim)
  wide.store(
    keys: widened(keys, narrow.keys, narrow.keyScales),
    values: widened(values, narrow.values, narrow.valueScales), at: 0)
  let queries = numbers.tensor([tokens, 4 * dim], scale: 2)
  let mask = AttentionMask(scale: 0.3)
  func attend(_ rows: KeyValueRows) -> [Float] {
    Tensor.attention(
      queries: queries, stored: rows, start: length - tokens, heads: 4, mask: mask
    ).array
  }
  #expect(attend(narrow) == attend(wide))
}

@Test func spansOfKeysAgreeWithTheirReference() {
  for (count, dim, group) in [(1, 8, 1), (15, 7, 2), (16, 64, 4), (33, 128, 1), (200, 20, 3)] {
    var numbers = TestNumbers(UInt64(count))
    let keys = numbers.tensor([count, dim]), values = numbers.tensor([count, dim])
    let queries = numbers.tensor([group, dim])
    let slopes = (0..<group).map { Float($0) * 0.1 }
    func run(_ body: (UnsafePointer<pare_attention_span>) -> Void) -> [Float] {
      var scratch = [Float](
        repeating: .nan, count: pare_attention_scratch_floats(count, dim, group))
      var out = [Float](repeating: .nan, count: group * (dim + 2))
      scratch.withUnsafeMutableBufferPointer { scratch in
        out.withUnsafeMutableBufferPointer { out in
          slopes.withUnsafeBufferPointer { slopes in
            guard let base = out.baseAddress else { return }
            var span = pare_attention_span(
              keys: .init(type: PARE_CACHE_F32, rows: keys.floats, scales: nil, first: 0),
              values: .init(type: PARE_CACHE_F32, rows: values.floats, scales: nil, first: 0),
              count: count, dim: dim, queries: queries.floats, group: group, scale: 0.4,
              soft_cap: 3, slopes: slopes.baseAddress, first_distance: count - 1,
              scratch: scratch.baseAddress, mixture: base, maximum: base + group * dim,
              sum: base + group * (dim + 1))
            body(&span)
          }
        }
      }
      return out
    }
    for (fast, slow) in zip(run(pare_attend_span), run(pare_attend_span_ref)) {
      #expect(abs(fast - slow) < 1e-5 * max(1, abs(slow)))
    }
  }
}

@Test func rotationTurnsPairsByTheirAngle() {
  var numbers = TestNumbers(11)
  let frequencies: [Float] = [1, 0.3, 0.01]
  let table = RotaryTable(
    inverseFrequencies: frequencies, positions: 4..<12, attentionScaling: 1.25)
  let (heads, dim) = (2, 8)  // the last two dimensions stay
  let x = numbers.tensor([5, heads * dim])
  let y = x.rotated(by: table, heads: heads, headDim: dim, start: 6)
  for row in 0..<5 {
    for head in 0..<heads {
      let at = row * heads * dim + head * dim
      for i in 0..<3 {
        let angle = Double(6 + row) * Double(frequencies[i])
        let (a, b) = (x.doubles[at + i], x.doubles[at + i + 3])
        #expect(abs(y.doubles[at + i] - 1.25 * (a * cos(angle) - b * sin(angle))) < 1e-5)
        #expect(abs(y.doubles[at + i + 3] - 1.25 * (b * cos(angle) + a * sin(angle))) < 1e-5)
      }
      #expect(y.floats[at + 6] == x.floats[at + 6])
      #expect(y.floats[at + 7] == x.floats[at + 7])
    }
  }
}
