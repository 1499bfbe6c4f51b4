import Foundation
import Tensors
import Testing

/// Odd ones, one row, one column, and more than one piece of parallel work.
private let shapes = [[1, 1], [3, 17], [70, 33], [2, 64], [5, 1000], [1100, 33]]

@Test(arguments: shapes) func sumsAndProductsOfTensorsHaveTheirGradients(shape: [Int]) {
  var numbers = TestNumbers(31)
  let (a, b) = (numbers.tensor(shape), numbers.tensor(shape))
  checkGradients([a, b]) {
    $0[0] + $0[1]
  } formula: {
    zip($0[0], $0[1]).map { $0 + $1 }
  }
  checkGradients([a, b]) {
    $0[0] - $0[1]
  } formula: {
    zip($0[0], $0[1]).map { $0 - $1 }
  }
  checkGradients([a, b]) {
    $0[0].multiplied(elementwise: $0[1])
  } formula: {
    zip($0[0], $0[1]).map { $0 * $1 }
  }
  checkGradients([a]) {
    $0[0] + $0[0]
  } formula: {
    $0[0].map { $0 + $0 }
  }
  checkGradients([a]) {
    $0[0].multiplied(elementwise: $0[0])
  } formula: {
    $0[0].map { $0 * $0 }
  }
  checkGradients([a]) {
    $0[0].scaled(by: -1.75)
  } formula: {
    $0[0].map { $0 * -1.75 }
  }
  for trained in [[true, false], [false, true]] {
    checkGradients([a, b], trained: trained) {
      $0[0].multiplied(elementwise: $0[1])
    } formula: {
      zip($0[0], $0[1]).map { $0 * $1 }
    }
  }
}

@Test(arguments: shapes) func nonlinearitiesHaveTheirGradients(shape: [Int]) {
  var numbers = TestNumbers(32)
  let (x, up) = (numbers.tensor(shape, scale: 5), numbers.tensor(shape))
  checkGradients([x]) {
    $0[0].softCapped(3)
  } formula: {
    $0[0].map { 3 * tanh($0 / 3) }
  }
  for kind in [Activation.silu, .gelu, .geluTanh, .relu] {
    checkGradients([x]) {
      $0[0].activated(kind)
    } formula: {
      $0[0].map { activation(kind, $0) }
    }
    checkGradients([x, up]) {
      Tensor.gated($0[0], $0[1], kind)
    } formula: {
      zip($0[0], $0[1]).map { activation(kind, $0) * $1 }
    }
  }
  checkGradients([x]) {
    Tensor.gated($0[0], $0[0], .silu)
  } formula: {
    $0[0].map { activation(.silu, $0) * $0 }
  }
}

@Test(arguments: shapes, [Float(0), 1])
func rootMeanSquareNormsHaveTheirGradients(shape: [Int], offset: Float) {
  var numbers = TestNumbers(33)
  let width = shape[1]
  let (x, w) = (numbers.tensor(shape, scale: 3), numbers.tensor([width]))
  func norm(_ x: [Double], _ w: [Double]?) -> [Double] {
    byRow(x, width) { row in
      let square = row.reduce(0) { $0 + $1 * $1 } / Double(width)
      let factor = 1 / (square + Double(Float(1e-3))).squareRoot()
      return row.indices.map { i in
        let scale = w.map { Double(offset) + $0[i] } ?? 1
        return row[i] * factor * scale
      }
    }
  }
  for trained in [[true, true], [true, false], [false, true]] {
    checkGradients([x, w], trained: trained) {
      $0[0].rmsNormalized(weight: $0[1], epsilon: 1e-3, offset: offset)
    } formula: {
      norm($0[0], $0[1])
    }
  }
  checkGradients([x]) {
    $0[0].rmsNormalized(weight: nil, epsilon: 1e-3)
  } formula: {
    norm($0[0], nil)
  }
}

