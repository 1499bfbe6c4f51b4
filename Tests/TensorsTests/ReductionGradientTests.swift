import Foundation
import Tensors
import Testing

/// A matrix of an oracle.
private typealias Rows = [[Double]]

extension Tensor {
  fileprivate var doubleRows: [[Double]] {
    let all = doubles
    return (0..<rows).map { Array(all[$0 * columns..<($0 + 1) * columns]) }
  }
}

/// The value of an operation, and its gradient against central differences of the oracle in double,
/// both under random cotangents.
private func check(
  _ x: Tensor, _ operation: (Tensor) -> Tensor, _ oracle: (Rows) -> [Double],
  sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let leaf = x.asLeaf
  let result = operation(leaf)
  let expected = oracle(x.doubleRows)
  try #require(result.count == expected.count, sourceLocation: sourceLocation)
  let size = max(expected.map { abs($0) }.max() ?? 0, 1e-3)
  for (a, b) in zip(result.doubles, expected) {
    #expect(abs(a - b) < 5e-6 * size, sourceLocation: sourceLocation)
  }
  #expect(operation(x).array == result.array, sourceLocation: sourceLocation)
  var numbers = TestNumbers(99)
  let cotangent = numbers.tensor(result.shape)
  Tape.backward([(result, cotangent)])
  let gradient = try #require(leaf.gradient, sourceLocation: sourceLocation).doubles
  let factors = cotangent.doubles
  func pulled(_ rows: Rows) -> Double { zip(oracle(rows), factors).reduce(0) { $0 + $1.0 * $1.1 } }
  let step = 1e-6
  var differences: [Double] = []
  for row in 0..<x.rows {
    for column in 0..<x.columns {
      var (more, less) = (x.doubleRows, x.doubleRows)
      more[row][column] += step
      less[row][column] -= step
      differences.append((pulled(more) - pulled(less)) / (2 * step))
    }
  }
  let scale = max(differences.map { abs($0) }.max() ?? 0, 1e-3)
  for (a, b) in zip(gradient, differences) {
    #expect(abs(a - b) < 2e-5 * scale, sourceLocation: sourceLocation)
  }
}

private func softmax(_ x: ArraySlice<Double>) -> [Double] {
  let largest = x.max() ?? 0
  let e = x.map { exp($0 - largest) }
  return e.map { $0 / e.reduce(0, +) }
}

private let shapes = [[1, 1], [1, 7], [3, 1], [5, 5], [7, 17], [2, 33]]
private let spans: [RowSpan] = [.all, .causal(), .causal(window: 2)]

private func weights(_ count: Int) -> [Float] {
  (0..<count).map { $0 % 3 == 1 ? 0 : 0.25 + Float($0) / 8 }
}

struct ReductionGradientTests {
  @Test func spansAreThoseOfTheirMasks() {
    #expect(RowSpan.all.columns(of: 3, width: 5) == 0..<5)
    #expect(RowSpan.causal().columns(of: 0, width: 5) == 0..<1)
    #expect(RowSpan.causal().columns(of: 4, width: 5) == 0..<5)
    #expect(RowSpan.causal(window: 2).columns(of: 0, width: 5) == 0..<1)
    #expect(RowSpan.causal(window: 2).columns(of: 4, width: 5) == 3..<5)
  }

  @Test(arguments: shapes) func squaredErrorIsAWeightedMeanOfSquares(shape: [Int]) throws {
    var numbers = TestNumbers(1)
    let (x, y) = (numbers.tensor(shape), numbers.tensor(shape))
    let w = weights(shape[0])
    for span in shape[0] == shape[1] ? spans : [.all] {
      try check(x, { $0.squaredError(to: y, weights: w, seeing: span) }) { x in
        let y = y.doubleRows
        return [
          x.indices.reduce(0) { sum, i in
            let seen = span.columns(of: i, width: shape[1])
            let squares = seen.reduce(0) { $0 + (x[i][$1] - y[i][$1]) * (x[i][$1] - y[i][$1]) }
            return sum + Double(w[i]) * squares / Double(seen.count)
          }
        ]
      }
    }
  }

