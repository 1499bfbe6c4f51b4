import Distillation
import Foundation
import Tensors
import TestSupport
import Testing

/// Losses and gradients that PyTorch computes; see Scripts/fixtures/soft_targets.py.
struct SoftTargetGoldenTests {
  private struct Case: Decodable {
    var divergence: String
    var beta, alpha, start: Double?
    var temperature, progress, value: Double
    var student, teacher, gradient: [Double]
  }

  @Test func lossesAndGradientsAreThoseOfPyTorch() throws {
    let file = SharedFiles.packageRoot.appending(
      path: "Tests/Golden/distillation/soft-targets.json")
    let cases = try JSONDecoder().decode([Case].self, from: Data(contentsOf: file))
    #expect(cases.count == 32)
    for golden in cases {
      func row(_ values: [Double]) -> Tensor {
        Tensor(values.map { Float($0) }, shape: [1, values.count])
      }
      let divergence = try DistillationDivergence(
        named: golden.divergence, beta: golden.beta, alpha: golden.alpha, start: golden.start)
      let result = try LossOnRows(
        SoftTargetLoss(divergence, temperature: golden.temperature), student: row(golden.student),
        teacher: .logits(row(golden.teacher)), progress: golden.progress)
      #expect(abs(result.value - golden.value) < 2e-6 * max(1, golden.value), "\(divergence)")
      let scale = golden.gradient.reduce(1) { max($0, abs($1)) }
      #expect(
        largestDifference(result.gradient, golden.gradient) < 2e-6 * scale, "\(divergence)")
    }
  }
}
