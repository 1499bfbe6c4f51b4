import Codecs
import Foundation
import Models
import Quantization
import Tensors
import TestSupport
import Testing
import Training

struct TransformationTests {
  static let models: [String] = {
    let root = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures").path
    let names = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    return names.filter { !$0.hasPrefix(".") }.sorted()
  }()

  /// Whatever the factors and shifts, a transformed block computes what the block did.
  @Test(arguments: models) func nothingChangesUntilSomethingIsRounded(name: String) throws {
    let root = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures").path
    let model = try LanguageModel.load("\(root)/\(name)")
    var random = Xoshiro256(seed: 5)
    let segments = [0..<6, 6..<10]
    for index in model.blocks.indices {
      let block = model.blocks[index]
      let hidden = model.configuration.hiddenSize
      let x = Tensor((0..<10 * hidden).map { _ in Float(random.normal()) }, shape: [10, hidden])
      let context = model.context(of: segments, block: index)
      let expected = block.forward(x, context)
      let folds = EquivalentTransformation.all(of: block) { _ in true }
      let learned = folds.enumerated().map { index, fold in
        LearnedTransformation(
          fold, index: index,
          start: (
            (0..<fold.channelCount).map { _ in Float(exp(0.5 * random.normal())) },
            (0..<fold.channelCount).map { _ in Float(0.3 * random.normal()) }
          ))
      }
      // Values to outputs is possible in every architecture; gated ones have a second such pair.
      #expect(folds.count >= 1, "\(name)")
      if block.configuration.feedForward.isGated {
        #expect(folds.count >= 2)
      }
      let transformed = block.transformed(
        by: learned, dense: block.linears.map { $0.weight.dequantized() }
      ).block
      let found = transformed.forward(x, context)
      let size = expected.array.map(abs).max() ?? 1
      for at in 0..<found.count {
        #expect(abs(found.floats[at] - expected.floats[at]) < 2e-4 * max(size, 1))
      }
    }
  }

  @Test func whatCanBeFoldedFollowsTheArchitecture() throws {
    let llama = try BlockFixture()
    let folds = EquivalentTransformation.all(of: llama.block) { _ in true }
    #expect(folds.map(\.channelCount) == [32, 16, 32, 56])
    #expect(folds.allSatisfy { !$0.allowsShift })
    // Layer norms and biases take shifts; an activation without a gate stops a factor.
    let opt = try BlockFixture(keyValueHeads: 4, type: "opt")
    let others = EquivalentTransformation.all(of: opt.block) { _ in true }
    #expect(others.map(\.channelCount) == [32, 32, 32])
    #expect(others.map(\.allowsShift) == [true, true, true])
    // Nothing is learned for matrices that stay.
    #expect(EquivalentTransformation.all(of: llama.block) { $0 == 3 }.map(\.channelCount) == [16])
  }

  /// Backward rules against central differences in double.
  @Test func gradientsOfVectorsAreThoseOfTheFormulas() throws {
    var random = Xoshiro256(seed: 8)
    func numbers(_ shape: [Int], above: Double = -10) -> Tensor {
      Tensor(
        (0..<shape.reduce(1, *)).map { _ in Float(max(random.normal(), above) + 0.0) },
        shape: shape)
    }
    func check(
      _ inputs: [Tensor], _ operation: ([Tensor]) -> Tensor, _ formula: ([[Double]]) -> [Double]
    ) throws {
      let leaves = inputs.map(\.asLeaf)
      let result = operation(leaves)
      let exact = inputs.map { $0.array.map(Double.init) }
      let dy = numbers(result.shape)
      for (found, expected) in zip(result.array, formula(exact)) {
        #expect(abs(Double(found) - expected) < 1e-5 * max(1, abs(expected)))
      }
      Tape.backward([(result, dy)])
      for input in inputs.indices {
        let gradient = try #require(leaves[input].gradient)
        for at in 0..<gradient.count {
          func moved(_ step: Double) -> Double {
            var values = exact
            values[input][at] += step
            return zip(formula(values), dy.array).reduce(0) { $0 + $1.0 * Double($1.1) }
          }
          let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
          #expect(abs(Double(gradient.floats[at]) - slope) < 1e-4 * max(1, abs(slope)))
        }
      }
    }
    try check([numbers([3, 4])], { $0[0].sigmoid() }) { $0[0].map { 1 / (1 + exp(-$0)) } }
    try check([numbers([7], above: 0.5)], { $0[0].reciprocal() }) { $0[0].map { 1 / $0 } }
    let indices: [Int?] = [2, nil, 0, 2, 1, nil]
    try check([numbers([3])], { $0[0].gathered(indices, default: 5) }) { values in
      indices.map { $0.map { values[0][$0] } ?? 5 }
    }
    let matrix = numbers([5, 7])
    let w = matrix.array.map(Double.init)
    try check([numbers([5]), numbers([7])], { matrix.rescaled(rows: $0[0], columns: $0[1]) }) {
      values in (0..<35).map { w[$0] * values[0][$0 / 7] * values[1][$0 % 7] }
    }
    try check([numbers([5])], { matrix.rescaled(rows: $0[0], columns: nil) }) { values in
      (0..<35).map { w[$0] * values[0][$0 / 7] }
    }
    try check([numbers([7])], { matrix.rescaled(rows: nil, columns: $0[0]) }) { values in
      (0..<35).map { w[$0] * values[0][$0 % 7] }
    }
  }
}