  @Test(arguments: shapes) func cosineErrorIsOneMinusTheCosine(shape: [Int]) throws {
    var numbers = TestNumbers(2)
    let (x, y) = (numbers.tensor(shape), numbers.tensor(shape))
    let w = weights(shape[0])
    try check(x, { $0.cosineError(to: y, weights: w) }) { x in
      let y = y.doubleRows
      func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
      return [
        x.indices.reduce(0) { sum, i in
          let cosine = dot(x[i], y[i]) / (dot(x[i], x[i]) * dot(y[i], y[i])).squareRoot()
          return sum + Double(w[i]) * (1 - cosine)
        }
      ]
    }
  }

  @Test func aRowOfZerosHasNoDirectionAndNoGradient() throws {
    let x = Tensor([0, 0, 3, 4], shape: [2, 2]).asLeaf
    let loss = x.cosineError(to: Tensor([1, 2, 3, 4], shape: [2, 2]), weights: [1, 1])
    #expect(abs(loss.doubles[0] - 1) < 1e-6)
    Tape.backward([(loss, Tensor([1], shape: [1]))])
    #expect(try #require(x.gradient).array[..<2] == [0, 0])
    let unit = x.unitRows()
    #expect(unit.array == [0, 0, 0.6, 0.8])
  }

  @Test(arguments: [2, 3, 9], [0.3, 1.0]) func huberIsSquareNearAndLinearFar(
    count: Int, delta: Double
  ) throws {
    var numbers = TestNumbers(3)
    let (x, y) = (numbers.tensor([count, count]), numbers.tensor([count, count]))
    let w = weights(count)
    try check(x, { $0.huberError(to: y, weights: w, delta: Float(delta)) }) { x in
      let y = y.doubleRows
      let delta = Double(Float(delta))
      var sum = 0.0
      for i in 0..<count {
        for j in 0..<count where i != j {
          let d = abs(x[i][j] - y[i][j])
          let loss = d <= delta ? d * d / 2 : delta * (d - delta / 2)
          sum += Double(w[i]) * loss / Double(count - 1)
        }
      }
      return [sum]
    }
  }

  @Test(arguments: shapes) func divergencesAreThoseOfTheirDistributions(shape: [Int]) throws {
    var numbers = TestNumbers(4)
    let (x, y) = (numbers.tensor(shape, scale: 3), numbers.tensor(shape, scale: 3))
    let w = weights(shape[0])
    for span in shape[0] == shape[1] ? spans : [.all] {
      func divergence(_ i: Int, _ p: [Double], _ q: [Double]) -> Double {
        Double(w[i]) * zip(p, q).reduce(0) { $0 + $1.0 * log($1.0 / $1.1) }
      }
      try check(x, { $0.softmaxDivergence(from: y, weights: w, seeing: span) }) { x in
        let y = y.doubleRows
        return [
          x.indices.reduce(0) { sum, i in
            let seen = span.columns(of: i, width: shape[1])
            return sum + divergence(i, softmax(y[i][seen]), softmax(x[i][seen]))
          }
        ]
      }
      let (p, q) = (x.softmaxRows(seeing: span), y.softmaxRows(seeing: span))
      try check(p, { $0.divergence(from: q, weights: w, seeing: span) }) { p in
        let q = q.doubleRows
        return [
          p.indices.reduce(0) { sum, i in
            let seen = span.columns(of: i, width: shape[1])
            return sum + divergence(i, Array(q[i][seen]), Array(p[i][seen]))
          }
        ]
      }
    }
  }

  @Test(arguments: shapes) func softmaxOfRowsLeavesWhatIsHiddenAtZero(shape: [Int]) throws {
    var numbers = TestNumbers(5)
    let x = numbers.tensor(shape, scale: 3)
    for span in shape[0] == shape[1] ? spans : [.all] {
      try check(x, { $0.softmaxRows(seeing: span) }) { x in
        x.indices.flatMap { i in
          let seen = span.columns(of: i, width: shape[1])
          return [Double](repeating: 0, count: seen.lowerBound) + softmax(x[i][seen])
            + [Double](repeating: 0, count: shape[1] - seen.upperBound)
        }
      }
    }
  }

