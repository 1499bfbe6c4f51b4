import CKernels

/// Adam with decoupled weight decay: Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019,
/// arXiv:1711.05101, algorithm 2. Step for step torch.optim.AdamW.
public struct AdamW: Sendable, Equatable {
  public var learningRate: Double
  public var beta1: Double
  public var beta2: Double
  public var epsilon: Double
  public var weightDecay: Double

  public init(
    learningRate: Double = 1e-3, beta1: Double = 0.9, beta2: Double = 0.999,
    epsilon: Double = 1e-8, weightDecay: Double = 0.01
  ) {
    self.learningRate = learningRate
    self.beta1 = beta1
    self.beta2 = beta2
    self.epsilon = epsilon
    self.weightDecay = weightDecay
  }
}

extension AdamW: UpdateRule {
  static let name = "adamw"

  var slots: [StateSlot] {
    [StateSlot(name: "exp_avg", isSigned: true), StateSlot(name: "exp_avg_sq", isSigned: false)]
  }

  func validate() throws(TrainingError) {
    try require("AdamW's learning rate", learningRate, .notNegative)
    try require("AdamW's beta1", beta1, .belowOne)
    try require("AdamW's beta2", beta2, .belowOne)
    try require("AdamW's epsilon", epsilon, .notNegative)
    try require("AdamW's weight decay", weightDecay, .notNegative)
  }

  func kernel(_ numbers: StepNumbers) -> UpdateKernel {
    let settings = pare_adamw_step(
      decay: Float(1 - numbers.learningRate * numbers.weightDecay), beta1_rest: Float(1 - beta1),
      beta2: Float(beta2), beta2_rest: Float(1 - beta2),
      step_size: Float(numbers.learningRate / (1 - power(beta1, numbers.step))),
      correction: Float((1 - power(beta2, numbers.step)).squareRoot()), epsilon: Float(epsilon),
      gradient_factor: numbers.gradientFactor)
    return { gradient, weights, first, second, count in
      withUnsafePointer(to: settings) {
        pare_adamw($0, gradient, weights, first, second, count)
      }
    }
  }
}

/// base^exponent by squaring: the same bits on every system.
func power(_ base: Double, _ exponent: Int) -> Double {
  var (result, square, rest) = (1.0, base, exponent)
  while rest > 0 {
    if rest & 1 == 1 { result *= square }
    square *= square
    rest >>= 1
  }
  return result
}
