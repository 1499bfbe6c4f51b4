import Foundation
import Tensors
import Testing

struct SegmentedCase: Sendable, CustomStringConvertible {
  var heads: Int, keyValueHeads: Int, headDim: Int
  var lengths: [Int]
  var window: Int?
  var softCap: Float?
  var hasSlopes = false

  var description: String {
    "\(heads)/\(keyValueHeads) heads of \(headDim), texts of \(lengths), window \(window ?? 0), "
      + "cap \(softCap ?? 0)\(hasSlopes ? ", slopes" : "")"
  }
  var tokens: Int { lengths.reduce(0, +) }
  var mask: AttentionMask {
    AttentionMask(
      slidingWindow: window,
      alibiSlopes: hasSlopes ? (0..<heads).map { Float($0 + 1) * 0.07 } : nil, softCap: softCap,
      scale: 0.7)
  }
  var segments: [Range<Int>] {
    var first = 0
    return lengths.map { length in
      defer { first += length }
      return first..<(first + length)
    }
  }

  static let all: [SegmentedCase] = [
    .init(heads: 1, keyValueHeads: 1, headDim: 1, lengths: [1]),
    .init(heads: 1, keyValueHeads: 1, headDim: 8, lengths: [1, 1, 2]),
    .init(heads: 4, keyValueHeads: 2, headDim: 12, lengths: [5, 0, 33, 1]),
    .init(heads: 4, keyValueHeads: 2, headDim: 12, lengths: [40, 70], softCap: 2),
    .init(heads: 6, keyValueHeads: 1, headDim: 7, lengths: [21, 45], window: 9),
    .init(heads: 3, keyValueHeads: 3, headDim: 8, lengths: [3, 150], hasSlopes: true),
    .init(heads: 2, keyValueHeads: 2, headDim: 16, lengths: [127, 128, 129]),
    .init(heads: 2, keyValueHeads: 1, headDim: 5, lengths: [129, 4], window: 1),
    .init(heads: 2, keyValueHeads: 1, headDim: 5, lengths: [270, 3], window: 130),
    .init(heads: 2, keyValueHeads: 2, headDim: 4, lengths: [300], window: 128, softCap: 3),
    .init(heads: 6, keyValueHeads: 2, headDim: 6, lengths: [140, 43], window: 60, hasSlopes: true),
    .init(
      heads: 4, keyValueHeads: 1, headDim: 3, lengths: [260], softCap: 1.5, hasSlopes: true),
  ]

  /// Attention as its formula says, text by text, head by head, query by query.
  func formula(_ inputs: [[Double]]) -> [Double] {
    let (q, k, v) = (inputs[0], inputs[1], inputs[2])
    let mask = mask
    var result = [Double](repeating: 0, count: q.count)
    for segment in segments {
      for query in segment {
        let first = window.map { max(segment.lowerBound, query - $0 + 1) } ?? segment.lowerBound
        for head in 0..<heads {
          let shared = head / (heads / keyValueHeads)
          let at = (query * heads + head) * headDim
          let slope = Double(mask.alibiSlopes?[head] ?? 0)
          var weights: [Double] = []
          for key in first...query {
            let other = (key * keyValueHeads + shared) * headDim
            var score = 0.0
            for d in 0..<headDim { score += q[at + d] * k[other + d] }
            score *= Double(mask.scale)
            if let cap = softCap.map(Double.init) { score = cap * tanh(score / cap) }
            weights.append(exp(score + slope * Double(key - query)))
          }
          let sum = weights.reduce(0, +)
          for (index, weight) in weights.enumerated() {
            let other = ((first + index) * keyValueHeads + shared) * headDim
            for d in 0..<headDim { result[at + d] += weight / sum * v[other + d] }
          }
        }
      }
    }
    return result
  }
}

@Test(arguments: SegmentedCase.all)
func attentionOfSeveralTextsHasItsGradients(test: SegmentedCase) {
  var numbers = TestNumbers(UInt64(test.tokens))
  let queries = numbers.tensor([test.tokens, test.heads * test.headDim], scale: 2)
  let keys = numbers.tensor([test.tokens, test.keyValueHeads * test.headDim], scale: 2)
  let values = numbers.tensor([test.tokens, test.keyValueHeads * test.headDim])
  checkGradients([queries, keys, values], samples: test.tokens > 100 ? 10 : 40, tolerance: 1e-5) {
    Tensor.attention(
      queries: $0[0], keys: $0[1], values: $0[2], segments: test.segments, heads: test.heads,
      keyValueHeads: test.keyValueHeads, mask: test.mask)
  } formula: {
    test.formula($0)
  }
}

@Test func keysThatAreAlsoValuesGatherBothGradients() {
  let test = SegmentedCase(heads: 2, keyValueHeads: 2, headDim: 6, lengths: [20, 9])
  var numbers = TestNumbers(51)
  let (x, y) = (numbers.tensor([29, 12]), numbers.tensor([29, 12]))
  checkGradients([x]) {
    Tensor.attention(
      queries: $0[0], keys: $0[0], values: $0[0], segments: test.segments, heads: 2,
      keyValueHeads: 2, mask: test.mask)
  } formula: {
    test.formula([$0[0], $0[0], $0[0]])
  }
  checkGradients([x, y], trained: [false, true]) {
    Tensor.attention(
      queries: $0[0], keys: $0[0], values: $0[1], segments: test.segments, heads: 2,
      keyValueHeads: 2, mask: test.mask)
  } formula: {
    test.formula([$0[0], $0[0], $0[1]])
  }
}

@Test func aTextHasTheSameAttentionWhateverIsBesideIt() {
  var numbers = TestNumbers(52)
  let mask = AttentionMask(slidingWindow: 40, scale: 0.5)
  let lengths = [5, 140, 33]
  let inputs = (0..<3).map { _ in numbers.tensor([178, 16]) }
  let arriving = numbers.tensor([178, 16])
  func run(_ rows: Range<Int>, _ segments: [Range<Int>]) -> [Tensor?] {
    let leaves = inputs.map { $0.rows(rows).asLeaf }
    let result = Tensor.attention(
      queries: leaves[0], keys: leaves[1], values: leaves[2], segments: segments, heads: 2,
      keyValueHeads: 2, mask: mask)
    Tape.backward([(result, arriving.rows(rows))])
    return [result.detached] + leaves.map(\.gradient)
  }
  let segments = SegmentedCase(heads: 2, keyValueHeads: 2, headDim: 8, lengths: lengths).segments
  let together = run(0..<178, segments)
  for segment in segments {
    let alone = run(segment, [0..<segment.count])
    let isSame = alone.map(\.?.array) == together.map { $0?.rows(segment).array }
    #expect(isSame)
  }
}
