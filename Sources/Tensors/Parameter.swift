/// A tensor that training changes: a leaf of every computation that reads it.
///
/// Its memory is its own and is written between steps, when no computation runs: with the caches of
/// attention the one exception to tensors being constant. Models that share the tensor see the new
/// numbers without being built again.
public final class Parameter: Sendable {
  /// The tensor's name in the checkpoint.
  public let name: String
  /// float32 or bfloat16; carries the node at which gradients arrive.
  public let tensor: Tensor
  /// Whether weight decay applies: matrices, not norms or biases (as the Hugging Face trainer has it).
  public let decays: Bool
  /// Whether it is a matrix inside a block, which Muon orthogonalizes.
  public let isBlockMatrix: Bool

  /// Copies `initial` into memory of its own.
  /// - Parameter dtype: float32, or bfloat16 for half the memory.
  public init(
    name: String, initial: Tensor, dtype: DType = .float32, decays: Bool, isBlockMatrix: Bool
  ) {
    precondition(dtype == .float32 || dtype == .bfloat16)
    self.name = name
    self.decays = decays
    self.isBlockMatrix = isBlockMatrix
    let source = initial.plain
    var copy = Tensor(dtype: dtype, shape: source.shape) { bytes in
      let converted = source.converted(to: dtype)
      bytes.copyMemory(from: converted.bytes)
    }
    copy.node = GradientNode()
    tensor = copy
  }

  public var count: Int { tensor.count }
  public var shape: [Int] { tensor.shape }

  /// float32, of the parameter's shape; nil before anything has arrived.
  public var gradient: Tensor? { tensor.gradient }

  public func clearGradient() { tensor.node?.clear() }
  package func scaleGradient(by factor: Float) { tensor.node?.scale(by: factor) }
  package func replaceGradient(by gradient: Tensor) { tensor.node?.replace(by: gradient) }

  /// The parameter's memory, to be written between steps.
  package var mutableBytes: UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(mutating: tensor.rawPointer)
  }

  /// The memory of a float32 parameter.
  package var mutableFloats: UnsafeMutablePointer<Float> {
    precondition(tensor.dtype == .float32)
    return UnsafeMutablePointer(mutating: tensor.floats)
  }

  /// Writes new values in, rounded where the parameter is bfloat16.
  package func assign(_ values: Tensor) {
    precondition(values.count == count)
    let converted = values.plain.converted(to: tensor.dtype)
    mutableBytes.copyMemory(from: converted.rawPointer, byteCount: tensor.byteCount)
  }
}
