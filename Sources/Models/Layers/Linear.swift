public import Tensors

/// `y = t(x) · Wᵀ + b`, where t is what happens to the input at run time, if anything.
public struct Linear: Sendable {
  public let configuration: LinearConfiguration
  public var weight: any Weight
  /// `[out]`
  public var bias: Tensor?
  /// Applied to every input; the weight was multiplied by its inverse.
  public var inputTransform: BlockHadamard?

  /// What the weight multiplies; statistics of inputs are of this.
  package func transformed(_ x: Tensor) -> Tensor { inputTransform?(x) ?? x }

  /// - Parameter x: `[tokens, in]`
  /// - Returns: `[tokens, out]`
  public func callAsFunction(_ x: Tensor) -> Tensor {
    let y = weight.multiply(transformed(x))
    guard let bias else { return y }
    return y.adding(bias: bias)
  }
}