  @Test(arguments: shapes) func unitRowsHaveLengthOne(shape: [Int]) throws {
    var numbers = TestNumbers(6)
    try check(numbers.tensor(shape), { $0.unitRows() }) { x in
      x.flatMap { row in
        row.map { $0 / row.reduce(0) { $0 + $1 * $1 }.squareRoot() }
      }
    }
  }

  @Test(arguments: shapes) func distancesAreEuclideanAlsoInUnitsOfTheirMean(shape: [Int]) throws {
    var numbers = TestNumbers(7)
    let x = numbers.tensor(shape)
    func distances(_ x: Rows) -> [Double] {
      x.flatMap { a in
        x.map { b in
          zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
        }
      }
    }
    try check(x, { $0.pairwiseDistances() }, distances)
    guard shape[0] > 1 else { return }
    let pairs = shape[0] * (shape[0] - 1)
    try check(x, { $0.pairwiseDistances().dividedByMean(over: pairs) }) { x in
      let all = distances(x)
      return all.map { $0 * Double(pairs) / all.reduce(0, +) }
    }
  }

  @Test func rowsThatAgreePassNoGradient() throws {
    let x = Tensor([1, 2, 1, 2, 4, 6], shape: [3, 2]).asLeaf
    let distances = x.pairwiseDistances()
    #expect(distances.array == [0, 0, 5, 0, 0, 5, 5, 5, 0])
    Tape.backward([(distances, Tensor([1, 1, 0, 1, 1, 0, 0, 0, 1], shape: [3, 3]))])
    #expect(try #require(x.gradient).array.allSatisfy { $0 == 0 })
    let same = Tensor([1, 1], shape: [2, 1]).pairwiseDistances().dividedByMean(over: 2)
    #expect(same.array == [0, 0, 0, 0])
  }

  @Test func aSumOverPiecesIsThatOfOneComputation() throws {
    var numbers = TestNumbers(8)
    let (a, b, y) = (numbers.tensor([6, 4]), numbers.tensor([6, 3]), numbers.tensor([2, 2]))
    func piece(_ index: Int, _ inputs: [Tensor]) -> Tensor? {
      guard index != 1 else { return nil }
      let x = inputs[0].rows(index..<index + 2), z = inputs[1].rows(index..<index + 2)
      return (Tensor.matmul(x, transposing: x) + Tensor.matmul(z, transposing: z))
        .squaredError(to: y, weights: [1, 0.5])
    }
    let (whole, pieces) = ((a.asLeaf, b.asLeaf), (a.asLeaf, b.asLeaf))
    let scalars = (0..<5).compactMap { piece($0, [whole.0, whole.1]) }
    Tape.backward(scalars.map { ($0, Tensor([0.5], shape: [1])) })
    let sum = Tape.sum([pieces.0, pieces.1], over: 5) { piece($0, $1) }
    #expect(abs(sum.doubles[0] - scalars.reduce(0) { $0 + $1.doubles[0] }) < 1e-5)
    Tape.backward([(sum, Tensor([0.5], shape: [1]))])
    for (one, other) in [(whole.0, pieces.0), (whole.1, pieces.1)] {
      let (g, h) = (try #require(one.gradient).doubles, try #require(other.gradient).doubles)
      for (x, y) in zip(g, h) { #expect(abs(x - y) < 1e-5) }
    }
    // A constant among the inputs stays one.
    let constant = Tape.sum([a, pieces.1], over: 5) { piece($0, $1) }
    #expect(constant.array == sum.array && a.gradient == nil)
  }

  @Test func threadsDoNotChangeALoss() throws {
    var numbers = TestNumbers(9)
    let (x, y) = (numbers.tensor([301, 301]), numbers.tensor([301, 301]))
    let w = weights(301)
    let threads = Parallel.threads
    defer { Parallel.threads = threads }
    let results = [1, 2, 3].map { count -> [Float] in
      Parallel.threads = count
      return x.softmaxDivergence(from: y, weights: w, seeing: .causal()).array
        + x.squaredError(to: y, weights: w).array + x.huberError(to: y, weights: w).array
        + x.pairwiseDistances().dividedByMean(over: 301 * 300).array
    }
    #expect(results[0] == results[1] && results[1] == results[2])
  }
}
