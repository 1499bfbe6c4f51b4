import CKernels
import Tensors
import Testing

/// A product in C's own memory, with strides that leave a gap after each row.
private func product(
  _ m: Int, _ n: Int, _ k: Int, transposed: (a: Bool, b: Bool), adding: Bool,
  seed: UInt64, by kernel: (UnsafePointer<pare_gemm_product>) -> Void
) -> [Float] {
  var numbers = TestNumbers(seed)
  let strides = (a: (transposed.a ? m : k) + 3, b: (transposed.b ? k : n) + 1, c: n + 5)
  let a = numbers.floats((transposed.a ? k : m) * strides.a + 1)
  let b = numbers.floats((transposed.b ? n : k) * strides.b + 1)
  var c = numbers.floats(m * strides.c)
  a.withUnsafeBufferPointer { a in
    b.withUnsafeBufferPointer { b in
      c.withUnsafeMutableBufferPointer { c in
        var product = pare_gemm_product(
          m: m, n: n, k: k, a: a.baseAddress, a_stride: strides.a,
          a_transposed: transposed.a ? 1 : 0, b: b.baseAddress, b_stride: strides.b,
          b_transposed: transposed.b ? 1 : 0, c: c.baseAddress, c_stride: strides.c, scale: 0.7,
          adding: adding ? 1 : 0)
        kernel(&product)
      }
    }
  }
  return c
}

private let transposes = [(false, false), (false, true), (true, false), (true, true)]

@Test(arguments: transposes) func productsReachEveryTail(a: Bool, b: Bool) {
  for m in 1...33 {
    for n in Array(1...40) + [64, 65] {
      let k = (m * 7 + n * 3) % 71
      let adding = (m + n) % 2 == 0
      let seed = UInt64(m * 100 + n)
      let fast = product(m, n, k, transposed: (a, b), adding: adding, seed: seed) { pare_gemm($0) }
      let exact = product(m, n, k, transposed: (a, b), adding: adding, seed: seed) {
        pare_gemm_ref($0)
      }
      // What lies between the rows is compared too: it stays as it was.
      for (x, y) in zip(fast, exact) where !(abs(x - y) <= 4e-6) {
        Issue.record("\(m)×\(n)×\(k): \(x), not \(y)")
        return
      }
    }
  }
}

/// Depths and widths beyond what is packed at once, and rows that share sets of the cache.
@Test(arguments: transposes) func longProductsAgreeWithDouble(a: Bool, b: Bool) {
  for (m, n, k) in [
    (5, 600, 30), (17, 40, 700), (30, 330, 520), (3, 2, 1025), (20, 33, 509), (509, 20, 40),
  ] {
    for adding in [false, true] {
      let fast = product(m, n, k, transposed: (a, b), adding: adding, seed: 7) { pare_gemm($0) }
      let exact = product(m, n, k, transposed: (a, b), adding: adding, seed: 7) {
        pare_gemm_ref($0)
      }
      let worst = zip(fast, exact).map { abs($0 - $1) }.max() ?? 0
      #expect(worst < 2e-5, "\(m)×\(n)×\(k)")
    }
  }
}

@Test func productsDoNotDependOnHowTheyAreCut() {
  var numbers = TestNumbers(11)
  let (m, n, k) = (150, 210, 300)
  let (a, b) = (numbers.tensor([m, k]), numbers.tensor([k, n]))
  let whole = Tensor.matmul(a, b)
  for (rows, columns) in [(64, 64), (14, 32), (37, 70)] {
    var parts = [Float](repeating: 0, count: m * n)
    for row in stride(from: 0, to: m, by: rows) {
      for column in stride(from: 0, to: n, by: columns) {
        parts.withUnsafeMutableBufferPointer { target in
          guard let base = target.baseAddress else { return }
          TiledProduct.run(
            min(rows, m - row), min(columns, n - column), k,
            MatrixOperand(a, offset: row * k, stride: k),
            MatrixOperand(b, offset: column, stride: n), into: base + row * n + column, stride: n)
        }
      }
    }
    #expect(parts == whole.array)
  }
}
