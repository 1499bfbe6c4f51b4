import Foundation
import Tensors
import Testing

@Test func sharedPartsAndDiamondsGatherAllTheirGradients() {
  var numbers = TestNumbers(61)
  let (x, y) = (numbers.tensor([7, 9], scale: 2), numbers.tensor([7, 9]))
  checkGradients([x]) {
    let shared = $0[0].activated(.silu)
    return shared.multiplied(elementwise: shared) + shared + $0[0]
  } formula: {
    $0[0].map { x in
      let shared = activation(.silu, x)
      return shared * shared + shared + x
    }
  }
  checkGradients([x, y]) {
    let top = $0[0].scaled(by: 2) + $0[1]
    let left = top.softCapped(3), right = top.multiplied(elementwise: $0[1])
    let join = left.multiplied(elementwise: right)
    return join + top + left
  } formula: { values in
    zip(values[0], values[1]).map { x, y in
      let top = 2 * x + y
      let left = 3 * tanh(top / 3)
      return left * (top * y) + top + left
    }
  }
}

@Test func gradientsAddUpOverCalls() {
  var numbers = TestNumbers(62)
  let W = Parameter(
    name: "W", initial: numbers.tensor([5, 8]), decays: true, isBlockMatrix: true)
  let (x, first, second) = (
    numbers.tensor([3, 8]), numbers.tensor([3, 5]), numbers.tensor([3, 5])
  )
  func gradient(_ arriving: [Tensor]) -> [Float] {
    W.clearGradient()
    #expect(W.gradient == nil)
    for dy in arriving { Tape.backward([(x.multiplied(byTransposeOf: W.tensor), dy)]) }
    return W.gradient?.array ?? []
  }
  let (one, two, both) = (gradient([first]), gradient([second]), gradient([first, second]))
  for (sum, parts) in zip(both, zip(one, two)) {
    #expect(abs(sum - (parts.0 + parts.1)) < 1e-6)
  }
  // Two results of one call count as much as two calls.
  W.clearGradient()
  let y = x.multiplied(byTransposeOf: W.tensor)
  Tape.backward([(y, first), (y, second)])
  for (a, b) in zip(W.gradient?.array ?? [], both) { #expect(abs(a - b) < 1e-6) }
  W.scaleGradient(by: 0.5)
  for (a, b) in zip(W.gradient?.array ?? [], both) { #expect(abs(a - b / 2) < 1e-6) }
}

@Test func aResultMayBeAPartOfAnother() {
  var numbers = TestNumbers(63)
  let x = numbers.tensor([4, 4]).asLeaf
  let (d1, d2) = (numbers.tensor([4, 4]), numbers.tensor([4, 4]))
  for partIsFirst in [true, false] {
    x.node?.clear()
    let part = x.scaled(by: 3)
    let whole = part.scaled(by: 2)
    Tape.backward(partIsFirst ? [(part, d1), (whole, d2)] : [(whole, d2), (part, d1)])
    for (a, (b, c)) in zip(x.gradient?.array ?? [], zip(d1.array, d2.array)) {
      #expect(abs(a - (3 * b + 6 * c)) < 1e-5)
    }
  }
}

/// What training gave as a gradient stays what it was, whatever arrives later.
@Test func gradientsThatWereTakenStayConstant() {
  var numbers = TestNumbers(64)
  let x = numbers.tensor([4, 4]).asLeaf
  let dy = numbers.tensor([4, 4])
  for _ in 0..<2 { Tape.backward([(x.multiplied(elementwise: x), dy)]) }
  let taken = x.gradient
  let before = taken?.array
  Tape.backward([(x.multiplied(elementwise: x), dy)])
  Tape.backward([(x.rows(1..<3), dy.rows(0..<2))])
  #expect(taken?.array == before)
  #expect(x.gradient?.array != before)
  // Nor does what arrived change, where it was first to arrive.
  let z = numbers.tensor([4, 4]).asLeaf
  let copy = dy.array
  Tape.backward([(z, dy)])
  Tape.backward([(z.rows(0..<1), dy.rows(0..<1))])
  Tape.backward([(z, dy)])
  #expect(dy.array == copy)
}

@Test func computingAgainGivesTheSameBits() {
  var numbers = TestNumbers(65)
  let input = numbers.tensor([70, 33])
  let dy = numbers.tensor([70, 33])
  let leaves = [
    numbers.tensor([33, 33], scale: 0.3), numbers.tensor([33]), numbers.tensor([33]),
  ]
  func body(_ x: Tensor, _ w: [Tensor]) -> Tensor {
    let normed = x.rmsNormalized(weight: w[1], epsilon: 1e-5)
    let y = normed.multiplied(byTransposeOf: w[0]).adding(bias: w[2])
    return Tensor.gated(y, normed, .silu) + x
  }
  func run(recomputing: Bool, inputIsTrained: Bool) -> [[Float]?] {
    let w = leaves.map(\.asLeaf)
    let x = inputIsTrained ? input.asLeaf : input
    var y = x
    for _ in 0..<3 {
      y = recomputing ? Tape.recomputing(y) { body($0, w) } : body(y, w)
    }
    Tape.backward([(y, dy)])
    return [y.array, inputIsTrained ? x.gradient?.array : []] + w.map { $0.gradient?.array }
  }
  for inputIsTrained in [true, false] {
    let plain = run(recomputing: false, inputIsTrained: inputIsTrained)
    #expect(plain.allSatisfy { $0 != nil })
    #expect(run(recomputing: true, inputIsTrained: inputIsTrained) == plain)
  }
}

@Test func computingWithoutPlacesRecordsNothing() {
  var numbers = TestNumbers(66)
  let x = numbers.tensor([3, 3])
  #expect((x + x).activated(.silu).node == nil)
  #expect(x.asLeaf.detached.scaled(by: 2).node == nil)
  Tape.backward([(x, x)])
  #expect(x.gradient == nil)
}

/// A node, and the memory of the numbers it computed.
private struct Trace {
  weak var node: GradientNode?
  weak var numbers: Storage?

  init(_ tensor: Tensor) { (node, numbers) = (tensor.node, tensor.storage) }
}

@Test func memoryGoesOnTheWayBackAndWithTheLastTensor() {
  var numbers = TestNumbers(67)
  let leaf = numbers.tensor([5, 5]).asLeaf
  func chain(_ traces: inout [Trace], recomputing: Bool) -> Tensor {
    var x = leaf.activated(.gelu)
    for _ in 0..<5 {
      traces.append(Trace(x))
      let y = recomputing ? Tape.recomputing(x) { $0.multiplied(elementwise: $0) } : x.softCapped(2)
      x = y.multiplied(elementwise: x).rmsNormalized(weight: nil, epsilon: 1e-4)
    }
    return x.scaled(by: 2)
  }
  for recomputing in [false, true] {
    var traces: [Trace] = []
    let result = chain(&traces, recomputing: recomputing)
    #expect(traces.allSatisfy { $0.node != nil && $0.numbers != nil })
    Tape.backward([(result, leaf.detached)])
    // The result itself is still held.
    #expect(traces.allSatisfy { $0.node == nil && $0.numbers == nil })
    #expect(result.node != nil)

    traces = []
    var dropped: Tensor? = chain(&traces, recomputing: recomputing)
    #expect(dropped != nil && traces.allSatisfy { $0.node != nil })
    dropped = nil
    #expect(traces.allSatisfy { $0.node == nil && $0.numbers == nil })
  }
  weak var last: GradientNode?
  do {
    let x = numbers.tensor([2, 2]).asLeaf
    last = x.node
    Tape.backward([(x.scaled(by: 2), x.detached)])
  }
  #expect(last == nil)
}

/// Neither the way back nor letting go may use stack for each step of a long computation.
@Test func computationsOfAnyLengthAreWalkedAndReleased() {
  let x = Tensor([1], shape: [1, 1]).asLeaf
  func chain() -> Tensor {
    (0..<100_000).reduce(x) { y, _ in y.scaled(by: 1).reshaped([1, 1]) + x.scaled(by: 0) }
  }
  Tape.backward([(chain(), x.detached)])
  #expect(x.gradient?.array == [1])
  _ = chain()
}

@Test func parametersAreCopiesThatRoundOnAssignment() {
  var numbers = TestNumbers(68)
  let initial = numbers.tensor([3, 7])
  for type in [DType.float32, .bfloat16] {
    let parameter = Parameter(
      name: "p", initial: initial, dtype: type, decays: false, isBlockMatrix: false)
    let rounded = initial.converted(to: type).widened().array
    #expect(parameter.tensor.detached.widened().array == rounded)
    #expect(parameter.tensor.storage !== initial.storage)
    let other = numbers.tensor([3, 7])
    parameter.assign(other)
    #expect(
      parameter.tensor.detached.widened().array == other.converted(to: type).widened().array)
    #expect(initial.array != other.array)
  }
}
