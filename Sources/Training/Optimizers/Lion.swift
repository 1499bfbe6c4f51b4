import CKernels

/// Steps of one size in the direction of a mixed momentum's sign, with decoupled decay: Chen et al.
/// 2023, arXiv:2302.06675, algorithm 2. Learning rates are three to ten times smaller than AdamW's.
public struct Lion: Sendable, Equatable {
  public var learningRate: Double
  /// Mixes momentum and gradient for the step.
  public var beta1: Double
  /// Mixes them for the next momentum.
  public var beta2: Double
  public var weightDecay: Double

  public init(
    learningRate: Double = 1e-4, beta1: Double = 0.9, beta2: Double = 0.99, weightDecay: Double = 0
  ) {
    self.learningRate = learningRate
    self.beta1 = beta1
    self.beta2 = beta2
    self.weightDecay = weightDecay
  }
}

extension Lion: UpdateRule {
  static let name = "lion"

  var slots: [StateSlot] { [StateSlot(name: "exp_avg", isSigned: true)] }

  func validate() throws(TrainingError) {
    try require("Lion's learning rate", learningRate, .notNegative)
    try require("Lion's beta1", beta1, .belowOne)
    try require("Lion's beta2", beta2, .belowOne)
    try require("Lion's weight decay", weightDecay, .notNegative)
  }

  func kernel(_ numbers: StepNumbers) -> UpdateKernel {
    let settings = pare_lion_step(
      rate: Float(numbers.learningRate),
      decay: Float(1 - numbers.learningRate * numbers.weightDecay), beta1: Float(beta1),
      beta1_rest: Float(1 - beta1), beta2: Float(beta2), beta2_rest: Float(1 - beta2),
      gradient_factor: numbers.gradientFactor)
    return { gradient, weights, first, _, count in
      withUnsafePointer(to: settings) { pare_lion($0, gradient, weights, first, count) }
    }
  }
}
