import Evaluation
import Foundation
import Tensors
import Testing

/// log softmax of one row, in Double.
private func logProbabilities(_ row: [Float]) -> [Double] {
  let values = row.map(Double.init)
  let largest = values.max() ?? 0
  let sum = values.reduce(0) { $0 + exp($1 - largest) }
  return values.map { $0 - largest - log(sum) }
}

@Test(arguments: [1, 2, 7, 16, 33, 100, 257])
func divergenceAgreesWithItsDefinition(columns: Int) {
  var random = Xoshiro256(seed: UInt64(columns))
  let rows = 5
  func matrix(_ scale: Float) -> [Float] {
    (0..<rows * columns).map { _ in (Float(random.uniform()) * 2 - 1) * scale }
  }
  let model = matrix(6), baseline = matrix(6)
  let targets = (0..<rows).map { $0 * 31 % columns }
  let result = Divergence.compare(
    Tensor(model, shape: [rows, columns]), Tensor(baseline, shape: [rows, columns]),
    targets: targets)
  for row in 0..<rows {
    let range = row * columns..<(row + 1) * columns
    let q = logProbabilities(Array(model[range])), p = logProbabilities(Array(baseline[range]))
    let kl = zip(p, q).reduce(0) { $0 + exp($1.0) * ($1.0 - $1.1) }
    #expect(abs(result[row].kl - kl) < 1e-5 * max(1, kl))
    #expect(abs(result[row].nll + q[targets[row]]) < 1e-5 * max(1, -q[targets[row]]))
    #expect(abs(result[row].delta - (p[targets[row]] - q[targets[row]])) < 2e-5)
    let same = q.indices.max { q[$0] < q[$1] } == p.indices.max { p[$0] < p[$1] }
    #expect(result[row].sameTop == same)
  }
}

@Test func aModelDoesNotDivergeFromItself() {
  let logits = Tensor([0.5, -2, 80, 3, 3, 3], shape: [2, 3])
  for row in Divergence.compare(logits, logits, targets: [0, 1]) {
    #expect(row.kl == 0)
    #expect(row.delta == 0)
    #expect(row.sameTop)
  }
}
