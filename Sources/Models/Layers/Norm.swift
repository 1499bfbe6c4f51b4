public import Tensors

/// Root-mean-square or layer normalization over the last dimension.
public struct Norm: Sendable {
  public let configuration: NormConfiguration
  /// `[width]`
  public var weight: Tensor?
  public var bias: Tensor?

  /// - Parameter x: `[rows, width]`, or rows that hold a whole number of `width`-wide vectors, each
  ///   normalized by itself (the per-head norms of Qwen 3).
  public func callAsFunction(_ x: Tensor) -> Tensor {
    let vectors = x.reshaped([x.count / configuration.width, configuration.width])
    let y =
      switch configuration.kind {
      case .rootMeanSquare(let offset):
        vectors.rmsNormalized(weight: weight, epsilon: configuration.epsilon, offset: offset)
      case .layer:
        vectors.layerNormalized(weight: weight, bias: bias, epsilon: configuration.epsilon)
      }
    return y.reshaped(x.shape)
  }
}
