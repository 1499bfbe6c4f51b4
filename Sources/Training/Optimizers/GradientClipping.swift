import CKernels
public import Tensors

/// Bounds on gradients before a step.
public enum GradientClipping {
  /// The norm of all gradients taken as one vector: squares are summed in double, in an order that
  /// sizes alone decide.
  ///
  /// - Throws: `gradientNotFinite` with the first parameter whose gradient holds NaN or an infinity.
  public static func globalNorm(_ parameters: [Parameter]) throws(TrainingError) -> Double {
    var total = 0.0
    for parameter in parameters {
      guard let gradient = parameter.gradient else { continue }
      let sum = sumOfSquares(gradient)
      // Squares of float32 numbers cannot overflow double, however many.
      guard sum.isFinite else { throw .gradientNotFinite(parameter: parameter.name) }
      total += sum
    }
    return total.squareRoot()
  }

  /// What gradients must be multiplied with so that their norm is at most `limit`, as
  /// torch.nn.utils.clip_grad_norm_ does: limit / (norm + 1e-6), at most 1. `Optimizer.step` takes it.
  public static func factor(norm: Double, limit: Double) -> Float {
    Float(min(1, limit / (norm + 1e-6)))
  }

  /// Multiplies every gradient so that the norm of all is at most `limit`.
  ///
  /// - Returns: the norm before.
  /// - Throws: `gradientNotFinite`, and then no gradient has changed.
  @discardableResult
  public static func clip(_ parameters: [Parameter], norm limit: Double) throws(TrainingError)
    -> Double
  {
    try require("the gradient norm's limit", limit, .positive)
    let norm = try globalNorm(parameters)
    let factor = factor(norm: norm, limit: limit)
    if factor < 1 {
      for parameter in parameters { parameter.scaleGradient(by: factor) }
    }
    return norm
  }

  /// Moves every number of every gradient into -limit ... limit.
  ///
  /// - Returns: the norm of all before.
  /// - Throws: `gradientNotFinite`, and then no gradient has changed.
  @discardableResult
  public static func clip(_ parameters: [Parameter], value limit: Double) throws(TrainingError)
    -> Double
  {
    try require("the gradient values' limit", limit, .positive)
    let norm = try globalNorm(parameters)
    for parameter in parameters {
      guard let gradient = parameter.gradient else { continue }
      let source = Unshared(gradient.floats)
      parameter.replaceGradient(
        by: Tensor(shape: gradient.shape) { target in
          guard let base = target.baseAddress else { return }
          let target = Unshared(base)
          Parallel.ranges(gradient.count, of: StoredNumbers.pieceSize) {
            let first = $0.lowerBound
            pare_clamp(source.value + first, Float(limit), target.value + first, $0.count)
          }
        })
    }
    return norm
  }
}
