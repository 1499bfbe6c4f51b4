import Foundation
import Tensors
import Testing
import Training

@Suite struct OptimizerClippingTests {
  @Test func theNormAndWhatIsLeftAreTorchs() throws {
    let golden = try optimizerGolden()
    let parameters = try ["wide", "tall", "vector"].map { name in
      let all = try #require(golden["gradients/\(name)"])
      let shape = Array(all.shape.dropFirst())
      let parameter = Parameter(
        name: name, initial: .zeros(shape), decays: false, isBlockMatrix: false)
      let count = shape.reduce(1, *)
      parameter.replaceGradient(by: Tensor(Array(all.array.prefix(count)), shape: shape))
      return parameter
    }
    let norm = try GradientClipping.clip(parameters, norm: 0.5)
    let expected = try #require(golden["clipped/norm"]).array[0]
    #expect(abs(norm - Double(expected)) < 1e-6 * norm && norm > 0.5)
    for parameter in parameters {
      let clipped = try #require(golden["clipped/\(parameter.name)"]).array
      for (a, b) in zip(parameter.gradient?.array ?? [], clipped) {
        #expect(abs(a - b) <= 2e-7 * abs(b))
      }
    }
    let small = try GradientClipping.globalNorm(parameters)
    #expect(abs(small - 0.5) < 1e-5)
    let before = parameters.map { $0.gradient?.array }
    try GradientClipping.clip(parameters, norm: 3)
    #expect(parameters.map { $0.gradient?.array } == before, "below the limit nothing changes")
  }

  @Test func aFactorInTheStepIsClippingBeforeIt() throws {
    func run(_ body: ([Parameter], any Optimizer) throws -> Void) throws -> [[UInt8]] {
      var numbers = OptimizerNumbers(101)
      let parameters = numbers.parameters()
      let optimizer = try OptimizerChoice.adamW(AdamW()).makeOptimizer(for: parameters)
      numbers.giveGradients(parameters)
      try body(parameters, optimizer)
      return parameters.map(\.bytes)
    }
    let apart = try run {
      try GradientClipping.clip($0, norm: 1)
      $1.step()
    }
    let together = try run {
      let norm = try GradientClipping.globalNorm($0)
      $1.step(
        learningRateFactor: 1, gradientFactor: GradientClipping.factor(norm: norm, limit: 1))
    }
    #expect(apart == together)
  }

  @Test func valuesAreClipped() throws {
    var numbers = OptimizerNumbers(102)
    let parameters = numbers.parameters()
    numbers.giveGradients(parameters)
    let before = parameters.map { $0.gradient?.array ?? [] }
    try GradientClipping.clip(parameters, value: 0.25)
    for (parameter, before) in zip(parameters, before) {
      #expect(parameter.gradient?.array == before.map { min(max($0, -0.25), 0.25) })
    }
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func aGradientThatIsNotFiniteIsNamed(bad: Float) throws {
    var numbers = OptimizerNumbers(103)
    let parameters = numbers.parameters()
    numbers.giveGradients(parameters)
    var values = numbers.floats(331 * 101)
    values[33_333] = bad
    parameters[3].replaceGradient(by: Tensor(values, shape: [331, 101]))
    let before = parameters[0].gradient?.array
    for clip in [
      { _ = try GradientClipping.clip(parameters, norm: 1e-3) },
      { _ = try GradientClipping.clip(parameters, value: 1e-3) },
    ] {
      let error = #expect(throws: TrainingError.self) { try clip() }
      #expect(error?.description.contains("embeddings") == true)
    }
    #expect(parameters[0].gradient?.array == before)
  }

  @Test func limitsMustBePositive() {
    for limit in [0, -1, Double.nan, .infinity] {
      #expect(throws: TrainingError.self) { try GradientClipping.clip([], norm: limit) }
      #expect(throws: TrainingError.self) { try GradientClipping.clip([], value: limit) }
    }
  }
}
