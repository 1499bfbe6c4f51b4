package import LinearAlgebra
import Models

/// Rotates what flows through a model by random orthogonal matrices, so that no channel is much larger
/// than others and low-bit grids lose little, without changing what the model computes
/// (Ashkboos et al. 2024, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs").
///
/// Norms' weights move into the matrices behind them; then the residual stream is rotated as a whole:
/// what writes to it is multiplied by Q, what reads from it by Qᵀ. Values are rotated head by head,
/// which the output projection undoes. Nothing is left to do at run time, except before `down`, where
/// an activation stands: with `isOnline` its input is multiplied by a Hadamard matrix whenever it runs.
///
/// A function-preserving transform: apply it before scaling, rounding or pruning.
public struct QuaRot: Sendable, Equatable {
  /// Of every random sign.
  public var seed: UInt64 = 0
  /// Whether values are rotated within each head.
  public var rotatesValues = true
  /// Whether the input of each `down` is rotated at run time. The result then needs an engine that
  /// applies the `transform_config` of compressed-tensors.
  public var isOnline = false

  public init() {}

  func headRotation(_ block: BlockConfiguration, _ index: Int) -> Rotation {
    Rotation(
      size: block.attention.headDim, seed: seed &+ 0x9e37_79b9_7f4a_7c15 &* UInt64(index + 1))
  }
}

/// Rotations that were found for a model: of its residual stream, and of the values of each block.
package struct LearnedRotations: Sendable {
  package var residual: Rotation
  package var heads: [Rotation]
}

/// Why a model's residual stream cannot be rotated.
public enum RotationError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Reasons, and what stands in the way.
  case notPossible([String], path: String)
  case alreadyQuantized(tensor: String, path: String)
  case alreadyRotated(path: String)

  public var description: String {
    switch self {
    case .notPossible(let reasons, let path):
      "\(path) cannot be rotated: \(reasons.joined(separator: "; ")). Leave the rotate stage out."
    case .alreadyQuantized(let tensor, let path):
      "\(path): \(tensor) is quantized, and rotated weights would have to be rounded again. "
        + "Rotate the uncompressed checkpoint, then quantize."
    case .alreadyRotated(let path):
      "\(path) has transforms at run time already. Start from the checkpoint before they were made."
    }
  }
}
