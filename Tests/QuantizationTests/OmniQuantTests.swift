import Calibration
import Codecs
import Foundation
import Models
import Quantization
import Tensors
import Testing
import Training

struct OmniQuantTests {
  @Test(arguments: [2, 3, 4], [true, false])
  func aLearnedBlockIsCloserThanARoundedOne(bits: Int, isSymmetric: Bool) throws {
    let fixture = try BlockFixture()
    let codec = try AffineGroups(
      bits: bits, granularity: .group(16), isSymmetric: isSymmetric, allowsShortLastGroup: true)
    var method = OmniQuant()
    method.epochs = 12
    let solution = try method.compress(fixture.problem(codec))
    let plain = fixture.error(of: try fixture.roundedToNearest(codec))
    let learned = fixture.error(of: solution.block)
    let loss = try #require(solution.loss)
    #expect(learned < 0.95 * plain, "\(learned) of \(plain)")
    #expect(abs(loss.before - plain) < 1e-4 * plain)
    #expect(abs(loss.after - learned) < 1e-3 * learned)
    #expect(solution.block.linears.allSatisfy { $0.weight is GroupQuantizedWeight })
    #expect(solution.errors.count == 7)
  }

  /// Layer norms, biases and shifts, and a matrix that stays dense among those that are rounded.
  @Test func shiftsAndDenseMatricesAreFoldedToo() throws {
    let fixture = try BlockFixture(keyValueHeads: 4, type: "opt")
    let codec = try AffineGroups(bits: 3, granularity: .group(16), allowsShortLastGroup: true)
    var method = OmniQuant()
    method.epochs = 8
    let solution = try method.compress(fixture.problem(codec) { $0 != .key })
    var plain = try fixture.roundedToNearest(codec)
    plain.attentionInputs[1] = fixture.block.attentionInputs[1]
    let learned = fixture.error(of: solution.block)
    #expect(learned < 0.9 * fixture.error(of: plain))
    #expect(solution.block.attentionInputs[1].weight is DenseWeight)
    let before = try #require(fixture.block.attentionNorms.before?.bias?.array)
    #expect(solution.block.attentionNorms.before?.bias?.array != before)
  }

  /// Both parts help on their own, and with neither the block is rounded to nearest.
  @Test func partsLearnAlone() throws {
    let fixture = try BlockFixture()
    let codec = try AffineGroups(bits: 3, granularity: .group(16), allowsShortLastGroup: true)
    let plain = try fixture.roundedToNearest(codec)
    func compressed(clipping: Bool, transformation: Bool) throws -> Block {
      var method = OmniQuant()
      method.epochs = 6
      method.learnsClipping = clipping
      method.learnsTransformation = transformation
      return try method.compress(fixture.problem(codec)).block
    }
    let clipped = try compressed(clipping: true, transformation: false)
    #expect(fixture.error(of: clipped) < fixture.error(of: plain))
    #expect(
      clipped.attentionNorms.before?.weight?.array
        == fixture.block.attentionNorms.before?.weight?.array)
    let transformed = try compressed(clipping: false, transformation: true)
    #expect(fixture.error(of: transformed) < fixture.error(of: plain))
    #expect(try compressed(clipping: false, transformation: false).bytes == plain.bytes)
  }

  @Test func threadsChangeNoBit() throws {
    let fixture = try BlockFixture(batches: 2)
    let codec = try AffineGroups(
      bits: 3, granularity: .group(16), isSymmetric: false, allowsShortLastGroup: true)
    var method = OmniQuant()
    method.epochs = 2
    method.activationBits = 8
    let results = try withThreadCounts { try method.compress(fixture.problem(codec)).block.bytes }
    #expect(results[0] == results[1])
  }

  @Test func settingsOutOfRangeAreRefused() throws {
    let fixture = try BlockFixture(batches: 1)
    let codec = try AffineGroups(bits: 4, granularity: .channel)
    for change in [
      { (method: inout OmniQuant) in method.epochs = -1 }, { $0.migration = 1.5 },
      { $0.clippingRate = .nan }, { $0.activationBits = 1 }, { $0.textsPerStep = 0 },
    ] {
      var method = OmniQuant()
      change(&method)
      #expect(throws: CompressionError.self) { try method.compress(fixture.problem(codec)) }
    }
  }

  /// One matrix at the end of a block, learned for a few epochs, against the paper in double.
  @Test(arguments: [2, 4], [true, false])
  func epochsAreThoseOfTheAlgorithm(bits: Int, isSymmetric: Bool) throws {
    let fixture = try BlockFixture(
      hidden: 16, intermediate: 40, heads: 2, keyValueHeads: 1, batches: 1, textLength: 6,
      seed: UInt64(bits + 4))
    let codec = try AffineGroups(
      bits: bits, granularity: .group(16), isSymmetric: isSymmetric, scaleType: .float32,
      allowsShortLastGroup: true)
    var method = OmniQuant()
    method.epochs = 3
    (method.clippingRate, method.transformationRate) = (0.3, 0.05)
    let solution = try method.compress(fixture.problem(codec) { $0 == .down })
    let stored = try #require(solution.block.feedForwardOutput.weight as? GroupQuantizedWeight)
    var oracle = Oracle(fixture, codec)
    let expected = oracle.run(epochs: 3, clippingRate: 0.3, transformationRate: 0.05)
    let up = fixture.block.feedForwardInputs[1].weight.dequantized().array
    let folded = solution.block.feedForwardInputs[1].weight.dequantized().array
    for at in up.indices {
      let value = Double(up[at]) / expected.scale[at / 16]
      #expect(abs(Double(folded[at]) - value) < 1e-3 * max(abs(value), 0.01))
    }
    let values = stored.dequantized().array
    let wrong = values.indices.count {
      abs(Double(values[$0]) - expected.values[$0]) > 1e-3 * max(abs(expected.values[$0]), 0.01)
    }
    #expect(wrong == 0, "\(wrong) of \(values.count)")
    let loss = try #require(solution.loss)
    #expect(abs(loss.after - expected.loss) < 1e-3 * expected.loss)
  }
}

