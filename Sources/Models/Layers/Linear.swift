public import Tensors

/// `y = x · Wᵀ + b`.
public struct Linear: Sendable {
  public let configuration: LinearConfiguration
  public var weight: any Weight
  /// `[out]`
  public var bias: Tensor?

  /// - Parameter x: `[tokens, in]`
  /// - Returns: `[tokens, out]`
  public func callAsFunction(_ x: Tensor) -> Tensor {
    let y = weight.multiply(x)
    guard let bias else { return y }
    return y.adding(bias: bias)
  }
}
