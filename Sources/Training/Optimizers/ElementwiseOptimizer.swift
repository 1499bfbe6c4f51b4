import Tensors

/// The numbers of one parameter's step.
struct StepNumbers {
  /// From 1.
  let step: Int
  /// With the schedule's and the group's factors.
  let learningRate: Double
  /// 0 for parameters that do not decay.
  let weightDecay: Double
  let gradientFactor: Float
}

/// Changes weights and moments of `count` elements.
typealias UpdateKernel =
  @Sendable (
    _ gradient: UnsafePointer<Float>, _ weights: UnsafeMutablePointer<Float>,
    _ first: UnsafeMutablePointer<Float>?, _ second: UnsafeMutablePointer<Float>?, _ count: Int
  ) -> Void

/// An update in which every element of a parameter stands alone.
protocol UpdateRule: Sendable {
  /// The first part of the names of its state.
  static var name: String { get }
  var learningRate: Double { get }
  var weightDecay: Double { get }
  /// At most two.
  var slots: [StateSlot] { get }
  func validate() throws(TrainingError)
  func kernel(_ numbers: StepNumbers) -> UpdateKernel
}

/// One rule applied to every parameter.
final class ElementwiseOptimizer<Rule: UpdateRule>: Optimizer {
  let parameters: [Parameter]
  private let rule: Rule
  private let states: [ParameterState]
  private let seed: UInt64

  init(_ rule: Rule, _ parameters: [Parameter], _ options: OptimizerOptions) throws(TrainingError) {
    try rule.validate()
    self.rule = rule
    self.parameters = parameters
    seed = options.seed
    states = parameters.map {
      ParameterState(
        $0, optimizer: Rule.name, slots: rule.slots,
        rates: Rates(
          $0, learningRate: rule.learningRate, weightDecay: rule.weightDecay, groups: options.groups
        ), options)
    }
  }

  func step(learningRateFactor: Double, gradientFactor: Float) {
    for (index, state) in states.enumerated() {
      guard let gradient = state.parameter.gradient else { continue }
      state.countStep()
      let kernel = rule.kernel(
        StepNumbers(
          step: state.steps, learningRate: state.rates.learningRate * learningRateFactor,
          weightDecay: state.rates.weightDecay, gradientFactor: gradientFactor))
      state.update(
        gradient: gradient.floats,
        key: roundingKey(seed: seed, step: state.steps, parameter: index), kernel)
    }
  }

  var state: [(name: String, tensor: Tensor)] { states.flatMap(\.named) }

  func restore(from saved: [String: Tensor]) throws(TrainingError) {
    try Training.restore(state, from: saved, prefix: Rule.name + ".")
  }
}
