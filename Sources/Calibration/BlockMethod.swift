package import Codecs
package import Models
package import Tensors

/// A way to compress a whole block at once, given what flows into it and what should flow out:
/// learned roundings, clippings and equivalent transformations.
package protocol BlockMethod: Sendable {
  /// For progress and reports.
  var name: String { get }
  /// Whether the targets are wanted, for which the walk carries the uncompressed stream on.
  var needsTargets: Bool { get }

  /// Tokens that pass the block while it learns, for an estimate of the time.
  ///
  /// - Parameters:
  ///   - length: of a text.
  ///   - allTokens: of all samples.
  func tokens(of length: Int, allTokens: Double) -> Double

  /// - Returns: the block with its matrices in their stored form, or changed but dense where another
  ///   method rounds them afterwards.
  func compress(_ problem: BlockProblem) throws -> BlockSolution
}

package struct BlockSolution {
  package var block: Block
  /// Per matrix that was rounded, by its module's name.
  package var errors: [String: CompressedWeight]
  /// Mean squared error of the block's outputs before and after, for the report.
  package var loss: (before: Double, after: Double)?

  package init(
    block: Block, errors: [String: CompressedWeight] = [:],
    loss: (before: Double, after: Double)? = nil
  ) {
    self.block = block
    self.errors = errors
    self.loss = loss
  }
}

/// One block and the calibration texts around it.
package struct BlockProblem {
  /// With the weights it has now.
  package let block: Block
  package let index: Int
  /// Number of batches; each is a few texts side by side.
  package let batches: Int
  package let seed: UInt64
  /// How a matrix will be stored; nil for one that stays as it is.
  package let codec: (LinearConfiguration) -> AffineGroups?
  /// What the block needs to know of a batch's texts.
  package let context: (_ batch: Int) -> Block.Context
  /// `[tokens, hidden]`: a batch's input, from the compressed blocks before.
  package let input: (_ batch: Int) throws -> Tensor
  /// `[tokens, hidden]`: what the uncompressed block makes of the uncompressed stream.
  package let target: (_ batch: Int) throws -> Tensor

  package init(
    block: Block, index: Int, batches: Int, seed: UInt64,
    codec: @escaping (LinearConfiguration) -> AffineGroups?,
    context: @escaping (Int) -> Block.Context, input: @escaping (Int) throws -> Tensor,
    target: @escaping (Int) throws -> Tensor
  ) {
    self.block = block
    self.index = index
    self.batches = batches
    self.seed = seed
    self.codec = codec
    self.context = context
    self.input = input
    self.target = target
  }
}
