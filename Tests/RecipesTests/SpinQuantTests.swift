import Codecs
import Foundation
import LinearAlgebra
import Models
import Quantization
import Recipes
import Tensors
import TestSupport
import Testing

private let texts = [[1, 5, 60, 33, 8, 2, 17, 40], [3, 3, 59, 12, 27, 44, 6, 31]]
private let batch = (tokens: texts.flatMap { $0 }, segments: [0..<8, 8..<16])

private func logits(_ path: String) throws -> [Float] {
  let model = try LanguageModel.load(path)
  var all: [Float] = []
  try model.forEachLogits(of: texts[0]) { _, logits in
    all += UnsafeBufferPointer(start: logits.floats, count: logits.count)
  }
  return all
}

private func tiny(_ folder: String) throws -> String {
  try TinyModel(isTied: false, dtype: .float32).write(to: "\(folder)/model")
  return "\(folder)/model"
}

@Test func learnedRotationsAreOrthogonalLowerTheLossAndKeepTheFunction() throws {
  try withTemporaryDirectory { folder in
    let path = try tiny(folder)
    let model = try LanguageModel.load(path)
    let codec = try AffineGroups(
      bits: 3, granularity: .group(16), isSymmetric: true, scaleType: .float32, layout: .packed)
    var method = SpinQuant()
    (method.steps, method.learningRate) = (40, 0.5)
    var losses: [Double] = []
    let learned = try method.learn(
      model, batches: [batch], codec: { _ in codec }, onStep: { losses.append($1) })
    #expect(losses.count == 40 && (losses.suffix(5).min() ?? 9) < losses[0] - 0.02, "\(losses)")
    for rotation in [learned.residual] + learned.heads {
      let q = rotation.matrix
      let product = q.transposed().multiplied(by: q)
      for index in 0..<product.count {
        let expected: Float = index / q.rows == index % q.rows ? 1 : 0
        #expect(abs(product.floats[index] - expected) < 1e-5)
      }
    }
    try RotationRun(model: path, settings: method.start, dtype: .float32, learned: learned)
      .run(output: "\(folder)/rotated", overwrite: false)
    let (a, b) = (try logits(path), try logits("\(folder)/rotated"))
    let spread = a.map(abs).max() ?? 0
    #expect((zip(a, b).map { abs($0 - $1) }.max() ?? 1) < 1e-4 * spread)
  }
}

/// What is not rounded does not depend on rotations, so there is nothing to descend.
@Test func withoutRoundingTheLossIsTheModelsOwnAndRotationsStay() throws {
  try withTemporaryDirectory { folder in
    let model = try LanguageModel.load(try tiny(folder))
    var method = SpinQuant()
    method.steps = 3
    var losses: [Double] = []
    let learned = try method.learn(
      model, batches: [batch], codec: { _ in nil }, onStep: { losses.append($1) })
    var (sum, count) = (0.0, 0)
    for text in texts {
      try model.forEachLogits(of: text) { start, logits in
        for row in 0..<logits.rows where start + row + 1 < text.count {
          let values = (0..<logits.columns).map { Double(logits.floats[row * logits.columns + $0]) }
          let top = values.max() ?? 0
          let total = values.reduce(0) { $0 + exp($1 - top) }
          sum += top + log(total) - values[text[start + row + 1]]
          count += 1
        }
      }
    }
    for loss in losses { #expect(abs(loss - sum / Double(count)) < 1e-4) }
    let start = Rotation(size: 48, seed: 0).matrix
    let end = learned.residual.matrix
    // Only rounding errors of the derivative move it.
    #expect((0..<start.count).allSatisfy { abs(start.floats[$0] - end.floats[$0]) < 0.02 })
  }
}

@Test func layerNormsAreRefusedWhereRotationsAreLearned() throws {
  let path = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures/gpt2").path
  let model = try LanguageModel.load(path)
  #expect(throws: RotationError.self) {
    _ = try SpinQuant().learn(model, batches: [batch], codec: { _ in nil })
  }
}
