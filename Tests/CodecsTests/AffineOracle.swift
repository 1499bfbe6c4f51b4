import Codecs
import Tensors

/// The affine format written slowly in `Double` from `reference/formats.md` §2.3 and §2.4, sharing
/// nothing with the codec but its settings.
struct AffineOracle {
  let codec: AffineGroups
  let outputs: Int
  let inputs: Int

  var low: Double { -Double(1 << (codec.bits - 1)) }
  var high: Double { Double(1 << (codec.bits - 1)) - 1 }

  /// Positions that share a scale, in the order scales are stored.
  var groups: [[(row: Int, column: Int)]] {
    switch codec.granularity {
    case .tensor:
      [(0..<outputs).flatMap { row in (0..<inputs).map { (row, $0) } }]
    case .channel:
      (0..<outputs).map { row in (0..<inputs).map { (row, $0) } }
    case .group(let size):
      (0..<outputs).flatMap { row in
        stride(from: 0, to: inputs, by: size).map { start in
          (start..<min(start + size, inputs)).map { (row, $0) }
        }
      }
    }
  }

  /// Scale and zero point of one group's values.
  func grid(_ values: [Double]) -> (scale: Double, zero: Double) {
    let smallest = min(0, values.min() ?? 0)
    let largest = max(0, values.max() ?? 0)
    var scale =
      codec.isSymmetric
      ? max(-smallest, largest) / ((high - low) / 2) : (largest - smallest) / (high - low)
    scale = Self.rounded(scale, to: codec.scaleType)
    if scale == 0 { scale = Self.epsilon(codec.scaleType) }
    guard !codec.isSymmetric else { return (scale, 0) }
    return (scale, min(max((low - smallest / scale).rounded(.toNearestOrEven), low), high))
  }

  func code(_ value: Double, scale: Double, zero: Double) -> Double {
    min(max(value / scale + zero, low), high).rounded(.toNearestOrEven)
  }

  /// Words of one LSB-first stream of `codes`, bit by bit.
  func packed(_ codes: [Int]) -> [UInt32] {
    var words = [UInt32](repeating: 0, count: (codes.count * codec.bits + 31) / 32)
    for (index, code) in codes.enumerated() {
      let unsigned = code + (1 << (codec.bits - 1))
      for bit in 0..<codec.bits where unsigned >> bit & 1 == 1 {
        let position = index * codec.bits + bit
        words[position / 32] |= 1 << UInt32(position % 32)
      }
    }
    return words
  }

  static func epsilon(_ type: DType) -> Double {
    switch type {
    case .bfloat16: 0.0078125
    case .float16: 0.0009765625
    default: Double(Float.ulpOfOne)
    }
  }

  /// Nearest value with the type's number of significant bits, ties to even.
  static func rounded(_ value: Double, to type: DType) -> Double {
    guard value != 0 else { return 0 }
    let fractionBits = type == .bfloat16 ? 7 : type == .float16 ? 10 : 23
    let smallestExponent = type == .float16 ? -14 : -126
    let exponent = max(Int(value.exponent), smallestExponent) - fractionBits
    let unit = Double(sign: .plus, exponent: exponent, significand: 1)
    return (value / unit).rounded(.toNearestOrEven) * unit
  }
}
