import CKernels

/// Stochastic gradient descent with momentum, as torch.optim.SGD has it (Sutskever et al. 2013): the
/// decay is part of the gradient, the first gradient starts the buffer undamped.
public struct SGD: Sendable, Equatable {
  public var learningRate: Double
  /// 0 keeps no state.
  public var momentum: Double
  public var dampening: Double
  public var isNesterov: Bool
  public var weightDecay: Double

  public init(
    learningRate: Double = 1e-3, momentum: Double = 0.9, dampening: Double = 0,
    isNesterov: Bool = false, weightDecay: Double = 0
  ) {
    self.learningRate = learningRate
    self.momentum = momentum
    self.dampening = dampening
    self.isNesterov = isNesterov
    self.weightDecay = weightDecay
  }
}

extension SGD: UpdateRule {
  static let name = "sgd"

  var slots: [StateSlot] {
    momentum == 0 ? [] : [StateSlot(name: "momentum_buffer", isSigned: true)]
  }

  func validate() throws(TrainingError) {
    try require("SGD's learning rate", learningRate, .notNegative)
    try require("SGD's momentum", momentum, .belowOne)
    try require("SGD's dampening", dampening, .belowOne)
    try require("SGD's weight decay", weightDecay, .notNegative)
    if isNesterov, momentum == 0 || dampening != 0 {
      throw .badSetting(
        "SGD's Nesterov momentum", value: "on", expected: "off without momentum or with dampening")
    }
  }

  func kernel(_ numbers: StepNumbers) -> UpdateKernel {
    let settings = pare_sgd_step(
      rate: Float(numbers.learningRate), decay: Float(numbers.weightDecay),
      momentum: Float(momentum), arriving: numbers.step == 1 ? 1 : Float(1 - dampening),
      nesterov: isNesterov ? 1 : 0, gradient_factor: numbers.gradientFactor)
    return { gradient, weights, first, _, count in
      withUnsafePointer(to: settings) { pare_sgd($0, gradient, weights, first, count) }
    }
  }
}
