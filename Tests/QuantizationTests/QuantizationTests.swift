import Calibration
import Codecs
import Quantization
import Tensors
import Testing

private struct Numbers {
  var state: UInt64
  mutating func unit() -> Double {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Double(state >> 11) * 0x1p-53
  }
  mutating func matrix(_ rows: Int, _ columns: Int) -> Tensor {
    Tensor(
      (0..<rows * columns).map { _ in
        Float((0..<6).reduce(0.0) { sum, _ in sum + unit() } - 3) * (unit() < 0.03 ? 4 : 1)
      }, shape: [rows, columns])
  }
}

/// Values of each group of `size` columns, row after row.
private func groups(_ weight: Tensor, _ size: Int) -> [[Double]] {
  stride(from: 0, to: weight.count, by: size).map { start in
    (start..<start + size).map { Double(weight.floats[$0]) }
  }
}

@Test func reportedErrorsAreThoseOfTheDecodedWeight() throws {
  var numbers = Numbers(state: 1)
  let weight = numbers.matrix(50, 320)
  for clipping in [RoundToNearest.Clipping.minMax, .meanSquareError()] {
    for granularity in [AffineGroups.Granularity.group(64), .channel, .tensor] {
      let codec = try AffineGroups(bits: 3, granularity: granularity, isSymmetric: false)
      let result = try RoundToNearest(codec: codec, clipping: clipping).compress(weight)
      let decoded = result.weight.dequantized()
      var squared = 0.0
      var size = 0.0
      var largest: Float = 0
      for index in 0..<weight.count {
        let error = decoded.floats[index] - weight.floats[index]
        squared += Double(error) * Double(error)
        size += Double(weight.floats[index]) * Double(weight.floats[index])
        largest = max(largest, abs(error))
      }
      #expect(abs(result.error.squaredError - squared) <= 1e-5 * squared)
      #expect(abs(result.error.relativeError - squared / size) <= 1e-5 * squared / size)
      #expect(abs(result.error.meanSquaredError - squared / Double(weight.count)) <= 1e-5 * squared)
      #expect(result.error.largestError == largest)
    }
  }
}

/// The search written out in Double: every shrunken range, its rounded scale, its error.
@Test(arguments: [2, 3, 4, 8]) func clippingFindsTheBestShrunkenRange(bits: Int) throws {
  var numbers = Numbers(state: UInt64(bits))
  let weight = numbers.matrix(12, 128)
  let low = -Double(1 << (bits - 1))
  let high = -low - 1
  for isSymmetric in [true, false] {
    let codec = try AffineGroups(
      bits: bits, granularity: .group(32), isSymmetric: isSymmetric, scaleType: .float32)
    let result = try RoundToNearest(codec: codec, clipping: .meanSquareError()).compress(weight)
    let decoded = result.weight.dequantized()
    for (values, found) in zip(groups(weight, 32), groups(decoded, 32)) {
      func error(_ shrink: Double) -> Double {
        let smallest = min(0, values.min() ?? 0) * shrink
        let largest = max(0, values.max() ?? 0) * shrink
        let scale = Double(
          Float(
            isSymmetric
              ? max(-smallest, largest) / ((high - low) / 2) : (largest - smallest) / (high - low)))
        let zero =
          isSymmetric
          ? 0 : min(max((low - smallest / scale).rounded(.toNearestOrEven), low), high)
        return values.reduce(0) { sum, value in
          let code = min(max(value / scale + zero, low), high).rounded(.toNearestOrEven)
          let difference = (code - zero) * scale - value
          return sum + difference * difference
        }
      }
      let best = (0..<80).map { error(1 - Double($0) / 100) }.min() ?? 0
      let reached = zip(values, found).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
      #expect(reached <= best * (1 + 1e-4) + 1e-12, "symmetric \(isSymmetric)")
      #expect(reached >= best * (1 - 1e-4) - 1e-12)
    }
  }
}

@Test func clippingNeverDoesWorseThanMinMax() throws {
  var numbers = Numbers(state: 9)
  let weight = numbers.matrix(64, 256)
  for bits in AffineGroups.supportedBits {
    for granularity in [AffineGroups.Granularity.group(32), .channel, .tensor] {
      for isSymmetric in [true, false] {
        let codec = try AffineGroups(
          bits: bits, granularity: granularity, isSymmetric: isSymmetric)
        let plain = try RoundToNearest(codec: codec).compress(weight).error
        let clipped = try RoundToNearest(codec: codec, clipping: .meanSquareError())
          .compress(weight).error
        #expect(clipped.squaredError <= plain.squaredError * (1 + 1e-5))
        if bits <= 3, granularity != .tensor {
          #expect(clipped.squaredError < plain.squaredError * 0.95)
        }
      }
    }
  }
}

@Test func notFiniteWeightsAreLocated() throws {
  var values = [Float](repeating: 0.1, count: 40 * 64)
  values[17 * 64 + 63] = .nan
  let method = RoundToNearest(codec: try AffineGroups(bits: 4, granularity: .group(32)))
  #expect(throws: CompressionError.notFinite(row: 17, column: 63)) {
    try method.compress(Tensor(values, shape: [40, 64]))
  }
  #expect(
    CompressionError.notFinite(row: 17, column: 63).description
      .contains("row 17, column 63 is NaN or infinite"))
}

@Test func aSearchWithoutCandidatesIsRefused() throws {
  let codec = try AffineGroups(bits: 4, granularity: .channel)
  let weight = Tensor([1, 2], shape: [1, 2])
  for clipping in [
    RoundToNearest.Clipping.meanSquareError(maximumShrink: 1, grid: 100),
    .meanSquareError(maximumShrink: 0.5, grid: 0), .meanSquareError(maximumShrink: .nan, grid: 9),
  ] {
    #expect(throws: CompressionError.self) {
      try RoundToNearest(codec: codec, clipping: clipping).compress(weight)
    }
  }
}
