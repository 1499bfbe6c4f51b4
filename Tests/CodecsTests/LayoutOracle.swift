import Codecs
import Tensors

/// Layouts read number by number in Double, from their descriptions: no shared code with what they
/// test.
enum LayoutOracle {
  static func word(_ tensor: Tensor, _ row: Int, _ column: Int) -> UInt32 {
    tensor.bytes.loadUnaligned(
      fromByteOffset: (row * tensor.columns + column) * 4, as: UInt32.self)
  }

  private static func number(_ tensor: Tensor, _ row: Int, _ column: Int) -> Double {
    Double(tensor.widened().floats[row * tensor.columns + column])
  }

  /// Three words hold 32 3-bit codes, the 11th and the 22nd cut in two.
  private static func three(_ w: [UInt32], _ index: Int) -> UInt32 {
    switch index {
    case 0...9: w[0] >> UInt32(3 * index) & 7
    case 10: w[0] >> 30 | (w[1] & 1) << 2
    case 11...20: w[1] >> UInt32(3 * (index - 11) + 1) & 7
    case 21: w[1] >> 31 | (w[2] & 3) << 1
    default: w[2] >> UInt32(3 * (index - 22) + 2) & 7
    }
  }

  static func gptq(_ parts: [String: Tensor], bits: Int, isVersion1: Bool) -> [Double] {
    guard let q = parts["qweight"], let z = parts["qzeros"], let s = parts["scales"],
      let g = parts["g_idx"]
    else { return [] }
    let outputs = q.columns
    let inputs = q.rows * 32 / bits
    let scales = s.widened()
    var values = [Double](repeating: 0, count: outputs * inputs)
    for output in 0..<outputs {
      for input in 0..<inputs {
        let code: UInt32
        var zero: UInt32
        let group = Int(g.bytes.loadUnaligned(fromByteOffset: input * 4, as: Int32.self))
        if bits == 3 {
          code = three((0..<3).map { word(q, input / 32 * 3 + $0, output) }, input % 32)
          zero = three((0..<3).map { word(z, group, output / 32 * 3 + $0) }, output % 32)
        } else {
          let per = 32 / bits
          let mask = UInt32((1 << bits) - 1)
          code = word(q, input / per, output) >> UInt32(bits * (input % per)) & mask
          zero = word(z, group, output / per) >> UInt32(bits * (output % per)) & mask
        }
        if isVersion1 { zero = (zero + 1) % UInt32(1 << bits) }
        values[output * inputs + input] =
          (Double(code) - Double(zero)) * Double(scales.floats[group * outputs + output])
      }
    }
    return values
  }

  static func awq(_ parts: [String: Tensor], groupSize: Int) -> [Double] {
    guard let q = parts["qweight"], let z = parts["qzeros"], let s = parts["scales"] else {
      return []
    }
    let place = [0, 4, 1, 5, 2, 6, 3, 7]
    let (inputs, outputs) = (q.rows, q.columns * 8)
    let scales = s.widened()
    var values = [Double](repeating: 0, count: outputs * inputs)
    for output in 0..<outputs {
      for input in 0..<inputs {
        let shift = UInt32(4 * place[output % 8])
        let code = word(q, input, output / 8) >> shift & 15
        let zero = word(z, input / groupSize, output / 8) >> shift & 15
        values[output * inputs + input] =
          (Double(code) - Double(zero))
          * Double(scales.floats[input / groupSize * outputs + output])
      }
    }
    return values
  }

  static func mlx(_ parts: [String: Tensor], bits: Int, groupSize: Int) -> [Double] {
    guard let q = parts["weight"], let s = parts["scales"], let b = parts["biases"] else {
      return []
    }
    let (outputs, inputs) = (q.rows, q.columns * 32 / bits)
    let (scales, biases) = (s.widened(), b.widened())
    var values = [Double](repeating: 0, count: outputs * inputs)
    for output in 0..<outputs {
      for input in 0..<inputs {
        var code = 0
        for bit in 0..<bits {
          let at = output * q.columns * 32 + input * bits + bit
          code |= Int(q.bytes[at / 8] >> UInt8(at % 8) & 1) << bit
        }
        let group = output * (inputs / groupSize) + input / groupSize
        values[output * inputs + input] =
          Double(code) * Double(scales.floats[group]) + Double(biases.floats[group])
      }
    }
    return values
  }
}
