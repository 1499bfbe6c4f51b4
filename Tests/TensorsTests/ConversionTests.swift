import CKernels
import Tensors
import Testing

@Test func everyHalfPatternWidensExactly() {
  let patterns = (0...UInt16.max).map { $0 }
  var widened = [Float](repeating: 0, count: patterns.count)
  patterns.withUnsafeBytes { pare_f16_to_f32($0.baseAddress, &widened, patterns.count) }
  for (pattern, value) in zip(patterns, widened) {
    let expected = Float(Float16(bitPattern: pattern))
    #expect(value == expected || (value.isNaN && expected.isNaN))
  }
  patterns.withUnsafeBytes { pare_bf16_to_f32($0.baseAddress, &widened, patterns.count) }
  for (pattern, value) in zip(patterns, widened) {
    #expect(value.bitPattern == UInt32(pattern) << 16)
  }
}

/// Half to even by distance in Double, NaN kept a NaN.
private func nearestBrainFloat(_ value: Float) -> Float {
  guard value.isFinite else { return value }
  let low = Float(bitPattern: value.bitPattern & 0xFFFF_0000)
  let high = Float(bitPattern: (value.bitPattern & 0xFFFF_0000) &+ 0x1_0000)
  let (toLow, toHigh) = (abs(Double(value) - Double(low)), abs(Double(high) - Double(value)))
  // Beyond the largest finite number the next step stands for 2¹²⁸.
  let distance = high.isFinite ? toHigh : abs(Double(value.magnitude) - 0x1p128)
  if toLow != distance { return toLow < distance ? low : high }
  return low.bitPattern >> 16 & 1 == 0 ? low : high
}

@Test func narrowingRoundsHalfToEven() {
  var numbers = TestNumbers(1)
  var values = numbers.floats(3000, scale: 300) + numbers.floats(3000, scale: 1e-6)
  values += [0, -0.0, 1, .greatestFiniteMagnitude, .leastNonzeroMagnitude, .infinity, -.infinity]
  values += [65504, 65519.99, 65520, 1e-8, 5.9604645e-08, 2.9802322e-08, 1.00390625, 1.01171875]
  // Ties of bf16: the dropped half is exactly one half.
  values += (0..<200).map { Float(bitPattern: 0x3F80_8000 + UInt32($0) << 16) }
  var halves = [UInt16](repeating: 0, count: values.count)
  halves.withUnsafeMutableBytes { pare_f32_to_f16(values, $0.baseAddress, values.count) }
  for (half, value) in zip(halves, values) {
    #expect(half == Float16(value).bitPattern, "\(value)")
  }
  halves.withUnsafeMutableBytes { pare_f32_to_bf16(values, $0.baseAddress, values.count) }
  for (half, value) in zip(halves, values) {
    #expect(UInt32(half) << 16 == nearestBrainFloat(value).bitPattern, "\(value)")
  }
  var nan: [Float] = [.nan, -.nan, .signalingNaN]
  halves.withUnsafeMutableBytes { pare_f32_to_bf16(nan, $0.baseAddress, 3) }
  halves.withUnsafeBytes { pare_bf16_to_f32($0.baseAddress, &nan, 3) }
  #expect(nan.allSatisfy { $0.isNaN })
}

@Test(arguments: [DType.bfloat16, .float16])
func conversionsReachEveryTailAtAnyAddress(type: DType) {
  var numbers = TestNumbers(2)
  for count in tails {
    for shift in 0..<3 {
      let values = numbers.floats(count, scale: 4)
      var stored = [UInt8](repeating: 0xEE, count: 2 * count + 8)
      var back = [Float](repeating: 77, count: count + 1)
      stored.withUnsafeMutableBytes { bytes in
        guard let base = bytes.baseAddress else { return }
        if type == .float16 {
          pare_f32_to_f16(values, base + shift, count)
          pare_f16_to_f32(base + shift, &back, count)
        } else {
          pare_f32_to_bf16(values, base + shift, count)
          pare_bf16_to_f32(base + shift, &back, count)
        }
      }
      #expect(back.last == 77)
      #expect(stored[2 * count + shift] == 0xEE)
      for (a, b) in zip(values, back) {
        #expect(abs(a - b) <= abs(a) * (type == .float16 ? 0x1p-11 : 0x1p-8) + 1e-7)
      }
    }
  }
}