@Test(arguments: shapes) func layerNormsHaveTheirGradients(shape: [Int]) {
  var numbers = TestNumbers(34)
  let width = shape[1]
  let (x, w, b) = (
    numbers.tensor(shape, scale: 3), numbers.tensor([width]), numbers.tensor([width])
  )
  func norm(_ x: [Double], _ w: [Double]?, _ b: [Double]?) -> [Double] {
    byRow(x, width) { row in
      let mean = row.reduce(0, +) / Double(width)
      let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(width)
      let factor = 1 / (variance + Double(Float(1e-3))).squareRoot()
      return row.indices.map { i in
        let scale = w?[i] ?? 1, shift = b?[i] ?? 0
        return (row[i] - mean) * factor * scale + shift
      }
    }
  }
  for trained in [[true, true, true], [false, true, false], [false, false, true]] {
    checkGradients([x, w, b], trained: trained, tolerance: 2e-5) {
      $0[0].layerNormalized(weight: $0[1], bias: $0[2], epsilon: 1e-3)
    } formula: {
      norm($0[0], $0[1], $0[2])
    }
  }
  checkGradients([x, w], tolerance: 2e-5) {
    $0[0].layerNormalized(weight: $0[1], bias: nil, epsilon: 1e-3)
  } formula: {
    norm($0[0], $0[1], nil)
  }
  checkGradients([x, b], tolerance: 2e-5) {
    $0[0].layerNormalized(weight: nil, bias: $0[1], epsilon: 1e-3)
  } formula: {
    norm($0[0], nil, $0[1])
  }
  checkGradients([x], tolerance: 2e-5) {
    $0[0].layerNormalized(weight: nil, bias: nil, epsilon: 1e-3)
  } formula: {
    norm($0[0], nil, nil)
  }
}

@Test(arguments: shapes) func biasesHaveTheirGradients(shape: [Int]) {
  var numbers = TestNumbers(35)
  let (x, b) = (numbers.tensor(shape), numbers.tensor([shape[1]]))
  for trained in [[true, true], [true, false], [false, true]] {
    checkGradients([x, b], trained: trained) {
      $0[0].adding(bias: $0[1])
    } formula: { values in
      byRow(values[0], shape[1]) { zip($0, values[1]).map { $0 + $1 } }
    }
  }
}

@Test func lookedUpRowsGatherTheirGradients() {
  var numbers = TestNumbers(36)
  for type in [DType.float32, .bfloat16] {
    let table = numbers.tensor([9, 17]).converted(to: type)
    let ids = [3, 0, 3, 8, 3, 0]
    checkGradients([table], samples: 153) {
      $0[0].rows(at: ids)
    } formula: { values in
      ids.flatMap { values[0][($0 * 17)..<(($0 + 1) * 17)] }
    }
  }
}

@Test(arguments: [[1, 1], [3, 17], [70, 33]]) func partsHaveTheirGradients(shape: [Int]) {
  var numbers = TestNumbers(37)
  let (rows, width) = (shape[0], shape[1])
  let x = numbers.tensor(shape)
  let (middle, some) = ((rows / 3)..<((2 * rows + 2) / 3), (width / 4)..<((3 * width + 3) / 4))
  checkGradients([x]) {
    $0[0].rows(middle)
  } formula: {
    Array($0[0][(middle.lowerBound * width)..<(middle.upperBound * width)])
  }
  checkGradients([x]) {
    $0[0].columns(some)
  } formula: {
    byRow($0[0], width) { Array($0[some]) }
  }
  checkGradients([x]) {
    $0[0].reshaped([width, 1, rows])
  } formula: {
    $0[0]
  }
  // Overlapping views of one tensor.
  checkGradients([x]) {
    $0[0].rows(0..<rows) + $0[0].reshaped([rows, width]) + $0[0].columns(0..<width)
  } formula: {
    $0[0].map { 3 * $0 }
  }
  let (y, z) = (numbers.tensor([2, width]), numbers.tensor([1, width]))
  checkGradients([x, y, z]) {
    Tensor.stacked($0)
  } formula: {
    $0.flatMap { $0 }
  }
  checkGradients([x, y, z], trained: [false, true, false]) {
    Tensor.stacked($0)
  } formula: {
    $0.flatMap { $0 }
  }
  checkGradients([x]) {
    Tensor.stacked([$0[0], $0[0]])
  } formula: {
    $0[0] + $0[0]
  }
  checkGradients([x]) {
    Tensor.stacked([$0[0]]).scaled(by: 2)
  } formula: {
    $0[0].map { 2 * $0 }
  }
}

@Test func deinterleavedPartsHaveTheirGradients() {
  var numbers = TestNumbers(38)
  for (tokens, units, parts, size) in [(1, 1, 1, 1), (5, 3, 3, 7), (70, 2, 3, 16)] {
    let x = numbers.tensor([tokens, units * parts * size])
    func split(_ x: [Double], _ part: Int) -> [Double] {
      (0..<(tokens * units)).flatMap { unit in
        let first = (unit * parts + part) * size
        return x[first..<(first + size)]
      }
    }
    checkGradients([x]) {
      Tensor.stacked($0[0].deinterleaved(units: units, parts: parts, size: size))
    } formula: { values in
      (0..<parts).flatMap { split(values[0], $0) }
    }
    checkGradients([x]) {
      $0[0].deinterleaved(units: units, parts: parts, size: size)[parts - 1]
    } formula: {
      split($0[0], parts - 1)
    }
  }
}

