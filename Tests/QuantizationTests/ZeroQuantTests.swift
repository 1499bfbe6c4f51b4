import Calibration
import Codecs
import Foundation
import Models
import Quantization
import Tensors
import Testing

struct ZeroQuantTests {
  @Test(arguments: [2, 3, 4]) func aDistilledBlockIsCloserThanARoundedOne(bits: Int) throws {
    let fixture = try BlockFixture()
    let codec = try AffineGroups(
      bits: bits, granularity: .group(16), isSymmetric: false, allowsShortLastGroup: true)
    var method = ZeroQuant()
    method.iterations = 80
    method.learningRate = 3e-3
    method.activationBits = nil
    let solution = try method.compress(fixture.problem(codec))
    let plain = fixture.error(of: try fixture.roundedToNearest(codec))
    let learned = fixture.error(of: solution.block)
    #expect(learned < 0.8 * plain, "\(learned) of \(plain)")
    let loss = try #require(solution.loss)
    #expect(abs(loss.after - learned) < 1e-3 * learned)
    // With activations in 8 bits too, whose error is small beside that of 2 to 4 bits.
    method.activationBits = 8
    let both = try method.compress(fixture.problem(codec))
    let (before, after) = try #require(both.loss)
    #expect(after < 0.8 * before)
  }

  @Test func threadsChangeNoBit() throws {
    let fixture = try BlockFixture(batches: 4)
    let codec = try AffineGroups(bits: 3, granularity: .group(16), allowsShortLastGroup: true)
    var method = ZeroQuant()
    (method.iterations, method.textsPerStep, method.learningRate) = (5, 4, 1e-3)
    let results = try withThreadCounts { try method.compress(fixture.problem(codec)).block.bytes }
    #expect(results[0] == results[1])
  }

  @Test func settingsOutOfRangeAreRefused() throws {
    let fixture = try BlockFixture(batches: 1)
    let codec = try AffineGroups(bits: 4, granularity: .channel)
    for change in [
      { (method: inout ZeroQuant) in method.iterations = -1 }, { $0.learningRate = 0 },
      { $0.activationBits = 40 }, { $0.textsPerStep = 0 },
    ] {
      var method = ZeroQuant()
      change(&method)
      #expect(throws: CompressionError.self) { try method.compress(fixture.problem(codec)) }
    }
  }

  /// A few steps on the matrix that ends a block, with rounded tokens, against double. Not symmetric:
  /// there a group's largest weight always lies half-way between two codes, and the last bit of a moved
  /// weight says which it gets.
  @Test(arguments: [2, 3, 4]) func stepsAreThoseOfTheAlgorithm(bits: Int) throws {
    let fixture = try BlockFixture(
      hidden: 16, intermediate: 40, heads: 2, keyValueHeads: 1, batches: 1, textLength: 6,
      seed: UInt64(bits + 20))
    let codec = try AffineGroups(
      bits: bits, granularity: .group(16), isSymmetric: false, scaleType: .float32,
      allowsShortLastGroup: true)
    for iterations in [1, 4] {
      var method = ZeroQuant()
      (method.iterations, method.learningRate) = (iterations, 0.01)
      let solution = try method.compress(fixture.problem(codec) { $0 == .down })
      let oracle = Oracle(fixture, codec)
      let (values, loss) = oracle.run(iterations: iterations, rate: 0.01)
      let found = solution.block.feedForwardOutput.weight.dequantized().array
      let wrong = found.indices.count {
        abs(Double(found[$0]) - values[$0]) > 1e-3 * max(abs(values[$0]), 0.01)
      }
      #expect(wrong == 0, "\(wrong) of \(values.count) after \(iterations) steps")
      let after = try #require(solution.loss).after
      #expect(abs(after - loss) < 1e-3 * loss)
    }
  }
}

/// Layer-by-layer distillation of one matrix: gradients of weights are central differences with the
/// roundings' remainders held, ranges moving with the weights at their ends.
private struct Oracle {
  let codec: AffineGroups
  var h: [[Double]], residual: [[Double]], target: [[Double]], start: [[Double]]

  init(_ fixture: BlockFixture, _ codec: AffineGroups) {
    self.codec = codec
    func rows(_ tensor: Tensor) -> [[Double]] {
      (0..<tensor.rows).map { row in
        (0..<tensor.columns).map { Double(tensor.floats[row * tensor.columns + $0]) }
      }
    }
    let context = fixture.model.context(of: fixture.segments[0], block: 0)
    var state = fixture.block.begin(fixture.inputs[0])
    for stage in Block.Stage.allCases.dropLast() { fixture.block.run(stage, &state, context) }
    residual = rows(state.residual)
    target = rows(fixture.targets[0])
    start = rows(fixture.block.feedForwardOutput.weight.dequantized())
    h = rows(state.input).map { row in
      let scale = (row.map(abs).max() ?? 0) / 127
      return row.map { ($0 / scale).rounded(.toNearestOrEven) * scale }
    }
  }

