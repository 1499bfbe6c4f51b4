import Distillation
import Foundation
import Tensors
import Testing

/// Scores of a head's row over the tokens that it sees, as attention has them before its softmax.
func attentionScores(_ pass: DoublePass, layer: Int, head: Int, row: Int, seen: Range<Int>)
  -> [Double]
{
  let dim = pass.attention[layer][0][0].count / pass.heads
  let shared = head / (pass.heads / pass.keyValueHeads)
  let query = pass.attention[layer][0][row][head * dim..<(head + 1) * dim]
  let scale = pass.mask.map { Double($0.scale) } ?? Double(1 / Float(dim).squareRoot())
  return seen.map { key in
    var score =
      dot(query, pass.attention[layer][1][key][shared * dim..<(shared + 1) * dim]) * scale
    if let cap = pass.mask?.softCap { score = Double(cap) * tanh(score / Double(cap)) }
    if let slope = pass.mask?.alibiSlopes?[head] { score += Double(slope) * Double(key - row) }
    return score
  }
}

/// The tokens up to a row's own in its text, at most `window`.
func tokensSeen(_ row: Int, window: Int? = nil) -> Range<Int> {
  let text = texts.first { $0.contains(row) } ?? 0..<0
  return max(text.lowerBound, window.map { row + 1 - $0 } ?? 0)..<(row + 1)
}

struct AttentionMapTests {
  private func pass(
    layers: Int, heads: Int, keyValueHeads: Int, headDim: Int, mask: AttentionMask? = nil,
    seed: UInt64
  ) -> DoublePass {
    .random(
      layers: layers, tokens: 13, width: 2, heads: heads, keyValueHeads: keyValueHeads,
      headDim: headDim, mask: mask, seed: seed)
  }

  private func compared(
    _ measure: AttentionMapLoss.Measure, _ scores: [Double], _ target: [Double]
  ) -> Double {
    func meanSquare(_ a: [Double], _ b: [Double]) -> Double {
      zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / Double(a.count)
    }
    return switch measure {
    case .scores: meanSquare(scores, target)
    case .probabilities: meanSquare(softmax(scores), softmax(target))
    case .divergence: divergence(softmax(target), softmax(scores))
    }
  }

  @Test(arguments: AttentionMapLoss.Measure.allCases)
  func mapsAreComparedHeadByHead(_ measure: AttentionMapLoss.Measure) throws {
    let student = pass(layers: 1, heads: 4, keyValueHeads: 2, headDim: 3, seed: 1)
    let teacher = pass(layers: 2, heads: 4, keyValueHeads: 4, headDim: 2, seed: 2)
    let loss = try AttentionMapLoss(
      .init(measure: measure), student: student.shape, teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, _ in
      weightedMean(textWeights) { row in
        let seen = tokensSeen(row)
        return (0..<4).reduce(0.0) { sum, head in
          sum
            + compared(
              measure, attentionScores(student, layer: 0, head: head, row: row, seen: seen),
              attentionScores(teacher, layer: 1, head: head, row: row, seen: seen)) / 4
        }
      }
    }
  }

  @Test func masksOfTheModelsShapeTheirMaps() throws {
    let student = pass(
      layers: 1, heads: 2, keyValueHeads: 1, headDim: 3,
      mask: AttentionMask(softCap: 1.5, scale: 0.4), seed: 3)
    let teacher = pass(
      layers: 1, heads: 2, keyValueHeads: 2, headDim: 3,
      mask: AttentionMask(slidingWindow: 3, alibiSlopes: [0.5, 0.25], scale: 0.7), seed: 4)
    let loss = try AttentionMapLoss(
      .mobileBERT, student: student.shape, teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, _ in
      weightedMean(textWeights) { row in
        let seen = tokensSeen(row, window: 3)
        return (0..<2).reduce(0.0) { sum, head in
          sum
            + compared(
              .divergence, attentionScores(student, layer: 0, head: head, row: row, seen: seen),
              attentionScores(teacher, layer: 0, head: head, row: row, seen: seen)) / 2
        }
      }
    }
  }

  @Test(arguments: AttentionMapLoss.Measure.allCases)
  func differentNumbersOfHeadsAreAveragedOrRefused(_ measure: AttentionMapLoss.Measure) throws {
    let student = pass(layers: 1, heads: 3, keyValueHeads: 1, headDim: 2, seed: 5)
    let teacher = pass(layers: 1, heads: 2, keyValueHeads: 2, headDim: 3, seed: 6)
    let refused = try AttentionMapLoss(
      .init(measure: measure), student: student.shape, teacher: teacher.shape)
    let error = #expect(throws: DistillationError.self) {
      try refused.value(
        student: student.states, teacher: teacher.states, segments: texts, weights: textWeights)
    }
    #expect(
      error?.description
        == "attention compares heads one by one, but the student has 3 and the teacher 2. "
        + "Average over heads, or use MiniLM v2, whose relation heads are free.")
    let loss = try AttentionMapLoss(
      .init(measure: measure, heads: .averaged), student: student.shape, teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, _ in
      weightedMean(textWeights) { row in
        let seen = tokensSeen(row)
        func mean(_ pass: DoublePass) -> [Double] {
          let maps = (0..<pass.heads).map { head in
            let scores = attentionScores(pass, layer: 0, head: head, row: row, seen: seen)
            return measure == .scores ? scores : softmax(scores)
          }
          return seen.indices.map { $0 - seen.lowerBound }.map { j in
            maps.reduce(0) { $0 + $1[j] } / Double(maps.count)
          }
        }
        let (a, b) = (mean(student), mean(teacher))
        if measure == .divergence { return divergence(b, a) }
        return zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / Double(a.count)
      }
    }
  }
}
