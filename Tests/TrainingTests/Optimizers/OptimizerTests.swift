import Foundation
import Tensors
import Testing
import Training

@Suite struct OptimizerTests {
  @Test(arguments: optimizerChoices)
  func stepsAgreeWithThePapersInDouble(choice: OptimizerChoice) throws {
    var numbers = OptimizerNumbers(41)
    // The embedding is large for an oracle; its length beyond one piece still is tested.
    let parameters = numbers.parameters()
    var oracles = parameters.map {
      OptimizerOracle(
        weights: $0.floats, shape: $0.shape, decays: $0.decays, isBlockMatrix: $0.isBlockMatrix)
    }
    let optimizer = try choice.makeOptimizer(for: parameters)
    for step in 0..<4 {
      numbers.giveGradients(parameters)
      let factor = 1 - 0.2 * Double(step)
      for (i, parameter) in parameters.enumerated() {
        oracles[i].step(choice, gradient: parameter.gradient?.array ?? [], factor: factor)
      }
      optimizer.step(learningRateFactor: factor)
    }
    for (parameter, oracle) in zip(parameters, oracles) {
      let gap = zip(parameter.floats, oracle.weights).map { abs(Double($0) - $1) }.max() ?? 0
      // Lion's step jumps where its mixed momentum is within rounding of zero: here nowhere.
      #expect(gap < 4e-6, "\(parameter.name)")
    }
  }

  @Test(arguments: [
    ("adamw", OptimizerChoice.adamW(AdamW()), 1e-6),
    (
      "adamw-other",
      .adamW(
        AdamW(learningRate: 2e-2, beta1: 0.8, beta2: 0.95, epsilon: 1e-3, weightDecay: 0.3)), 1e-6
    ),
    ("sgd", .sgd(SGD(learningRate: 0.1, momentum: 0, weightDecay: 0.1)), 1e-6),
    ("sgd-momentum", .sgd(SGD(learningRate: 1e-2, weightDecay: 0.1)), 1e-6),
    ("sgd-dampened", .sgd(SGD(learningRate: 1e-2, momentum: 0.8, dampening: 0.3)), 1e-6),
    ("sgd-nesterov", .sgd(SGD(learningRate: 1e-2, isNesterov: true, weightDecay: 0.2)), 1e-6),
    ("muon", .muon(Muon(learningRate: 2e-2)), 2e-6),
    // Theirs iterates in bfloat16, whose steps are 1/128: ten steps of 0.02 by directions near 1.
    ("muon-bfloat16", .muon(Muon(learningRate: 2e-2)), 1e-2),
    (
      "muon-adamw-scale", .muon(Muon(learningRate: 1e-2, isNesterov: false, scale: .matchAdamW)),
      2e-6
    ),
  ])
  func tenStepsAgreeWithTorch(name: String, choice: OptimizerChoice, tolerance: Double) throws {
    let golden = try optimizerGolden()
    var parameters: [Parameter] = []
    for name in ["wide", "tall", "vector"] {
      let initial = try #require(golden["initial/\(name)"])
      parameters.append(
        Parameter(
          name: name, initial: initial, decays: initial.shape.count == 2,
          isBlockMatrix: initial.shape.count == 2))
    }
    let optimizer = try choice.makeOptimizer(for: parameters)
    for step in 1...10 {
      for parameter in parameters {
        let all = try #require(golden["gradients/\(parameter.name)"])
        let part = Array(all.array[((step - 1) * parameter.count)..<(step * parameter.count)])
        parameter.replaceGradient(by: Tensor(part, shape: parameter.shape))
      }
      optimizer.step(learningRateFactor: 1 - 0.05 * Double(step - 1))
      for parameter in parameters {
        guard let expected = golden["\(name)/\(step)/\(parameter.name)"] else { continue }
        let gap = zip(parameter.floats, expected.array).map { abs(Double($0 - $1)) }.max() ?? 0
        #expect(gap <= tolerance, "\(parameter.name) after step \(step)")
      }
    }
  }

  @Test(arguments: optimizerChoices)
  func aQuadraticBowlIsDescended(choice: OptimizerChoice) throws {
    var numbers = OptimizerNumbers(43)
    let target = numbers.tensor([24, 16], scale: 0.3)
    let parameter = Parameter(
      name: "w", initial: .zeros([24, 16]), decays: false, isBlockMatrix: true)
    let optimizer = try choice.makeOptimizer(for: [parameter])
    func loss() -> Double {
      zip(parameter.floats, target.array).reduce(0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
    }
    let before = loss()
    for step in 0..<300 {
      let gradient = zip(parameter.floats, target.array).map { $0 - $1 }
      parameter.replaceGradient(by: Tensor(gradient, shape: [24, 16]))
      optimizer.step(learningRateFactor: 1 - Double(step) / 300)
    }
    #expect(loss() < before * 0.01)
  }

  @Test func aParameterWithoutGradientIsLeftAlone() throws {
    var numbers = OptimizerNumbers(44)
    let parameters = numbers.parameters()
    let before = parameters.map(\.bytes)
    let optimizer = try OptimizerChoice.muon(Muon()).makeOptimizer(for: parameters)
    parameters[0].replaceGradient(by: numbers.tensor(parameters[0].shape))
    optimizer.step()
    #expect(parameters[0].bytes != before[0])
    #expect(parameters.dropFirst().map(\.bytes) == Array(before.dropFirst()))
  }

  @Test func groupsHaveRatesOfTheirOwn() throws {
    func moved(_ groups: [ParameterGroup]) throws -> [[Float]] {
      var numbers = OptimizerNumbers(45)
      let parameters = numbers.parameters()
      let before = parameters.map(\.floats)
      let optimizer = try OptimizerChoice.sgd(SGD(learningRate: 0.5, momentum: 0))
        .makeOptimizer(for: parameters, options: .init(groups: groups))
      numbers.giveGradients(parameters)
      optimizer.step()
      return zip(parameters, before).map { zip($0.floats, $1).map { $0 - $1 } }
    }
    let plain = try moved([])
    let grouped = try moved([
      ParameterGroup(.named("layers.*.bias"), learningRateFactor: 0),
      ParameterGroup(.blockMatrices, learningRateFactor: 2),
    ])
    for (a, b) in zip(plain[0], grouped[0]) { #expect(abs(2 * a - b) < 1e-6) }
    #expect(grouped[2].allSatisfy { $0 == 0 })
    #expect(grouped[3] == plain[3])
    let decayed = try moved([ParameterGroup(.named("*"), weightDecay: 0.5)])
    #expect(decayed[0] != plain[0])
    #expect(decayed[2] == plain[2], "a bias does not decay")
  }

  @Test func badSettingsAreRefusedByName() {
    #expect(throws: TrainingError.self) {
      try OptimizerChoice(named: "adam", learningRate: 1)
    }
    for choice: OptimizerChoice in [
      .adamW(AdamW(learningRate: -1)), .adamW(AdamW(beta2: 1)), .lion(Lion(beta1: .nan)),
      .sgd(SGD(dampening: 0.1, isNesterov: true)), .muon(Muon(rest: AdamW(epsilon: -1))),
    ] {
      #expect(throws: TrainingError.self) { try choice.makeOptimizer(for: []) }
    }
    #expect(throws: TrainingError.self) {
      try OptimizerChoice.lion(Lion()).makeOptimizer(
        for: [], options: .init(groups: [ParameterGroup(.others, learningRateFactor: -1)]))
    }
  }
}
