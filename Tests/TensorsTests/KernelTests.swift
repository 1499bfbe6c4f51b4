import CKernels
import Foundation
import Tensors
import Testing

@Test func dotProductsReachEveryTail() {
  var numbers = TestNumbers(3)
  for count in tails {
    let (w, x) = (numbers.tensor([count]), numbers.floats(count))
    for type in [DType.float32, .bfloat16, .float16] {
      let stored = w.converted(to: type)
      let widened = stored.widened().array
      let exact = pare_dot_ref(widened, x, count)
      let size = zip(widened, x).reduce(0) { $0 + abs(Double($1.0) * Double($1.1)) }
      // One byte further, where no element is aligned.
      var bytes = [UInt8](repeating: 0, count: stored.byteCount + 1)
      bytes.replaceSubrange(1..., with: stored.bytes)
      for shift in [0, type == .float32 ? 0 : 1] {
        let result = (shift == 0 ? Array(stored.bytes) + [0] : bytes).withUnsafeBytes { raw in
          switch (type, raw.baseAddress.map { $0 + shift }) {
          case (.float32, let base): pare_dot_f32(base, x, count)
          case (.bfloat16, let base): pare_dot_bf16(base, x, count)
          case (_, let base): pare_dot_f16(base, x, count)
          }
        }
        #expect(abs(Double(result) - exact) <= 1e-6 * size + 1e-12, "\(type) \(count)")
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
