public import Codecs
public import Tensors

/// `y = x̂ · Wᵀ + b`, where x̂ is the input, or what it is rounded to.
public struct Linear: Sendable {
  public let configuration: LinearConfiguration
  public var weight: any Weight
  /// `[out]`
  public var bias: Tensor?
  /// What happens to the input first; nil: nothing.
  public var inputQuantizer: ActivationQuantizer?

  /// - Parameter x: `[tokens, in]`
  /// - Returns: `[tokens, out]`
  public func callAsFunction(_ x: Tensor) -> Tensor {
    let y = inputQuantizer?.multiply(x, by: weight) ?? weight.multiply(x)
    guard let bias else { return y }
    return y.adding(bias: bias)
  }
}
