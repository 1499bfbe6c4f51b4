package import Calibration
import Codecs
import Models
import Tensors
import Training

/// Learns where the grids of a block's matrices end, and by what factors (and shifts) the channels
/// between its matrices are scaled before anything is rounded.
/// Shao et al. 2023, arXiv:2308.13137.
///
///     learnable weight clipping            upper = σ(γ) max W′    lower = σ(β) min W′    for each group
///     learnable equivalent transformation  W′ = diag(1 / s′) · W · diag(s),  b′ = (b + W δ − δ′) / s′
///
/// s, δ belong to a matrix's input, s′, δ′ to the input that its output becomes; they fold into norms and
/// matrices, so the stored block needs nothing more to run. AdamW without decay minimizes the squared
/// error of the block's outputs, one batch a step. After each epoch the block is compared on all of the
/// calibration set; the best one, plain rounding included, is the result.
///
/// Transformed are the inputs that `BlockStructure.feeds` calls foldable: norm to query, key and value;
/// norm to gate and up; value to output; up to down. Queries and keys are not scaled against each
/// other: with rotary positions few such factors commute.
package struct OmniQuant: BlockMethod, Hashable {
  package var epochs = 20
  /// Of γ and β, and of s and δ (section 4.1).
  package var clippingRate = 5e-3
  package var transformationRate = 1e-2
  package var learnsClipping = true
  package var learnsTransformation = true
  /// α of SmoothQuant's `s = max|x|^α / max|w|^(1-α)`, with the middle of each channel's range as δ: one
  /// of two starts of the transformation; the other, none, is taken where it leaves a smaller error.
  package var migration = 0.5
  /// Texts that a step looks at, at least; batches are not cut.
  package var textsPerStep = 1
  /// Bits of each token's inputs to the rounded matrices while the block learns; nil: not rounded.
  /// The block that is returned rounds weights only.
  package var activationBits: Int?

  package init() {}

  package var name: String { "clippings and factors" }
  package var needsTargets: Bool { true }

  package func tokens(of length: Int, allTokens: Double) -> Double { Double(epochs) * allTokens }

  package func compress(_ problem: BlockProblem) throws -> BlockSolution {
    try validate()
    let matrices = try BlockMatrix.all(of: problem)
    guard !matrices.isEmpty else { return BlockSolution(block: problem.block) }
    let reconstruction = BlockReconstruction(problem: problem)
    let folds =
      learnsTransformation
      ? EquivalentTransformation.all(of: problem.block) { index in
        matrices.contains { $0.index == index }
      } : []
    let untouched = LearnedBlock(problem.block, matrices, activationBits: activationBits)
    let plain = untouched.candidate(clips: false)
    let before = try reconstruction.error(of: plain.block)
    var best = (error: before, candidate: plain)
    func consider(_ candidate: LearnedBlock.Candidate) throws -> Double {
      let error = try reconstruction.error(of: candidate.block)
      if error < best.error { best = (error, candidate) }
      return error
    }

    var learned = LearnedBlock(
      problem.block, matrices, activationBits: activationBits,
      folds.enumerated().map { LearnedTransformation($1, index: $0, start: nil) })
    if problem.batches > 0, !folds.isEmpty {
      let starts = try SmoothingStart(problem, folds, migration: Float(migration)).starts
      let smoothed = LearnedBlock(
        problem.block, matrices, activationBits: activationBits,
        folds.enumerated().map { LearnedTransformation($1, index: $0, start: starts[$0]) })
      let (one, other) = (
        try consider(smoothed.candidate(clips: learnsClipping)),
        try consider(learned.candidate(clips: learnsClipping))
      )
      if one < other { learned = smoothed }
    }
    try learn(learned, reconstruction) {
      _ = try consider(learned.candidate(clips: learnsClipping))
    }

    let (block, errors) = try best.candidate.block
      .settled(matrices, originals: best.candidate.originals)
    return BlockSolution(
      block: block.keepingTypes(of: problem.block, rounded: matrices.map(\.index)), errors: errors,
      loss: (before, best.error))
  }

  private func learn(
    _ learned: LearnedBlock, _ reconstruction: BlockReconstruction, afterEpoch: () throws -> Void
  ) throws {
    let problem = reconstruction.problem
    let transformations = learned.transformations.flatMap(\.parameters)
    func optimizer(_ parameters: [Parameter], _ rate: Double) throws -> any Optimizer {
      try OptimizerChoice.adamW(AdamW(learningRate: rate, weightDecay: 0))
        .makeOptimizer(for: parameters)
    }
    let optimizers = [
      try optimizer(learnsClipping ? learned.clippings : [], clippingRate),
      try optimizer(transformations, transformationRate),
    ]
    guard optimizers.contains(where: { !$0.parameters.isEmpty }), problem.batches > 0 else {
      return
    }
    let texts = (0..<problem.batches).map(reconstruction.texts)
    var order = BatchOrder(problem, texts: texts)
    for _ in 0..<epochs {
      var seen = 0
      while seen < problem.batches {
        let batches = order.next(texts: textsPerStep)
        seen += batches.count
        _ = try reconstruction.learn(learned.rounded(clips: learnsClipping).block, on: batches)
        for optimizer in optimizers { optimizer.step() }
        for transformation in learned.transformations { transformation.truncate() }
        for parameter in learned.clippings + transformations { parameter.clearGradient() }
      }
      try afterEpoch()
    }
  }

  private func validate() throws(CompressionError) {
    guard epochs >= 0, textsPerStep > 0, clippingRate >= 0, clippingRate.isFinite,
      transformationRate >= 0, transformationRate.isFinite, (0...1).contains(migration),
      activationBits.map({ (2...16).contains($0) }) ?? true
    else {
      throw .unsupportedSetting(
        "OmniQuant with \(epochs) epochs, \(textsPerStep) texts a step, rates \(clippingRate) and "
          + "\(transformationRate), migration \(migration) and activations of "
          + "\(activationBits.map { "\($0)" } ?? "all") bits is not possible; choose 0 or more "
          + "epochs, at least one text, rates not below 0, a migration from 0 to 1 and 2 to 16 bits."
      )
    }
  }
}

