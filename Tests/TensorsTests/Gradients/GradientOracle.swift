import Foundation
import Tensors
import Testing

/// An operation as its formula says, in double: from the numbers of each input to those of the
/// result.
typealias Formula = ([[Double]]) -> [Double]

/// Holds an operation to a formula, its gradients to central differences of that formula, and the
/// tape to its promises: the same bits for every number of threads, and nothing kept afterwards.
///
/// - Parameters:
///   - trained: which inputs have a place in the computation; all when nil.
///   - samples: numbers of each input that are moved.
///   - tolerance: relative to the largest number of what is compared, or 0.1 if that is smaller.
func checkGradients(
  _ inputs: [Tensor], trained: [Bool]? = nil, samples: Int = 24, tolerance: Double = 5e-6,
  _ operation: ([Tensor]) -> Tensor, formula: Formula,
  _ location: SourceLocation = #_sourceLocation
) {
  let trained = trained ?? inputs.map { _ in true }
  var numbers = TestNumbers(UInt64(inputs[0].count))
  let exact = inputs.map { $0.widened().doubles }
  let expected = formula(exact)
  let arriving = numbers.tensor([1, expected.count])

  let (result, gradients) = run(inputs, trained, arriving, operation)
  expectClose(result.doubles, expected, tolerance, "result", at: location)

  func total(_ values: [[Double]]) -> Double {
    zip(formula(values), arriving.doubles).reduce(0) { $0 + $1.0 * $1.1 }
  }
  for (index, input) in inputs.enumerated() {
    guard trained[index] else {
      #expect(gradients[index] == nil, sourceLocation: location)
      continue
    }
    guard let gradient = gradients[index] else {
      Issue.record("no gradient of input \(index)", sourceLocation: location)
      continue
    }
    #expect(gradient.shape == input.shape, sourceLocation: location)
    var (found, slopes): ([Double], [Double]) = ([], [])
    for at in places(in: input.count, samples, &numbers) {
      func moved(_ step: Double) -> Double {
        var values = exact
        values[index][at] += step
        return total(values)
      }
      let step = 1e-5
      slopes.append((moved(step) - moved(-step)) / (2 * step))
      found.append(Double(gradient.floats[at]))
    }
    expectClose(found, slopes, tolerance, "gradient of input \(index)", at: location)
  }

  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  for count in [1, 2] {
    Parallel.threads = count
    let (other, others) = run(inputs, trained, arriving, operation)
    let isSame = other.array == result.array && others.map(\.?.array) == gradients.map(\.?.array)
    #expect(isSame, "\(count) threads", sourceLocation: location)
  }
}

/// The result and the gradients of the inputs that are trained.
private func run(
  _ inputs: [Tensor], _ trained: [Bool], _ arriving: Tensor, _ operation: ([Tensor]) -> Tensor
) -> (Tensor, [Tensor?]) {
  weak var node: GradientNode?
  let leaves = zip(inputs, trained).map { $1 ? $0.asLeaf : $0 }
  func forwardAndBack() -> Tensor {
    let result = operation(leaves)
    node = result.node
    #expect(node != nil)
    Tape.backward([(result, arriving.reshaped(result.shape))])
    return result.detached
  }
  let result = forwardAndBack()
  // Where the result is the input, its node is the leaf, which lives on.
  #expect(node == nil || leaves.contains { $0.node === node })
  return (result, leaves.map(\.gradient))
}

private func places(in count: Int, _ samples: Int, _ numbers: inout TestNumbers) -> [Int] {
  guard count > samples else { return Array(0..<count) }
  let random = numbers.floats(samples - 2, scale: 0.4999).map {
    Int(Double($0 + 0.5) * Double(count))
  }
  return [0, count - 1] + random
}

private func expectClose(
  _ found: [Double], _ expected: [Double], _ tolerance: Double, _ what: String,
  at location: SourceLocation
) {
  #expect(found.count == expected.count, sourceLocation: location)
  let size = max(0.1, expected.map(abs).max() ?? 0)
  var worst = 0.0
  for (a, b) in zip(found, expected) { worst = max(worst, a.isFinite ? abs(a - b) : .infinity) }
  #expect(
    worst <= tolerance * size, "\(what): \(worst / size) of the largest", sourceLocation: location)
}

// MARK: Formulas

/// `a · b` of `[m, k]` and `[k, n]`, or of `[n, k]` where b is transposed.
func product(
  _ a: [Double], _ b: [Double], _ m: Int, _ k: Int, _ n: Int, transposed: Bool = false
) -> [Double] {
  var c = [Double](repeating: 0, count: m * n)
  for row in 0..<m {
    for column in 0..<n {
      var sum = 0.0
      for i in 0..<k {
        sum += a[row * k + i] * (transposed ? b[column * k + i] : b[i * n + column])
      }
      c[row * n + column] = sum
    }
  }
  return c
}

func activation(_ kind: Activation, _ x: Double) -> Double {
  switch kind {
  case .silu: x / (1 + exp(-x))
  case .gelu: x / 2 * (1 + erf(x / 2.0.squareRoot()))
  case .geluTanh: x / 2 * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
  case .relu: max(x, 0)
  }
}

/// Applies a formula of one row to each.
func byRow(_ x: [Double], _ width: Int, _ body: ([Double]) -> [Double]) -> [Double] {
  stride(from: 0, to: x.count, by: width).flatMap { body(Array(x[$0..<($0 + width)])) }
}
