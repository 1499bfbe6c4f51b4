import CKernels
import Tensors

/// Momentum, orthogonalized: every direction of a matrix moves alike (Jordan et al. 2024,
/// https://kellerjordan.github.io/posts/muon/). For matrices inside blocks; AdamW for the rest. Step
/// for step torch.optim.Muon, with float32 in the iteration where it has bfloat16.
public struct Muon: Sendable, Equatable {
  /// What multiplies the learning rate for a matrix `[A, B]`.
  public enum Scale: Sendable, Equatable {
    /// √max(1, A/B): a step of one size as an operator.
    case original
    /// 0.2 √max(A, B): the size of AdamW's steps, so that its learning rates serve (Liu et al. 2025,
    /// arXiv:2502.16982, section 2.2).
    case matchAdamW
  }

  public var learningRate: Double
  public var momentum: Double
  public var isNesterov: Bool
  public var weightDecay: Double
  public var scale: Scale
  /// For embeddings, heads, norms and biases.
  public var rest: AdamW

  public init(
    learningRate: Double = 1e-3, momentum: Double = 0.95, isNesterov: Bool = true,
    weightDecay: Double = 0.1, scale: Scale = .original, rest: AdamW = AdamW()
  ) {
    self.learningRate = learningRate
    self.momentum = momentum
    self.isNesterov = isNesterov
    self.weightDecay = weightDecay
    self.scale = scale
    self.rest = rest
  }

  static let slots = [StateSlot(name: "momentum_buffer", isSigned: true)]

  static func applies(to parameter: Parameter) -> Bool {
    parameter.isBlockMatrix && parameter.shape.count == 2
  }

  static func scratchBytes(_ parameter: Parameter) -> Int {
    let narrow = parameter.shape.min() ?? 0
    return 4 * (2 * parameter.count + 2 * narrow * narrow)
  }

  func validate() throws(TrainingError) {
    try require("Muon's learning rate", learningRate, .notNegative)
    try require("Muon's momentum", momentum, .belowOne)
    try require("Muon's weight decay", weightDecay, .notNegative)
    try rest.validate()
  }

  func scale(_ shape: [Int]) -> Double {
    let (A, B) = (Double(shape[0]), Double(shape[1]))
    return switch scale {
    case .original: max(1, A / B).squareRoot()
    case .matchAdamW: 0.2 * max(A, B).squareRoot()
    }
  }
}

/// Muon with its momenta, and AdamW for what is no matrix of a block.
final class MuonOptimizer: Optimizer {
  let parameters: [Parameter]
  private let muon: Muon
  private let states: [ParameterState]
  private let rest: ElementwiseOptimizer<AdamW>
  private let seed: UInt64

  init(_ muon: Muon, _ parameters: [Parameter], _ options: OptimizerOptions) throws(TrainingError) {
    try muon.validate()
    self.muon = muon
    self.parameters = parameters
    // Not the seed of the rest, whose parameters are counted from 0 too.
    seed = ~options.seed
    rest = try ElementwiseOptimizer(
      muon.rest, parameters.filter { !Muon.applies(to: $0) }, options)
    states = parameters.filter(Muon.applies).map {
      ParameterState(
        $0, optimizer: "muon", slots: Muon.slots,
        rates: Rates(
          $0, learningRate: muon.learningRate, weightDecay: muon.weightDecay, groups: options.groups
        ), options)
    }
  }

  func step(learningRateFactor: Double, gradientFactor: Float) {
    rest.step(learningRateFactor: learningRateFactor, gradientFactor: gradientFactor)
    let settings = pare_muon_step(
      rest: Float(1 - muon.momentum), nesterov: muon.isNesterov ? 1 : 0,
      gradient_factor: gradientFactor)
    for (index, state) in states.enumerated() {
      guard let gradient = state.parameter.gradient else { continue }
      state.countStep()
      let direction = orthogonalized(momentum(state, gradient, settings))
      let rate = state.rates.learningRate * learningRateFactor
      let decay = Float(1 - rate * state.rates.weightDecay)
      let step = Float(-rate * muon.scale(state.parameter.shape))
      let source = Unshared(direction.floats)
      let key = roundingKey(seed: seed, step: state.steps, parameter: index)
      withExtendedLifetime(direction) {
        state.updateWeights(key: key) {
          pare_scaled_add(decay, step, source.value + $0.lowerBound, $1, $0.count)
        }
      }
    }
  }

  /// Takes a gradient into the momentum.
  /// - Returns: what is to be orthogonalized
  private func momentum(_ state: ParameterState, _ gradient: Tensor, _ settings: pare_muon_step)
    -> Tensor
  {
    let source = Unshared(gradient.floats)
    return Tensor(shape: state.parameter.shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      state.updateMoment { range, momentum in
        withUnsafePointer(to: settings) {
          pare_muon_momentum(
            $0, source.value + range.lowerBound, momentum, target.value + range.lowerBound,
            range.count)
        }
      }
    }
  }

  var state: [(name: String, tensor: Tensor)] { states.flatMap(\.named) + rest.state }

  func restore(from saved: [String: Tensor]) throws(TrainingError) {
    // Of both, or of none.
    let all = state
    try Training.restore(
      all, from: saved.filter { $0.key.hasPrefix("muon.") || $0.key.hasPrefix("adamw.") },
      prefix: "")
  }
}
