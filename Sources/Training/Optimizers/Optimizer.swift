public import Tensors

/// What changes parameters by their gradients, one step at a time.
///
/// The numbers of a step depend on the parameters, their gradients and the state alone, never on the
/// number of threads: a state that is saved and restored continues bit for bit.
public protocol Optimizer: AnyObject {
  /// In the order given; those without a gradient are left alone by a step.
  var parameters: [Parameter] { get }

  /// Updates every parameter that has a gradient; gradients stay as they are.
  ///
  /// - Parameters:
  ///   - learningRateFactor: multiplies every learning rate: the schedule.
  ///   - gradientFactor: multiplies every gradient as it is read: clipping by norm, averaging.
  func step(learningRateFactor: Double, gradientFactor: Float)

  /// All that a later step depends on besides the parameters, by names that are the optimizer's, the
  /// quantity's and the parameter's: `adamw.exp_avg.model.norm.weight`. The tensors are the live ones,
  /// which the next step changes.
  var state: [(name: String, tensor: Tensor)] { get }

  /// Puts a saved state in place of the present one, or changes nothing and throws.
  ///
  /// - Parameter state: may hold tensors of others, under names that begin otherwise.
  func restore(from state: [String: Tensor]) throws(TrainingError)
}

extension Optimizer {
  public func step(learningRateFactor: Double = 1) {
    step(learningRateFactor: learningRateFactor, gradientFactor: 1)
  }
}

/// How an optimizer keeps its numbers.
public struct OptimizerOptions: Sendable, Equatable {
  /// Moments in 8 bits by blocks of 256 (Dettmers et al. 2022, arXiv:2110.02861) for parameters of at
  /// least 4096 elements.
  public var usesEightBitState = false
  /// float32 copies of bfloat16 parameters, which are changed and then rounded into them. Without
  /// copies, changes are rounded at random so that small ones count on average.
  public var keepsMasterCopies = true
  /// Of random rounding.
  public var seed: UInt64 = 0
  /// The first group that has a parameter applies to it.
  public var groups: [ParameterGroup] = []

  public init(
    usesEightBitState: Bool = false, keepsMasterCopies: Bool = true, seed: UInt64 = 0,
    groups: [ParameterGroup] = []
  ) {
    self.usesEightBitState = usesEightBitState
    self.keepsMasterCopies = keepsMasterCopies
    self.seed = seed
    self.groups = groups
  }
}

/// An optimizer with its settings, before it has parameters.
public enum OptimizerChoice: Sendable, Equatable {
  case adamW(AdamW)
  case sgd(SGD)
  case lion(Lion)
  case muon(Muon)

  /// The names that `init(named:)` knows.
  public static let names = ["adamw", "sgd", "lion", "muon"]

  /// An optimizer with one learning rate. For Muon it serves the matrices and the rest alike, as Liu
  /// et al. 2025 (arXiv:2502.16982) scale its updates.
  ///
  /// - Parameters:
  ///   - name: one of `names`
  ///   - weightDecay: nil for the optimizer's own
  public init(named name: String, learningRate: Double, weightDecay: Double? = nil)
    throws(TrainingError)
  {
    switch name {
    case "adamw":
      var adamW = AdamW(learningRate: learningRate)
      adamW.weightDecay = weightDecay ?? adamW.weightDecay
      self = .adamW(adamW)
    case "sgd": self = .sgd(SGD(learningRate: learningRate, weightDecay: weightDecay ?? 0))
    case "lion": self = .lion(Lion(learningRate: learningRate, weightDecay: weightDecay ?? 0))
    case "muon":
      var muon = Muon(learningRate: learningRate, scale: .matchAdamW)
      muon.weightDecay = weightDecay ?? muon.weightDecay
      muon.rest = AdamW(learningRate: learningRate, weightDecay: muon.weightDecay)
      self = .muon(muon)
    default:
      throw .badSetting(
        "optimizer", value: name, expected: "one of \(Self.names.joined(separator: ", "))")
    }
  }

  /// Of the matrices inside blocks, before any schedule.
  public var learningRate: Double {
    switch self {
    case .adamW(let rule): rule.learningRate
    case .sgd(let rule): rule.learningRate
    case .lion(let rule): rule.learningRate
    case .muon(let rule): rule.learningRate
    }
  }

  /// - Throws: `badSetting` for a number outside its range.
  public func makeOptimizer(for parameters: [Parameter], options: OptimizerOptions = .init())
    throws(TrainingError) -> any Optimizer
  {
    for group in options.groups { try group.validate() }
    switch self {
    case .adamW(let rule): return try ElementwiseOptimizer(rule, parameters, options)
    case .sgd(let rule): return try ElementwiseOptimizer(rule, parameters, options)
    case .lion(let rule): return try ElementwiseOptimizer(rule, parameters, options)
    case .muon(let rule): return try MuonOptimizer(rule, parameters, options)
    }
  }

  /// Bytes that `state` will take, master copies included.
  public func stateBytes(for parameters: [Parameter], options: OptimizerOptions = .init()) -> Int {
    parameters.reduce(0) { total, parameter in
      let slots =
        switch self {
        case .adamW(let rule): rule.slots
        case .sgd(let rule): rule.slots
        case .lion(let rule): rule.slots
        case .muon(let rule): Muon.applies(to: parameter) ? Muon.slots : rule.rest.slots
        }
      let master =
        parameter.tensor.dtype == .bfloat16 && options.keepsMasterCopies ? 4 * parameter.count : 0
      return total + master + 8
        + slots.reduce(0) { $0 + $1.byteCount(elements: parameter.count, options) }
    }
  }

  /// Bytes that a step takes besides and gives back: the matrices of Muon's iteration.
  public func scratchBytes(for parameters: [Parameter]) -> Int {
    guard case .muon = self else { return 0 }
    return parameters.filter(Muon.applies).map(Muon.scratchBytes).max() ?? 0
  }
}