/// A block's matrices with what OmniQuant learns about them.
struct LearnedBlock {
  /// A block as it would be stored, and what its rounded matrices were before they were rounded.
  struct Candidate {
    var block: Block
    var originals: [Tensor]
  }

  let block: Block
  let matrices: [BlockMatrix]
  let transformations: [LearnedTransformation]
  /// γ and β of each matrix, in turn.
  let clippings: [Parameter]
  let activationBits: Int?
  private let dense: [Tensor]

  init(
    _ block: Block, _ matrices: [BlockMatrix], activationBits: Int?,
    _ transformations: [LearnedTransformation] = []
  ) {
    self.block = block
    self.matrices = matrices
    self.activationBits = activationBits
    self.transformations = transformations
    dense = block.linears.enumerated().map { index, linear in
      matrices.first { $0.index == index }?.dense ?? linear.weight.dequantized()
    }
    clippings = matrices.flatMap { matrix in
      let shape = matrix.codec.scaleShape(
        outputs: matrix.dense.rows, inputs: matrix.dense.columns)
      return ["gamma", "beta"].map { name in
        // σ(4) = 0.98: nearly nothing is clipped at first.
        Parameter(
          name: "\(matrix.name).\(name)",
          initial: Tensor(shape: shape) { $0.initialize(repeating: 4) }, decays: false,
          isBlockMatrix: false)
      }
    }
  }

  /// - Parameter clips: whether ranges are multiplied by σ(γ) and σ(β).
  /// - Returns: the block with rounded matrices, and those before rounding.
  func rounded(clips: Bool) -> (block: Block, originals: [Tensor]) {
    let (transformed, all) = block.transformed(by: transformations, dense: dense)
    let originals = matrices.map { all[$0.index] }
    let weights = matrices.indices.map { index in
      let codec = matrices[index].codec
      var (lower, upper) = codec.ranges(of: originals[index])
      if clips {
        upper = upper.multiplied(elementwise: clippings[2 * index].tensor.sigmoid())
        lower = lower.multiplied(elementwise: clippings[2 * index + 1].tensor.sigmoid())
      }
      return FakeQuantizedWeight(
        originals[index], codec: codec, lower: lower, upper: upper, activationBits: activationBits)
    }
    return (transformed.with(weights, for: matrices), originals)
  }

  func candidate(clips: Bool) -> Candidate {
    let (block, originals) = rounded(clips: clips)
    return Candidate(
      block: block.mappingTensors(\.detached), originals: originals.map(\.detached))
  }
}
