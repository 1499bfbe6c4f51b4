import Foundation
import Tensors
import Testing
import Training

/// Serialized, because the number of threads is the process's.
@Suite(.serialized) struct OptimizerStateTests {
  /// float32; bfloat16 with master copies and without; each with and without 8-bit moments.
  static let forms: [(DType, OptimizerOptions)] = [false, true].flatMap { eightBit in
    [
      (DType.float32, OptimizerOptions(usesEightBitState: eightBit)),
      (.bfloat16, OptimizerOptions(usesEightBitState: eightBit)),
      (.bfloat16, OptimizerOptions(usesEightBitState: eightBit, keepsMasterCopies: false, seed: 9)),
    ]
  }

  /// Steps with gradients of a seed's sequence, interrupted after `pause` of them.
  private func run(
    _ choice: OptimizerChoice, _ dtype: DType, _ options: OptimizerOptions, steps: Int,
    pause: Int? = nil
  ) throws -> [[UInt8]] {
    var numbers = OptimizerNumbers(51)
    var parameters = numbers.parameters(dtype: dtype)
    var optimizer = try choice.makeOptimizer(for: parameters, options: options)
    for step in 0..<steps {
      if step == pause {
        let saved = optimizer.state.copied
        parameters = parameters.map {
          Parameter(
            name: $0.name, initial: $0.tensor.detached, dtype: dtype, decays: $0.decays,
            isBlockMatrix: $0.isBlockMatrix)
        }
        optimizer = try choice.makeOptimizer(for: parameters, options: options)
        try optimizer.restore(from: saved)
      }
      numbers.giveGradients(parameters)
      optimizer.step(learningRateFactor: 1 / Double(step + 1), gradientFactor: 0.7)
    }
    return parameters.map(\.bytes) + optimizer.state.map { $0.tensor.byteArray }
  }

  @Test(arguments: optimizerChoices)
  func aRestoredStateContinuesBitForBit(choice: OptimizerChoice) throws {
    for (dtype, options) in Self.forms {
      let whole = try run(choice, dtype, options, steps: 5)
      #expect(try run(choice, dtype, options, steps: 5, pause: 3) == whole)
    }
  }

  @Test(arguments: optimizerChoices)
  func resultsDoNotDependOnTheNumberOfThreads(choice: OptimizerChoice) throws {
    let before = Parallel.threads
    defer { Parallel.threads = before }
    for (dtype, options) in Self.forms {
      Parallel.threads = 1
      let alone = try run(choice, dtype, options, steps: 3)
      Parallel.threads = 2
      #expect(try run(choice, dtype, options, steps: 3) == alone)
      Parallel.threads = 5
      #expect(try run(choice, dtype, options, steps: 3) == alone)
    }
  }

  @Test(arguments: optimizerChoices)
  func theEstimateIsTheStatesSize(choice: OptimizerChoice) throws {
    for (dtype, options) in Self.forms {
      var numbers = OptimizerNumbers(52)
      let parameters = numbers.parameters(dtype: dtype)
      let optimizer = try choice.makeOptimizer(for: parameters, options: options)
      let bytes = optimizer.state.reduce(0) { $0 + $1.tensor.byteCount }
      #expect(choice.stateBytes(for: parameters, options: options) == bytes)
      #expect(Set(optimizer.state.map(\.name)).count == optimizer.state.count)
    }
  }

  @Test func statesOfOthersAreRefusedAndNothingChanges() throws {
    var numbers = OptimizerNumbers(53)
    let parameters = numbers.parameters()
    let optimizer = try OptimizerChoice.adamW(AdamW()).makeOptimizer(for: parameters)
    numbers.giveGradients(parameters)
    optimizer.step()
    let saved = optimizer.state.copied
    let bytes = optimizer.state.map { $0.tensor.byteArray }
    #expect(saved["adamw.exp_avg.layers.0.up"]?.shape == [37, 53])

    var missing = saved
    missing["adamw.exp_avg_sq.embeddings"] = nil
    var other = saved
    other["adamw.exp_avg.embeddings"] = .zeros([101, 331])
    var more = saved
    more["adamw.exp_avg.lm_head"] = .zeros([2])
    for state in [missing, other, more, [:]] {
      let error = #expect(throws: TrainingError.self) { try optimizer.restore(from: state) }
      #expect(error?.description.contains("adamw.") == true)
    }
    let eightBit = try OptimizerChoice.adamW(AdamW())
      .makeOptimizer(for: parameters, options: .init(usesEightBitState: true))
    #expect(throws: TrainingError.self) { try eightBit.restore(from: saved) }
    #expect(optimizer.state.map { $0.tensor.byteArray } == bytes)

    var withOthers = saved
    withOthers["ema.updates"] = .zeros([1])
    try optimizer.restore(from: withOthers)
  }

  @Test(arguments: optimizerChoices)
  func eightBitStateStaysCloseToFloat(choice: OptimizerChoice) throws {
    // Steady gradients with noise, as training has them: after 50 steps the way taken differs little.
    func run(_ options: OptimizerOptions) throws -> [Float] {
      var numbers = OptimizerNumbers(54)
      let parameter = Parameter(
        name: "w", initial: .zeros([96, 80]), decays: true, isBlockMatrix: true)
      let steady = numbers.floats(96 * 80)
      let optimizer = try choice.makeOptimizer(for: [parameter], options: options)
      for _ in 0..<50 {
        let noise = numbers.floats(96 * 80, scale: 0.3)
        parameter.replaceGradient(
          by: Tensor(zip(steady, noise).map { $0 + $1 }, shape: [96, 80]))
        optimizer.step()
      }
      return parameter.floats
    }
    let exact = try run(.init()), coded = try run(.init(usesEightBitState: true))
    let distance = zip(exact, coded).reduce(0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
    let length = exact.reduce(0) { $0 + Double($1 * $1) }
    #expect((distance / length).squareRoot() < 0.1)
  }
}
