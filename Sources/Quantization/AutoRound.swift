import CKernels
package import Calibration
import Codecs
import Tensors
import Training

/// Learns how to round the matrices of a block: up or down, and where their grids end.
/// Cheng et al. 2023 (SignRound), arXiv:2309.05516, algorithm 1.
///
///     s = (α max W − β min W) / (2^bits − 1)        W̃ = s · clip(⌊W / s + zp + V⌉)
///
/// V in [-½, ½] has an element for each weight, α and β in [0, 1] one for each group; all move by a
/// fixed step against the sign of the gradient of the block's squared output error. The step falls
/// from `1 / iterations` to 0, so that V can just reach every rounding. The iterate with the least
/// loss is kept; of that one, the last and plain rounding the one that is best on all of the
/// calibration set is the result, so the learned block is never worse there than the rounded one.
package struct AutoRound: BlockMethod, Hashable {
  package var iterations = 200
  /// The first step; nil for `1 / iterations`.
  package var learningRate: Double?
  /// Texts that a step looks at, at least; batches are not cut.
  package var textsPerStep = 8
  /// Whether α and β learn too, or V alone.
  package var learnsClipping = true

  package init() {}

  package var name: String { "roundings" }
  package var needsTargets: Bool { true }

  package func tokens(of length: Int, allTokens: Double) -> Double {
    min(Double(iterations * textsPerStep * length), Double(iterations) * allTokens)
  }

  package func compress(_ problem: BlockProblem) throws -> BlockSolution {
    try validate()
    let matrices = try BlockMatrix.all(of: problem)
    guard !matrices.isEmpty else { return BlockSolution(block: problem.block) }
    let learned = matrices.map(LearnedRounding.init)
    let found = try BlockReconstruction(problem: problem).search(
      iterations, textsPerStep: textsPerStep, matrices
    ) {
      learned.map(\.weight)
    } step: { remaining in
      let step = Float((learningRate ?? 1 / Double(iterations)) * remaining)
      for rounding in learned { rounding.step(step, learnsClipping: learnsClipping) }
    }
    let (block, errors) = try problem.block.with(found.weights, for: matrices)
      .settled(matrices, originals: matrices.map(\.dense))
    return BlockSolution(block: block, errors: errors, loss: found.loss)
  }

  private func validate() throws(CompressionError) {
    guard iterations >= 0, textsPerStep > 0, learningRate.map({ $0 > 0 && $0 <= 1 }) ?? true else {
      throw .unsupportedSetting(
        "learned rounding with \(iterations) iterations of \(textsPerStep) texts and learning rate "
          + "\(learningRate.map { "\($0)" } ?? "1 / iterations") is not possible; choose 0 or more "
          + "iterations, at least one text and a rate above 0, at most 1.")
    }
  }
}

/// What is learned about one matrix.
struct LearnedRounding {
  let matrix: BlockMatrix
  /// Ends of the groups' ranges.
  let lower, upper: Tensor
  /// V, α (of the upper end) and β (of the lower).
  let offsets, alpha, beta: Parameter

  init(_ matrix: BlockMatrix) {
    self.matrix = matrix
    (lower, upper) = matrix.codec.ranges(of: matrix.dense)
    func parameter(_ name: String, _ shape: [Int], _ value: Float) -> Parameter {
      Parameter(
        name: "\(matrix.name).\(name)",
        initial: Tensor(shape: shape) { $0.initialize(repeating: value) }, decays: false,
        isBlockMatrix: false)
    }
    offsets = parameter("offset", matrix.dense.shape, 0)
    alpha = parameter("alpha", upper.shape, 1)
    beta = parameter("beta", lower.shape, 1)
  }

  /// Rounded as the parameters say now.
  var weight: FakeQuantizedWeight {
    FakeQuantizedWeight(
      matrix.dense, codec: matrix.codec, lower: lower.multiplied(elementwise: beta.tensor),
      upper: upper.multiplied(elementwise: alpha.tensor), offsets: offsets.tensor)
  }

  /// A step against the sign of what has arrived, which is then forgotten.
  func step(_ rate: Float, learnsClipping: Bool) {
    offsets.signStep(rate, within: -0.5...0.5)
    if learnsClipping {
      alpha.signStep(rate, within: 0...1)
      beta.signStep(rate, within: 0...1)
    }
    for parameter in [offsets, alpha, beta] { parameter.clearGradient() }
  }
}

extension Parameter {
  fileprivate func signStep(_ rate: Float, within range: ClosedRange<Float>) {
    guard let gradient else { return }
    let pointers = Unshared((gradient.floats, mutableFloats))
    Parallel.ranges(count, of: 1 << 15) { part in
      let (source, target) = pointers.value
      pare_sign_step(
        source + part.lowerBound, rate, range.lowerBound, range.upperBound,
        target + part.lowerBound, part.count)
    }
  }
}
