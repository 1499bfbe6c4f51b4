package import Calibration
import Codecs
import Tensors
import Training

/// Layer-by-layer distillation: a block's weights are trained so that, rounded in groups and fed with
/// activations rounded token by token, it gives what the uncompressed block gave.
/// Yao et al. 2022, arXiv:2206.01861, sections 4.1 and 4.3.
///
///     W ← W − Adam(d ‖L̂(x; ⌊W⌉) − L(x)‖² / dW)
///
/// where a gradient passes roundings unchanged and each step rounds to the grids of the weights' ranges
/// at that step. No other layer, label or optimizer state is in memory. Of the iterate with the least
/// loss, the last and plain rounding the best on all of the calibration set is the result.
package struct ZeroQuant: BlockMethod, Hashable {
  package var iterations = 200
  /// Adam's, falling linearly to 0. The paper's 5e-6 is for runs of thousands of steps.
  package var learningRate = 1e-4
  /// Texts that a step looks at, at least; batches are not cut.
  package var textsPerStep = 8
  /// Bits of each token's inputs to the rounded matrices while the weights learn; nil: not rounded.
  /// The block that is returned rounds weights only.
  package var activationBits: Int? = 8

  package init() {}

  package var name: String { "weights" }
  package var needsTargets: Bool { true }

  package func tokens(of length: Int, allTokens: Double) -> Double {
    min(Double(iterations * textsPerStep * length), Double(iterations) * allTokens)
  }

  package func compress(_ problem: BlockProblem) throws -> BlockSolution {
    try validate()
    let matrices = try BlockMatrix.all(of: problem)
    guard !matrices.isEmpty else { return BlockSolution(block: problem.block) }
    let parameters = matrices.map {
      Parameter(name: $0.name, initial: $0.dense, decays: false, isBlockMatrix: true)
    }
    let optimizer = try OptimizerChoice.adamW(AdamW(learningRate: learningRate, weightDecay: 0))
      .makeOptimizer(for: parameters)
    let found = try BlockReconstruction(problem: problem).search(
      iterations, textsPerStep: textsPerStep, matrices
    ) {
      zip(matrices, parameters).map { matrix, parameter in
        let (lower, upper) = matrix.codec.ranges(of: parameter.tensor)
        return FakeQuantizedWeight(
          parameter.tensor, codec: matrix.codec, lower: lower, upper: upper,
          activationBits: activationBits)
      }
    } step: { remaining in
      optimizer.step(learningRateFactor: remaining)
      for parameter in parameters { parameter.clearGradient() }
    }
    let (block, errors) = try problem.block.with(found.weights, for: matrices)
      .settled(matrices, originals: matrices.map(\.dense))
    return BlockSolution(block: block, errors: errors, loss: found.loss)
  }

  private func validate() throws(CompressionError) {
    guard iterations >= 0, textsPerStep > 0, learningRate > 0, learningRate.isFinite,
      activationBits.map({ (2...16).contains($0) }) ?? true
    else {
      throw .unsupportedSetting(
        "layer-by-layer distillation with \(iterations) iterations of \(textsPerStep) texts, learning "
          + "rate \(learningRate) and activations of \(activationBits.map { "\($0)" } ?? "all") bits "
          + "is not possible; choose 0 or more iterations, at least one text, a rate above 0 and 2 to "
          + "16 bits.")
    }
  }
}