  struct Rest { var scale, zero: Double, code: [Double], clamped: [Double?] }

  /// One group on the grid of its own range. Without a rest, it is found (float32 decides ties).
  func rounded(_ group: [Double], _ held: Rest?) -> (values: [Double], rest: Rest) {
    let (low, high) = (Double(codec.lowestCode), Double(codec.highestCode))
    let span = high - low
    let (bottom, top) = (min(0, group.min() ?? 0), max(0, group.max() ?? 0))
    var scale = codec.isSymmetric ? max(top, -bottom) / (span / 2) : (top - bottom) / span
    var rest = held ?? Rest(scale: Double(Float(scale)) - scale, zero: 0, code: [], clamped: [])
    scale += rest.scale
    var zero = codec.isSymmetric ? 0 : low - bottom / scale
    if held == nil { rest.zero = zero.rounded(.toNearestOrEven) - zero }
    zero += rest.zero
    let values = group.indices.map { index in
      let code = group[index] / scale + zero
      if held == nil {
        let steps = Float(group[index]) / Float(scale) + Float(zero)
        let found = Double(steps.rounded(.toNearestOrEven))
        rest.code.append(found - code)
        rest.clamped.append(found < low ? low : found > high ? high : nil)
      }
      return ((rest.clamped[index] ?? code + rest.code[index]) - zero) * scale
    }
    return (values, rest)
  }

  func groups(_ row: [Double]) -> [Range<Int>] {
    stride(from: 0, to: row.count, by: 16).map { $0..<min($0 + 16, row.count) }
  }

  func rounded(_ w: [[Double]]) -> [[Double]] {
    w.map { row in groups(row).flatMap { rounded(Array(row[$0]), nil).values } }
  }

  func evaluate(_ values: [[Double]]) -> (loss: Double, gradient: [[Double]]) {
    var (loss, gradient) = (0.0, values.map { $0.map { _ in 0.0 } })
    let count = Double(h.count * values.count)
    for token in h.indices {
      for row in values.indices {
        var y = residual[token][row] - target[token][row]
        for column in values[row].indices { y += h[token][column] * values[row][column] }
        loss += y * y / count
        for column in values[row].indices {
          gradient[row][column] += 2 * y * h[token][column] / count
        }
      }
    }
    return (loss, gradient)
  }

  func run(iterations: Int, rate: Double) -> (values: [Double], loss: Double) {
    var w = start
    var (m, v) = (w.map { $0.map { _ in 0.0 } }, w.map { $0.map { _ in 0.0 } })
    var candidates = [rounded(w)]
    var best: (loss: Double, values: [[Double]])?
    for iteration in 0..<iterations {
      let values = rounded(w)
      let (loss, gradient) = evaluate(values)
      if loss < best?.loss ?? .infinity { best = (loss, values) }
      let remaining = 1 - Double(iteration) / Double(iterations)
      let (first, second) = (
        1 - pow(0.9, Double(iteration + 1)), 1 - pow(0.999, Double(iteration + 1))
      )
      var moved = w
      for row in w.indices {
        for range in groups(w[row]) {
          let group = Array(w[row][range])
          let rest = rounded(group, nil).rest
          for index in group.indices {
            func loss(_ step: Double) -> Double {
              var other = group
              other[index] += step
              return zip(rounded(other, rest).values, gradient[row][range])
                .reduce(0) { $0 + $1.0 * $1.1 }
            }
            let slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
            let at = range.lowerBound + index
            m[row][at] = 0.9 * m[row][at] + 0.1 * slope
            v[row][at] = 0.999 * v[row][at] + 0.001 * slope * slope
            moved[row][at] -=
              rate * remaining * (m[row][at] / first) / ((v[row][at] / second).squareRoot() + 1e-8)
          }
        }
      }
      w = moved
    }
    if let best { candidates.append(best.values) }
    candidates.append(rounded(w))
    var chosen = candidates[0]
    for candidate in candidates where evaluate(candidate).loss < evaluate(chosen).loss {
      chosen = candidate
    }
    return (chosen.flatMap { $0 }, evaluate(chosen).loss)
  }
}
