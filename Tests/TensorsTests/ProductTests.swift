import Tensors
import Testing

private func product(_ x: Tensor, _ w: [Double], outputs: Int) -> [Double] {
  let (rows, width) = (x.rows, x.columns)
  let values = x.doubles
  return (0..<rows * outputs).map { index in
    let (row, output) = (index / outputs, index % outputs)
    return (0..<width).reduce(0) { $0 + values[row * width + $1] * w[output * width + $1] }
  }
}

@Test(arguments: [DType.float32, .bfloat16, .float16])
func productsAgreeWithDoublesForFewAndManyRows(type: DType) {
  var numbers = TestNumbers(8)
  for (outputs, width) in [(1, 1), (3, 5), (64, 64), (65, 63), (130, 200), (7, 1025)] {
    let w = numbers.tensor([outputs, width]).converted(to: type)
    for rows in [1, 2, 4, 5, 23, 24, 25, 33] {
      let x = numbers.tensor([rows, width])
      let result = x.multiplied(byTransposeOf: w)
      #expect(result.shape == [rows, outputs])
      let exact = product(x, w.widened().doubles, outputs: outputs)
      for (a, b) in zip(result.doubles, exact) {
        #expect(abs(a - b) <= 1e-6 * Double(width) + 1e-6)
      }
    }
  }
}

@Test func aStoredTransposeMultipliesTheSame() {
  var numbers = TestNumbers(9)
  for (inputs, outputs) in [(5, 3), (70, 130), (64, 1)] {
    let w = numbers.tensor([inputs, outputs]).converted(to: .bfloat16)
    for rows in [1, 9] {
      let x = numbers.tensor([rows, inputs])
      let a = x.multiplied(by: w)
      let b = x.multiplied(byTransposeOf: w.transposed())
      for (p, q) in zip(a.array, b.array) { #expect(abs(p - q) < 1e-4) }
    }
  }
}

@Test func layoutsMoveEveryElement() {
  var numbers = TestNumbers(10)
  let x = numbers.tensor([37, 45])
  let t = x.transposed()
  #expect(t.shape == [45, 37])
  for r in 0..<37 {
    for c in 0..<45 { #expect(t.floats[c * 37 + r] == x.floats[r * 45 + c]) }
  }
  #expect(t.transposed().array == x.array)
  #expect(x.columns(3..<3).count == 0)
  let part = x.columns(7..<19)
  #expect(part.floats[2 * 12 + 5] == x.floats[2 * 45 + 12])
  #expect(
    x.rows(at: [36, 0, 36]).array == Array(x.array[1620...] + x.array[..<45] + x.array[1620...]))
}
