import CKernels
import Foundation
import Tensors
import Testing

@Test func dotProductsReachEveryTail() {
  var numbers = TestNumbers(3)
  for count in tails {
    let (w, x) = (numbers.floats(count), numbers.floats(count))
    let size = zip(w, x).reduce(0) { $0 + abs(Double($1.0) * Double($1.1)) }
    let gap = Double(pare_dot_f32(w, x, count)) - pare_dot_ref(w, x, count)
    #expect(abs(gap) <= 1e-6 * size + 1e-12, "\(count)")
  }
}

@Test(arguments: [
  (DType.float32, PARE_DENSE_F32), (.bfloat16, PARE_DENSE_BF16), (.float16, PARE_DENSE_F16),
])
func denseRowsTimesFewTokensReachEveryTail(type: DType, kernelType: pare_dense_type) {
  var numbers = TestNumbers(4)
  for columns in tails where columns < 300 {
    let rows = 1 + columns % 7
    let stored = numbers.tensor([rows, columns]).converted(to: type)
    // One byte further, where no element is aligned.
    let shifted = [0] + Array(stored.bytes)
    for tokens in 1...Int(PARE_DENSE_TOKENS) {
      let x = numbers.floats(tokens * columns)
      var results = [[Float]](repeating: [Float](repeating: 0, count: tokens * rows), count: 3)
      shifted.withUnsafeBytes { bytes in
        guard let base = bytes.baseAddress else { return }
        pare_dense_multiply_rows(
          kernelType, stored.rawPointer, columns, 0, rows, x, tokens, &results[0], rows)
        pare_dense_multiply_rows(
          kernelType, base + 1, columns, 0, rows, x, tokens, &results[1], rows)
        pare_dense_multiply_rows_reference(
          kernelType, base + 1, columns, 0, rows, x, tokens, &results[2], rows)
      }
      #expect(results[0] == results[1])
      for (value, exact) in zip(results[0], results[2]) {
        #expect(abs(value - exact) <= 1e-6 * Float(columns) + 1e-6, "\(columns) columns")
      }
    }
  }
}

@Test(arguments: [Activation.silu, .gelu, .geluTanh, .relu])
func activationsAgreeWithTheirFormulas(activation: Activation) {
  func formula(_ x: Double) -> Double {
    switch activation {
    case .silu: x / (1 + exp(-x))
    case .gelu: x / 2 * (1 + erf(x / 2.0.squareRoot()))
    case .geluTanh:
      x / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
    case .relu: max(x, 0)
    }
  }
  var numbers = TestNumbers(4)
  for count in tails {
    let x = Tensor(numbers.floats(count, scale: 12), shape: [1, count])
    for (input, output) in zip(x.doubles, x.activated(activation).doubles) {
      #expect(abs(output - formula(input)) <= 2e-6 * max(1, abs(input)))
    }
  }
  let extremes = Tensor([-200, -100, -88.5, 0, 88.5, 100, 200], shape: [1, 7])
  for (input, output) in zip(extremes.doubles, extremes.activated(activation).doubles) {
    #expect(abs(output - formula(input)) <= 1e-4)
  }
}

@Test func elementwiseOperationsReachEveryTail() {
  var numbers = TestNumbers(5)
  for count in tails {
    let (a, b) = (numbers.tensor([1, count]), numbers.tensor([1, count], scale: 9))
    let sum = (a + b).array, product = a.multiplied(elementwise: b).array
    let scaled = a.scaled(by: 1.7).array, capped = b.softCapped(3).doubles
    let gated = Tensor.gated(a, b, .silu).doubles
    for i in 0..<count {
      #expect(sum[i] == a.floats[i] + b.floats[i])
      #expect(product[i] == a.floats[i] * b.floats[i])
      #expect(scaled[i] == a.floats[i] * 1.7)
      #expect(abs(capped[i] - 3 * tanh(Double(b.floats[i]) / 3)) < 3e-6)
      let x = a.doubles[i]
      #expect(abs(gated[i] - x / (1 + exp(-x)) * b.doubles[i]) < 1e-5)
    }
  }
}

@Test func normsAgreeWithTheirFormulas() {
  var numbers = TestNumbers(6)
  for width in tails where width > 0 {
    let x = numbers.tensor([3, width], scale: 5)
    let (w, b) = (numbers.tensor([width]), numbers.tensor([width]))
    let rms = x.rmsNormalized(weight: w, epsilon: 1e-3, offset: 1).doubles
    let layer = x.layerNormalized(weight: w, bias: b, epsilon: 1e-3).doubles
    let plain = x.layerNormalized(weight: nil, bias: nil, epsilon: 1e-3).doubles
    let biased = x.adding(bias: b).array
    for row in 0..<3 {
      let values = Array(x.doubles[(row * width)..<((row + 1) * width)])
      let mean = values.reduce(0, +) / Double(width)
      let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(width)
      let square = values.reduce(0) { $0 + $1 * $1 } / Double(width)
      for i in 0..<width {
        let at = row * width + i
        let normed = (values[i] - mean) / (variance + 1e-3).squareRoot()
        #expect(abs(plain[at] - normed) < 3e-5)
        #expect(abs(layer[at] - (normed * w.doubles[i] + b.doubles[i])) < 3e-5)
        let scaled = values[i] / (square + 1e-3).squareRoot() * (1 + w.doubles[i])
        #expect(abs(rms[at] - scaled) < 1e-5)
        #expect(biased[at] == x.floats[at] + b.floats[i])
      }
    }
  }
}

@Test func logSumExpAndArgmaxAreExactEnough() {
  var numbers = TestNumbers(7)
  for count in tails where count > 0 {
    let x = numbers.tensor([2, count], scale: 30)
    for (row, sum) in x.logSumExpRows().enumerated() {
      let values = x.doubles[(row * count)..<((row + 1) * count)]
      let largest = values.max() ?? 0
      let exact = largest + log(values.reduce(0) { $0 + exp($1 - largest) })
      #expect(abs(sum - exact) < 1e-6 * max(1, abs(exact)))
    }
    let rows = x.argmaxRows()
    for row in 0..<2 {
      let values = Array(x.array[(row * count)..<((row + 1) * count)])
      #expect(rows[row] == values.firstIndex(of: values.max() ?? 0))
    }
  }
  #expect(Tensor([1, 7, 7, 2], shape: [1, 4]).argmaxRows() == [1])
  let far = Tensor([-1e30, 1000, -.infinity, 999], shape: [1, 4]).logSumExpRows()[0]
  // Each exponential errs by at most 2 ulp of float32.
  #expect(abs(far - (1000 + log(1 + exp(-1.0)))) < 3e-7)
}
