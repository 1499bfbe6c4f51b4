import Tensors
import Testing
import Training

@Suite struct OptimizerBFloat16Tests {
  /// A thousand steps of a tenth of a bfloat16 step at 1: a change of 100 steps in all.
  private func walk(_ options: OptimizerOptions) throws -> (parameter: Parameter, state: Int) {
    let parameter = Parameter(
      name: "w", initial: Tensor([Float](repeating: 1, count: 5000), shape: [50, 100]),
      dtype: .bfloat16, decays: false, isBlockMatrix: true)
    let optimizer = try OptimizerChoice.sgd(SGD(learningRate: 1, momentum: 0))
      .makeOptimizer(for: [parameter], options: options)
    parameter.replaceGradient(
      by: Tensor([Float](repeating: -0.1 / 128, count: 5000), shape: [50, 100]))
    for _ in 0..<1000 { optimizer.step() }
    return (parameter, optimizer.state.count)
  }

  @Test func masterCopiesKeepSmallSteps() throws {
    let (parameter, state) = try walk(.init())
    #expect(state == 2)
    // 1000 additions in float32, then one rounding: half a bfloat16 step.
    #expect(parameter.floats.allSatisfy { abs($0 - (1 + 100.0 / 128)) <= 0.5 / 128 })
  }

  @Test func randomRoundingKeepsSmallStepsOnAverage() throws {
    let (parameter, state) = try walk(.init(keepsMasterCopies: false))
    #expect(state == 1)
    let mean = parameter.floats.reduce(0.0) { $0 + Double($1) } / 5000
    // Each of 1000 steps has variance 0.1 · 0.9 of a squared bfloat16 step; five deviations of the mean.
    #expect(abs(mean - (1 + 100.0 / 128)) < 5 * (90.0 / 5000).squareRoot() / 128)
    let again = try walk(.init(keepsMasterCopies: false)).parameter
    #expect(again.bytes == parameter.bytes)
    let other = try walk(.init(keepsMasterCopies: false, seed: 1)).parameter
    #expect(other.bytes != parameter.bytes)
  }

  @Test(arguments: optimizerChoices)
  func masterCopiesTakeTheStepsOfFloatParameters(choice: OptimizerChoice) throws {
    var numbers = OptimizerNumbers(81)
    let halves = numbers.parameters(dtype: .bfloat16)
    let floats = halves.map {
      Parameter(
        name: $0.name, initial: $0.tensor.detached, decays: $0.decays,
        isBlockMatrix: $0.isBlockMatrix)
    }
    let optimizers = try [halves, floats].map { try choice.makeOptimizer(for: $0) }
    for _ in 0..<3 {
      numbers.giveGradients(halves)
      for (half, float) in zip(halves, floats) {
        if let gradient = half.gradient { float.replaceGradient(by: gradient) }
      }
      for optimizer in optimizers { optimizer.step() }
    }
    for (half, float) in zip(halves, floats) {
      #expect(half.bytes == float.tensor.detached.converted(to: .bfloat16).byteArray)
    }
  }
}
