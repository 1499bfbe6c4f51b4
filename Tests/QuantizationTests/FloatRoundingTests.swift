import Calibration
import Codecs
import Quantization
import Tensors
import Testing

private func matrix(_ rows: Int, _ columns: Int, seed: UInt64) -> Tensor {
  var state = seed
  return Tensor(
    (0..<rows * columns).map { _ in
      var sum = -3.0
      for _ in 0..<6 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        sum += Double(state >> 11) * 0x1p-53
      }
      return Float(sum * 0.05)
    }, shape: [rows, columns])
}

@Test func aSearchedFloatScaleNeverErrsMoreThanTheCoveringOne() throws {
  let weight = matrix(64, 256, seed: 3)
  for (codec, gain) in [
    (FloatGroups.nvfp4, 0.95), (.mxfp4, 0.999), (try .float8(), 1), (try .float8(.tensor), 1),
    (try .float8(.group(32)), 1),
  ] {
    let plain = try FloatRounding(codec: codec).compress(weight)
    let searched = try FloatRounding(codec: codec, scaling: .meanSquareError).compress(weight)
    #expect(searched.error.squaredError <= gain * plain.error.squaredError, "\(codec.format)")
    for result in [plain, searched] {
      let decoded = result.weight.dequantized().array
      let squared = zip(weight.array, decoded).reduce(0.0) {
        $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1)
      }
      #expect(abs(result.error.squaredError - squared) <= 1e-5 * squared)
    }
  }
}

/// The nearest of the scales that may be tried, found in Double for each group.
@Test func theNVFP4SearchFindsTheBestScaleNearby() throws {
  let weight = matrix(4, 64, seed: 4)
  let levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
  let e4m3 = (1..<127).map { code in
    let (exponent, mantissa) = (code / 8, Double(code % 8) / 8)
    return exponent == 0
      ? mantissa * 0x1p-6
      : (1 + mantissa) * Double(sign: .plus, exponent: exponent - 7, significand: 1)
  }
  let global = Double(2688 / weight.array.reduce(0) { max($0, abs($1)) })
  let result = try FloatRounding(codec: .nvfp4, scaling: .meanSquareError).compress(weight)
  let decoded = result.weight.dequantized().array
  for start in stride(from: 0, to: weight.count, by: 16) {
    let values = (start..<start + 16).map { Double(weight.floats[$0]) }
    func error(_ scale: Double) -> Double {
      values.reduce(0) { sum, value in
        let nearest = levels.map { abs(abs(value) - $0 * scale) }.min() ?? 0
        return sum + nearest * nearest
      }
    }
    let wanted = global * (values.map(abs).max() ?? 0) / 6
    let base = e4m3.indices.min { abs(e4m3[$0] - wanted) < abs(e4m3[$1] - wanted) } ?? 0
    let tried = max(0, base - 6)...min(e4m3.count - 1, base + 5)
    let best = tried.map { error(e4m3[$0] / global) }.min() ?? 0
    let reached = (start..<start + 16).reduce(0.0) {
      $0 + (Double(decoded[$1]) - Double(weight.floats[$1]))
        * (Double(decoded[$1]) - Double(weight.floats[$1]))
    }
    #expect(abs(reached - best) <= 1e-4 * best)
  }
}

@Test func floatRoundingLocatesNumbersThatAreNotFinite() throws {
  var values = [Float](repeating: 0.1, count: 128)
  values[70] = .infinity
  #expect(throws: CompressionError.notFinite(row: 1, column: 6)) {
    try FloatRounding(codec: .mxfp4).compress(Tensor(values, shape: [2, 64]))
  }
}