/// OmniQuant on the matrix that ends a block, up → down transformed: all gradients are central
/// differences of the loss with the roundings' remainders held.
private struct Oracle {
  let codec: AffineGroups
  var h: [[Double]], residual: [[Double]], target: [[Double]], w: [[Double]]
  /// s, then γ and β of each row's groups.
  var s: [Double]
  var gamma: [[Double]], beta: [[Double]]

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
    (h, residual) = (rows(state.input), rows(state.residual))
    target = rows(fixture.targets[0])
    w = rows(fixture.block.feedForwardOutput.weight.dequantized())
    s = w[0].map { _ in 1 }
    let groups = (w[0].count + 15) / 16
    gamma = [[Double]](repeating: [Double](repeating: 4, count: groups), count: w.count)
    beta = gamma
  }

  /// What roundings add, held while gradients are taken.
  struct Rests {
    var scale: [[Double]] = [], zero: [[Double]] = [], code: [[Double]] = []
    /// The end that a code is clamped to.
    var clamped: [[Double?]] = []
  }

  var low: Double { Double(codec.lowestCode) }
  var high: Double { Double(codec.highestCode) }

  /// Rounded rows of W diag(s). Without rests, they are found (in float32, which decides ties).
  func rounded(_ held: Rests?, clips: Bool = true) -> (values: [[Double]], rests: Rests) {
    var rests = held ?? Rests()
    var values: [[Double]] = []
    let span = high - low
    for row in w.indices {
      let scaled = w[row].indices.map { w[row][$0] * s[$0] }
      var (line, scaleRests, zeroRests, codeRests): ([Double], [Double], [Double], [Double]) =
        ([], [], [], [])
      var clampedTo: [Double?] = []
      for group in gamma[row].indices {
        let columns = group * 16..<min(group * 16 + 16, scaled.count)
        let top =
          max(0, scaled[columns].max() ?? 0) * (clips ? 1 / (1 + exp(-gamma[row][group])) : 1)
        let bottom =
          min(0, scaled[columns].min() ?? 0) * (clips ? 1 / (1 + exp(-beta[row][group])) : 1)
        var scale = codec.isSymmetric ? max(top, -bottom) / (span / 2) : (top - bottom) / span
        if held == nil { scaleRests.append(Double(Float(scale)) - scale) }
        scale += held?.scale[row][group] ?? scaleRests[group]
        var zero = codec.isSymmetric ? 0 : low - bottom / scale
        if held == nil { zeroRests.append(zero.rounded(.toNearestOrEven) - zero) }
        zero += held?.zero[row][group] ?? zeroRests[group]
        for column in columns {
          var code = scaled[column] / scale + zero
          if held == nil {
            let found = Double(
              (Float(scaled[column]) / Float(scale) + Float(zero)).rounded(.toNearestOrEven))
            codeRests.append(found - code)
            clampedTo.append(found < low ? low : found > high ? high : nil)
          }
          code += held?.code[row][column] ?? codeRests[column]
          let end = held == nil ? clampedTo[column] : held?.clamped[row][column] ?? nil
          line.append(((end ?? code) - zero) * scale)
        }
      }
      values.append(line)
      if held == nil {
        rests.scale.append(scaleRests)
        rests.zero.append(zeroRests)
        rests.code.append(codeRests)
        rests.clamped.append(clampedTo)
      }
    }
    return (values, rests)
  }

  func loss(_ values: [[Double]]) -> Double {
    var sum = 0.0
    for token in h.indices {
      let x = h[token].indices.map { h[token][$0] / s[$0] }
      for row in w.indices {
        var y = residual[token][row] - target[token][row]
        for column in x.indices { y += x[column] * values[row][column] }
        sum += y * y
      }
    }
    return sum / Double(h.count * w.count)
  }

  mutating func run(epochs: Int, clippingRate: Double, transformationRate: Double)
    -> (scale: [Double], values: [Double], loss: Double)
  {
    typealias Candidate = (scale: [Double], values: [Double], loss: Double)
    func candidate(_ oracle: Oracle, clips: Bool = true) -> Candidate {
      let values = oracle.rounded(nil, clips: clips).values
      return (oracle.s, values.flatMap { $0 }, oracle.loss(values))
    }
    var best = candidate(self, clips: false)
    var smoothed = self
    smoothed.s = w[0].indices.map { column in
      let x = h.map { abs($0[column]) }.max() ?? 0
      let largest = w.map { abs($0[column]) }.max() ?? 0
      return min(max((x / largest).squareRoot(), 0.01), 100)
    }
    smoothed.s = smoothed.s.map { Double(Float($0)) }
    let (one, other) = (candidate(smoothed), candidate(self))
    if one.loss < best.loss { best = one }
    if other.loss < best.loss { best = other }
    if one.loss < other.loss { s = smoothed.s }

    var moments: [[(Double, Double)]] = [[], []]
    for epoch in 1...epochs {
      let rests = rounded(nil).rests
      func slope(_ move: (inout Oracle, Double) -> Void) -> Double {
        let e = 1e-5
        var (more, less) = (self, self)
        move(&more, e)
        move(&less, -e)
        return (more.loss(more.rounded(rests).values) - less.loss(less.rounded(rests).values))
          / (2 * e)
      }
      let ofScale = s.indices.map { index in slope { $0.s[index] += $1 } }
      var ofClips: [Double] = []
      for row in gamma.indices {
        for group in gamma[row].indices {
          ofClips.append(slope { $0.gamma[row][group] += $1 })
          ofClips.append(slope { $0.beta[row][group] += $1 })
        }
      }
      func adam(_ slopes: [Double], _ part: Int, _ rate: Double) -> [Double] {
        if moments[part].isEmpty { moments[part] = slopes.map { _ in (0, 0) } }
        return slopes.indices.map { index in
          var (m, v) = moments[part][index]
          m = 0.9 * m + 0.1 * slopes[index]
          v = 0.999 * v + 0.001 * slopes[index] * slopes[index]
          moments[part][index] = (m, v)
          let (first, second) = (1 - pow(0.9, epoch), 1 - pow(0.999, epoch))
          return rate * (m / first) / ((v / second).squareRoot() + 1e-8)
        }
      }
      let scaleSteps = adam(ofScale, 0, transformationRate)
      let clipSteps = adam(ofClips, 1, clippingRate)
      for index in s.indices { s[index] = max(s[index] - scaleSteps[index], 0.01) }
      var next = 0
      for row in gamma.indices {
        for group in gamma[row].indices {
          gamma[row][group] -= clipSteps[next]
          beta[row][group] -= clipSteps[next + 1]
          next += 2
        }
      }
      let found = candidate(self)
      if found.loss < best.loss { best = found }
    }
    return best
  }

  private func pow(_ base: Double, _ exponent: Int) -> Double {
    (0..<exponent).reduce(1) { product, _ in product * base }
  }
}
