import Distillation
import Foundation
import Tensors
import Testing

/// A matrix of an oracle: `[rows][columns]`, what a float32 tensor of it holds exactly.
typealias Rows = [[Double]]

func randomRows(_ rows: Int, _ columns: Int, seed: UInt64, scale: Double = 1) -> Rows {
  var random = Xoshiro256(seed: seed)
  return (0..<rows).map { _ in
    (0..<columns).map { _ in Double(Float((random.uniform() * 2 - 1) * scale)) }
  }
}

extension Tensor {
  init(rows: Rows) {
    self.init(
      rows.flatMap { $0.map { Float($0) } }, shape: [rows.count, rows.first?.count ?? 0])
  }

  var doubleRows: Rows {
    (0..<rows).map { row in (0..<columns).map { Double(floats[row * columns + $0]) } }
  }
}

/// What a loss sees of a model, in double.
struct DoublePass {
  var embedding: Rows = []
  var blocks: [Rows] = []
  var final: Rows = []
  /// Per block: queries, keys, values.
  var attention: [[Rows]] = []
  var heads = 1
  var keyValueHeads = 1
  var mask: AttentionMask?

  /// `[tokens, width]` states and `heads · headDim` attention of `layers` blocks.
  static func random(
    layers: Int, tokens: Int, width: Int, heads: Int, keyValueHeads: Int, headDim: Int,
    mask: AttentionMask? = nil, seed: UInt64
  ) -> DoublePass {
    var next = seed &* 1000
    func rows(_ columns: Int) -> Rows {
      next += 1
      return randomRows(tokens, columns, seed: next, scale: 1.5)
    }
    return DoublePass(
      embedding: rows(width), blocks: (0..<layers).map { _ in rows(width) }, final: rows(width),
      attention: (0..<layers).map { _ in
        [rows(heads * headDim), rows(keyValueHeads * headDim), rows(keyValueHeads * headDim)]
      }, heads: heads, keyValueHeads: keyValueHeads, mask: mask)
  }

  var shape: StateShape { StateShape(layers: blocks.count, width: final[0].count) }

  /// All matrices, in one order.
  var matrices: [Rows] {
    get { [embedding, final] + blocks + attention.flatMap { $0 } }
    set {
      (embedding, final) = (newValue[0], newValue[1])
      let count = blocks.count
      blocks = Array(newValue[2..<2 + count])
      for block in attention.indices {
        attention[block] = Array(newValue[(2 + count + 3 * block)..<(5 + count + 3 * block)])
      }
    }
  }

  /// The pass of these tensors, in the order of `matrices`.
  func states(_ tensors: [Tensor]) -> PassStates {
    var states = PassStates()
    (states.embedding, states.final) = (tensors[0], tensors[1])
    states.blocks = Array(tensors[2..<2 + blocks.count])
    for block in attention.indices {
      let first = 2 + blocks.count + 3 * block
      states.attention.append(
        .init(
          queries: tensors[first], keys: tensors[first + 1], values: tensors[first + 2],
          heads: heads, keyValueHeads: keyValueHeads, mask: mask))
    }
    return states
  }

  var states: PassStates { states(matrices.map { Tensor(rows: $0) }) }
}

/// A loss's value, and its gradients at every state of the student and every parameter, against an
/// oracle and its central differences.
///
/// - Parameter oracle: `(student, parameters)` to the loss.
func check(
  _ loss: some StateLoss, student: DoublePass, teacher: DoublePass, segments: [Range<Int>],
  weights: [Float], sourceLocation: SourceLocation = #_sourceLocation,
  oracle: (DoublePass, [Rows]) -> Double
) throws {
  let leaves = student.matrices.map { Tensor(rows: $0).asLeaf }
  for parameter in loss.parameters { parameter.clearGradient() }
  let value = try loss.value(
    student: student.states(leaves), teacher: teacher.states, segments: segments, weights: weights)
  let parameters = loss.parameters.map(\.tensor.doubleRows)
  let expected = oracle(student, parameters)
  #expect(value.count == 1, sourceLocation: sourceLocation)
  #expect(
    abs(Double(value.floats[0]) - expected) < 5e-6 * max(abs(expected), 1e-2),
    "\(value.floats[0]), expected \(expected)", sourceLocation: sourceLocation)
  Tape.backward([(value, Tensor([1], shape: [1]))])

  let step = 1e-5
  func differences(_ rows: Rows, _ loss: (Rows) -> Double) -> [Double] {
    var all: [Double] = []
    for i in rows.indices {
      for j in rows[i].indices {
        var (more, less) = (rows, rows)
        more[i][j] += step
        less[i][j] -= step
        all.append((loss(more) - loss(less)) / (2 * step))
      }
    }
    return all
  }
  var compared: [(found: [Double], expected: [Double])] = []
  for (index, leaf) in leaves.enumerated() {
    let expected = differences(student.matrices[index]) { rows in
      var moved = student
      moved.matrices[index] = rows
      return oracle(moved, parameters)
    }
    let found = leaf.gradient?.doubleRows.flatMap { $0 }
    compared.append((found ?? [Double](repeating: 0, count: expected.count), expected))
  }
  for (index, parameter) in loss.parameters.enumerated() {
    let gradient = try #require(parameter.gradient, sourceLocation: sourceLocation)
    let expected = differences(parameters[index]) { rows in
      var moved = parameters
      moved[index] = rows
      return oracle(student, moved)
    }
    compared.append((gradient.doubleRows.flatMap { $0 }, expected))
  }
  let largest = compared.flatMap(\.expected).map { abs($0) }.max() ?? 0
  #expect(largest > 0, sourceLocation: sourceLocation)
  for (found, expected) in compared {
    let error = zip(found, expected).map { abs($0 - $1) }.max() ?? 0
    #expect(error < 5e-5 * largest, sourceLocation: sourceLocation)
  }
}

func dot(_ a: some Sequence<Double>, _ b: some Sequence<Double>) -> Double {
  zip(a, b).reduce(0) { $0 + $1.0 * $1.1 }
}

func softmax(_ x: [Double]) -> [Double] {
  let largest = x.max() ?? 0
  let e = x.map { exp($0 - largest) }
  let sum = e.reduce(0, +)
  return e.map { $0 / sum }
}

/// KL(p ‖ q)
func divergence(_ p: [Double], _ q: [Double]) -> Double {
  zip(p, q).reduce(0) { $0 + $1.0 * (log($1.0) - log($1.1)) }
}

/// Σ wᵢ f(i) / Σ wᵢ over the rows of all texts.
func weightedMean(_ weights: [Float], _ value: (Int) -> Double) -> Double {
  let total = weights.reduce(0.0) { $0 + Double($1) }
  return weights.indices.reduce(0.0) {
    weights[$1] == 0 ? $0 : $0 + Double(weights[$1]) * value($1)
  } / total
}

/// Three texts with rows that do not count, the last one padding.
let texts = [0..<4, 4..<5, 5..<11, 11..<13]
let textWeights: [Float] = [1, 1, 0, 1, 1, 0.5, 1, 0, 1, 1, 1, 0, 0]
