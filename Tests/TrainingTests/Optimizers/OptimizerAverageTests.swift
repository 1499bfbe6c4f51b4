import Tensors
import Testing
import Training

@Suite struct OptimizerAverageTests {
  @Test(arguments: [DType.float32, .bfloat16])
  func averagesAreTheFormulas(dtype: DType) throws {
    var numbers = OptimizerNumbers(111)
    let parameters = numbers.parameters(dtype: dtype)
    var expected = parameters.map { $0.floats.map(Double.init) }
    let average = try WeightAverage(of: parameters, decay: 0.4)
    for t in 0..<8 {
      for (i, parameter) in parameters.enumerated() {
        parameter.assign(numbers.tensor(parameter.shape))
        let decay = min(0.4, (1 + Double(t)) / (10 + Double(t)))
        expected[i] = zip(expected[i], parameter.floats).map {
          decay * $0 + (1 - decay) * Double($1)
        }
      }
      average.update()
    }
    for ((_, tensor), expected) in zip(average.weights, expected) {
      #expect(zip(tensor.array, expected).allSatisfy { abs(Double($0) - $1) < 1e-6 })
    }

    let before = parameters.map(\.bytes)
    average.withAverages {
      for (parameter, (_, tensor)) in zip(parameters, average.weights) {
        #expect(parameter.bytes == tensor.converted(to: dtype).byteArray)
      }
    }
    #expect(parameters.map(\.bytes) == before)

    let other = try WeightAverage(of: parameters, decay: 0.4)
    try other.restore(from: average.state.copied)
    #expect(other.updates == 8)
    other.update()
    average.update()
    for (a, b) in zip(other.weights, average.weights) { #expect(a.tensor.array == b.tensor.array) }
    let bytes = average.state.reduce(0) { $0 + $1.tensor.byteCount }
    #expect(WeightAverage.stateBytes(for: parameters) == bytes)
    #expect(throws: TrainingError.self) { try other.restore(from: [:]) }
  }

  @Test func aDecayOfOneIsRefused() {
    #expect(throws: TrainingError.self) { try WeightAverage(of: [], decay: 1) }
  }
}
