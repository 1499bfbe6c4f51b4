public import Codecs
public import Tensors

/// `y = x̂ · Wᵀ + b`, where x̂ is the input as it is, rotated, or what either is rounded to.
public struct Linear: Sendable {
  public let configuration: LinearConfiguration
  public var weight: any Weight
  /// `[out]`
  public var bias: Tensor?
  /// Applied to every input; the weight was multiplied by its inverse.
  public var inputTransform: BlockHadamard?
  /// What the input is rounded to then; nil: not at all.
  public var inputQuantizer: ActivationQuantizer?

  /// The input before it is rounded; statistics of inputs are of this.
  package func transformed(_ x: Tensor) -> Tensor { inputTransform?(x) ?? x }

  /// - Parameter x: `[tokens, in]`
  /// - Returns: `[tokens, out]`
  public func callAsFunction(_ x: Tensor) -> Tensor {
    let x = transformed(x)
    let y = inputQuantizer?.multiply(x, by: weight) ?? weight.multiply(x)
    guard let bias else { return y }
    return y.adding(bias: bias)
  }
}
