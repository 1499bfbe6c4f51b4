package import Codecs
import LinearAlgebra
package import Models
import Tensors
import Training

/// Learns the rotations of `QuaRot` (Liu et al. 2024, "SpinQuant: LLM Quantization with Learned
/// Rotations", section 3): those of the residual stream, R1, and of each block's values, R2, that make
/// the loss of the model with rounded matrices least.
///
/// Rotations move on the orthogonal matrices by Cayley steps (Li et al. 2020, "Efficient Riemannian
/// Optimization on the Stiefel Manifold via the Cayley Transform", algorithm 1, without momentum).
/// Rounding passes gradients on as they come. The whole model is in memory in float32; ask
/// `memoryBytes` first.
public struct SpinQuant: Sendable {
  /// Where learning starts, and what else is rotated.
  public var start = QuaRot()
  public var steps = 100
  /// Falls linearly to zero.
  public var learningRate: Float = 1.5

  public init() {}

  /// What learning takes besides the checkpoint's own pages.
  /// - Parameter tokens: of a batch.
  package static func memoryBytes(_ model: ModelConfiguration, tokens: Int) -> Int {
    let matrices = model.blocks.flatMap(\.linears).reduce(0) { $0 + $1.outputs * $1.inputs }
    let widths = model.blocks.flatMap(\.linears).reduce(0) { $0 + $1.outputs + $1.inputs }
    // Folded, rotated, turned and rounded, with gradients of the last three; activations and theirs.
    return 4 * (7 * matrices + 3 * tokens * widths + 8 * model.hiddenSize * model.hiddenSize)
  }

  /// - Parameters:
  ///   - model: uncompressed, of a structure that `ModelRotation` accepts, with RMS norms.
  ///   - batches: texts side by side; taken in turn.
  ///   - codec: how a matrix will be rounded; nil for one that stays.
  ///   - onStep: told the loss per token before each step.
  /// - Throws: `RotationError`, `ModelError`, `CompressionError`.
  package func learn(
    _ model: LanguageModel, batches: [(tokens: [Int], segments: [Range<Int>])],
    codec: (LinearConfiguration) -> AffineGroups?,
    onStep: (_ step: Int, _ loss: Double) throws -> Void = { _, _ in }
  ) throws -> LearnedRotations {
    precondition(!batches.isEmpty)
    let path = model.checkpoint.path
    // Says what the structure does not permit.
    _ = try ModelRotation(
      start, model.configuration, path: path,
      vector: { name in
        let values = try model.checkpoint.tensor(model.storedName(name)).widened()
        return Array(UnsafeBufferPointer(start: values.floats, count: values.count))
      })
    let network = try RotatedNetwork(model, codec: codec)
    var residual = Rotation(size: model.configuration.hiddenSize, seed: start.seed).matrix
    var heads = model.blocks.enumerated().map {
      start.headRotation($0.element.configuration, $0.offset).matrix
    }
    for step in 0..<steps {
      let batch = batches[step % batches.count]
      let leaves = (residual: residual.asLeaf, heads: heads.map(\.asLeaf))
      let loss = try network.loss(
        batch.tokens, batch.segments, residual: leaves.residual,
        heads: start.rotatesValues ? leaves.heads : nil)
      try onStep(step, loss)
      let rate = learningRate * Float(steps - step) / Float(steps)
      if let gradient = leaves.residual.gradient {
        residual = CayleyStep.descend(residual, gradient, rate: rate)
      }
      for (index, leaf) in leaves.heads.enumerated() {
        guard let gradient = leaf.gradient else { continue }
        heads[index] = CayleyStep.descend(heads[index], gradient, rate: rate)
      }
    }
    return LearnedRotations(
      residual: Rotation(matrix: CayleyStep.orthogonal(residual)),
      heads: heads.map { Rotation(matrix: CayleyStep.orthogonal($0)) })
  }
}

extension LanguageModel {
  /// The name of a declared tensor in the checkpoint, which may lack the base prefix.
  fileprivate func storedName(_ name: String) -> String {
    checkpoint.contains(name) || !name.hasPrefix(configuration.basePrefix)
      ? name : String(name.dropFirst(configuration.basePrefix.count))
  }
}

/// Descent on orthogonal matrices.
enum CayleyStep {
  /// `X` moved against the gradient along the curve `(I + αW/2)⁻¹ (I - αW/2) X`, found by iterating
  /// `Y = X - α/2 · W (X + Y)`. α is the rate, or less where that would not converge.
  static func descend(_ x: Tensor, _ gradient: Tensor, rate: Float) -> Tensor {
    let g = gradient.detached
    let xt = x.transposed()
    let gx = g.multiplied(by: xt)
    let half = x.multiplied(by: xt.multiplied(by: gx)).scaled(by: 0.5)
    let free = gx - half
    let w = free - free.transposed()
    let alpha = min(rate, 1 / (norm(w) + 1e-8))
    var y = x - w.multiplied(by: x).scaled(by: alpha)
    for _ in 0..<5 { y = x - w.multiplied(by: x + y).scaled(by: alpha / 2) }
    return y
  }

  /// The nearest orthogonal matrix, for one that is nearly so (Newton and Schulz).
  static func orthogonal(_ x: Tensor) -> Tensor {
    var x = x
    for _ in 0..<6 {
      let square = x.transposed().multiplied(by: x)
      x = x.scaled(by: 1.5) - x.multiplied(by: square).scaled(by: 0.5)
    }
    return x
  }

  /// The largest sum of magnitudes of a row, which bounds the largest singular value.
  private static func norm(_ x: Tensor) -> Float {
    (0..<x.rows).reduce(0) { largest, row in
      max(largest, (0..<x.columns).reduce(0) { $0 + abs(x.floats[row * x.columns + $1]) })
    }
  }
}
