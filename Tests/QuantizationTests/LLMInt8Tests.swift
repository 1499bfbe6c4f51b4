import Calibration
import Codecs
import Quantization
import Tensors
import Testing

@Test func llmInt8KeepsTheColumnsThatCalibrationFoundLarge() throws {
  let (outputs, inputs) = (6, 32)
  let W = Tensor(
    (0..<outputs * inputs).map { Float(($0 * 37) % 101) / 101 - 0.5 }, shape: [outputs, inputs])
  var values = (0..<4 * inputs).map { Float(($0 * 29) % 97) / 97 - 0.5 }
  values[inputs + 5] = -6.5
  values[3 * inputs + 20] = 6
  values[20] = 9
  let x = Tensor(values, shape: [4, inputs])
  let sum = InputStatisticsSum(inputs: inputs, needs: [.magnitudes])
  sum.add(x)
  let statistics = sum.finish()

  let calibrated = LLMInt8(outliers: .calibrated)
  #expect(calibrated.needs == [.magnitudes] && LLMInt8().needs.isEmpty)
  let result = try calibrated.compress(W, statistics)
  let mixed = try #require(result.weight as? MixedInt8Weight)
  guard case .columns(let columns, let kept) = mixed.outliers else {
    Issue.record("no columns were kept")
    return
  }
  #expect(columns == [5, 20] && kept.dtype == .float16)
  #expect(result.notes.count == 1)
  // Outside them every weight lies within half a step of its row's scale.
  let decoded = mixed.dequantized().array
  for row in 0..<outputs {
    let part = (0..<inputs).filter { !columns.contains($0) }.map { W.array[row * inputs + $0] }
    let step = Double(part.map(abs).max() ?? 0) / 127
    for column in 0..<inputs {
      let gap = abs(Double(decoded[row * inputs + column]) - Double(W.array[row * inputs + column]))
      #expect(gap <= (columns.contains(column) ? 0.5 * 0x1p-11 : step * 0.5001))
    }
  }
  // Both ways come near the exact product.
  let exact = x.multiplied(byTransposeOf: W).array
  for weight in [result.weight, try LLMInt8().compress(W).weight] {
    for (a, b) in zip(weight.multiply(x).array, exact) { #expect(abs(a - b) < 0.03) }
  }
  #expect(throws: CompressionError.self) { try LLMInt8(threshold: 0).compress(W) }
}
