import CKernels
import Foundation
import Tensors
import Testing

private typealias Numbers = [Float]

/// Equal up to float32 rounding of numbers of the size of the largest expected.
private func expectClose(
  _ found: [Float], _ expected: [Float], tolerance: Float = 2e-6, _ what: String,
  at location: SourceLocation = #_sourceLocation
) {
  let size = max(1, expected.map(abs).max() ?? 0)
  let worst = zip(found, expected).map { abs($0 - $1) }.max() ?? 0
  #expect(worst <= tolerance * size, "\(what): \(worst) of \(size)", sourceLocation: location)
}

@Test(arguments: [PARE_SILU, PARE_GELU, PARE_GELU_TANH, PARE_RELU])
func gradientsOfActivationsReachEveryTail(kind: pare_activation) {
  var numbers = TestNumbers(21)
  for count in 0...67 {
    let x = numbers.floats(count, scale: 6), up = numbers.floats(count)
    let dy = numbers.floats(count)
    // One more than is written, which must stay.
    let empty = Numbers(repeating: 7, count: count + 1)
    var (dx, dGate, dUp) = (empty, empty, empty)
    pare_activate_gradient(kind, x, dy, &dx, count)
    pare_gated_gradient(kind, x, up, dy, &dGate, &dUp, count)
    let found = [dx, dGate, dUp]
    pare_activate_gradient_ref(kind, x, dy, &dx, count)
    pare_gated_gradient_ref(kind, x, up, dy, &dGate, &dUp, count)
    for (found, expected) in zip(found, [dx, dGate, dUp]) {
      expectClose(found, expected, "\(count) numbers")
      #expect(found[count] == 7)
    }
  }
  let far: Numbers = [-1e4, -200, -90, -20, -0.0, 0, 20, 90, 200, 1e4]
  let ones = Numbers(repeating: 1, count: far.count)
  var (found, expected) = (ones, ones)
  pare_activate_gradient(kind, far, ones, &found, far.count)
  pare_activate_gradient_ref(kind, far, ones, &expected, far.count)
  expectClose(found, expected, "far from zero")
}

@Test func gradientsOfSoftCapsReachEveryTail() {
  var numbers = TestNumbers(22)
  for count in 0...67 {
    let y = numbers.floats(count, scale: 3), dy = numbers.floats(count)
    var (found, expected) = (Numbers(repeating: 7, count: count + 1), dy + [7])
    pare_soft_cap_gradient(y, 3, dy, &found, count)
    pare_soft_cap_gradient_ref(y, 3, dy, &expected, count)
    expectClose(found, expected, "\(count) numbers")
  }
}

@Test func gradientsOfNormsReachEveryTail() {
  var numbers = TestNumbers(23)
  for count in 1...67 {
    let x = numbers.floats(count, scale: 4), dy = numbers.floats(count)
    let weights: [Numbers?] = [nil, numbers.floats(count)]
    let empty = Numbers(repeating: 7, count: count + 1)
    let before = numbers.floats(count) + [7]
    for w in weights {
      for offset in [Float(0), 1] {
        var (dx, dw) = (empty, before)
        pare_rms_norm_gradient(x, w, offset, 1e-3, dy, &dx, &dw, count)
        let found = [dx, dw]
        (dx, dw) = (empty, before)
        pare_rms_norm_gradient_ref(x, w, offset, 1e-3, dy, &dx, &dw, count)
        for (found, expected) in zip(found, [dx, dw]) {
          expectClose(found, expected, tolerance: 4e-6, "root mean square of \(count)")
        }
      }
      var (dx, dw, db) = (empty, before, before)
      pare_layer_norm_gradient(x, w, 1e-3, dy, &dx, &dw, &db, count)
      let found = [dx, dw, db]
      (dx, dw, db) = (empty, before, before)
      pare_layer_norm_gradient_ref(x, w, 1e-3, dy, &dx, &dw, &db, count)
      for (found, expected) in zip(found, [dx, dw, db]) {
        expectClose(found, expected, tolerance: 1e-5, "layer norm of \(count)")
      }
      var alone = empty
      pare_layer_norm_gradient(x, w, 1e-3, dy, &alone, nil, nil, count)
      #expect(alone == found[0])
    }
  }
}

@Test func rotationsReachEveryTail() {
  var numbers = TestNumbers(24)
  for dim in 0...67 {
    for half in Set([0, dim / 4, dim / 2]) {
      let x = numbers.floats(dim)
      let (cosines, sines) = (numbers.floats(half), numbers.floats(half))
      for direction in [Float(1), -1] {
        var found = Numbers(repeating: 7, count: dim + 1)
        var expected = found
        pare_rotate(x, cosines, sines, direction, half, dim, &found)
        pare_rotate_ref(x, cosines, sines, direction, half, dim, &expected)
        expectClose(found, expected, "\(half) pairs of \(dim)")
      }
    }
  }
}

@Test func gradientsOfScoresReachEveryTail() {
  var numbers = TestNumbers(25)
  for columns in 0...67 {
    for (query, key, window) in [(0, 0, 0), (70, 0, 0), (40, 20, 0), (40, 20, 9), (3, 50, 0)] {
      for (cap, slope) in [(Float(0), Float(0)), (2, 0), (0, 0.3), (3, 0.1)] {
        let (rows, stride) = (5, columns + 3)
        let scores = numbers.floats(rows * stride, scale: 3)
        let arriving = numbers.floats(rows * stride)
        let (logSums, means) = (numbers.floats(rows), numbers.floats(rows))
        func run(_ body: (UnsafePointer<pare_score_gradient>) -> Void) -> [Numbers] {
          var (scores, gradient) = (scores, arriving)
          scores.withUnsafeMutableBufferPointer { scores in
            gradient.withUnsafeMutableBufferPointer { gradient in
              logSums.withUnsafeBufferPointer { logSums in
                means.withUnsafeBufferPointer { means in
                  var tile = pare_score_gradient(
                    scores: scores.baseAddress, gradient: gradient.baseAddress, rows: rows,
                    columns: columns, stride: stride, first_query: query, first_key: key,
                    window: window, soft_cap: cap, slope: slope, log_sum: logSums.baseAddress,
                    mean: means.baseAddress)
                  body(&tile)
                }
              }
            }
          }
          return [scores, gradient]
        }
        for (found, expected) in zip(run(pare_softmax_gradient), run(pare_softmax_gradient_ref)) {
          expectClose(found, expected, tolerance: 4e-6, "\(columns) columns")
        }
      }
    }
  }
}