/// `[tokens, in, out]`: few rows, several, many; more than one tile.
private let products = [
  [1, 1, 1], [1, 40, 9], [3, 17, 5], [11, 64, 33], [70, 33, 50], [130, 65, 70], [520, 40, 24],
]

@Test(arguments: products) func productsOfActivationsHaveTheirGradients(shape: [Int]) {
  var numbers = TestNumbers(39)
  let (m, k, n) = (shape[0], shape[1], shape[2])
  let a = numbers.tensor([m, k])
  let (b, c) = (numbers.tensor([k, n]), numbers.tensor([n, k]))
  for trained in [[true, true], [true, false], [false, true]] {
    checkGradients([a, b], trained: trained, samples: 12) {
      Tensor.matmul($0[0], $0[1])
    } formula: {
      product($0[0], $0[1], m, k, n)
    }
    checkGradients([a, c], trained: trained, samples: 12) {
      Tensor.matmul($0[0], transposing: $0[1])
    } formula: {
      product($0[0], $0[1], m, k, n, transposed: true)
    }
  }
}

@Test(arguments: products, [DType.float32, .bfloat16, .float16])
func productsWithWeightsHaveTheirGradients(shape: [Int], type: DType) {
  var numbers = TestNumbers(40)
  let (tokens, inputs, outputs) = (shape[0], shape[1], shape[2])
  let x = numbers.tensor([tokens, inputs])
  let weight = numbers.tensor([outputs, inputs]).converted(to: type)
  let transposed = numbers.tensor([inputs, outputs]).converted(to: type)
  for trained in [[true, true], [true, false], [false, true]] {
    checkGradients([x, weight], trained: trained, samples: 12) {
      DenseWeight($0[1]).multiply($0[0])
    } formula: {
      product($0[0], $0[1], tokens, inputs, outputs, transposed: true)
    }
    checkGradients([x, transposed], trained: trained, samples: 12) {
      TransposedWeight($0[1]).multiply($0[0])
    } formula: {
      product($0[0], $0[1], tokens, inputs, outputs)
    }
  }
}

@Test func aMatrixUsedTwiceGathersBothGradients() {
  var numbers = TestNumbers(41)
  for type in [DType.float32, .bfloat16] {
    let x = numbers.tensor([70, 33])
    let W = numbers.tensor([33, 33], scale: 0.4).converted(to: type)
    checkGradients([x, W], samples: 12) {
      $0[0].multiplied(byTransposeOf: $0[1]).multiplied(by: $0[1])
    } formula: {
      product(product($0[0], $0[1], 70, 33, 33, transposed: true), $0[1], 70, 33, 33)
    }
  }
  let a = numbers.tensor([20, 20], scale: 0.5)
  checkGradients([a]) {
    Tensor.matmul(Tensor.matmul($0[0], $0[0]), transposing: $0[0])
  } formula: {
    product(product($0[0], $0[0], 20, 20, 20), $0[0], 20, 20, 20, transposed: true)
  }
  // A table that is looked up and multiplied by, as a tied head.
  let table = numbers.tensor([12, 8])
  checkGradients([table], samples: 96) {
    $0[0].rows(at: [5, 5, 1]).activated(.silu).multiplied(byTransposeOf: $0[0])
  } formula: { values in
    let rows = [5, 5, 1].flatMap { values[0][($0 * 8)..<(($0 + 1) * 8)] }
    return product(rows.map { activation(.silu, $0) }, values[0], 3, 8, 12, transposed: true)
  }
}

@Test func rotationsOfSeveralTextsHaveTheirGradients() {
  var numbers = TestNumbers(42)
  let frequencies: [Float] = [1, 0.3, 0.01]
  let table = RotaryTable(
    inverseFrequencies: frequencies, positions: 2..<700, attentionScaling: 1.25)
  for (heads, dim, segments) in [
    (1, 6, [2..<3]), (2, 8, [4..<9, 2..<3, 5..<12]), (5, 11, [2..<2, 3..<690, 2..<30]),
  ] {
    let positions = segments.flatMap { Array($0) }
    let x = numbers.tensor([positions.count, heads * dim])
    checkGradients([x]) {
      $0[0].rotated(by: table, heads: heads, headDim: dim, segments: segments)
    } formula: { values in
      var y = values[0]
      for (row, position) in positions.enumerated() {
        for head in 0..<heads {
          for i in 0..<3 {
            let at = (row * heads + head) * dim + i
            let angle = Double(Float(position) * frequencies[i])
            let (a, b) = (values[0][at], values[0][at + 3])
            y[at] = 1.25 * (a * cos(angle) - b * sin(angle))
            y[at + 3] = 1.25 * (b * cos(angle) + a * sin(angle))
          }
        }
      }
      return y
    }
  }
}
