import CKernels
import Codecs
import Tensors
import Testing
import Training

private func random(_ shape: [Int], _ seed: UInt64, scale: Double = 1) -> Tensor {
  var random = Xoshiro256(seed: seed)
  return Tensor(
    (0..<shape.reduce(1, *)).map { _ in Float(scale * random.normal()) }, shape: shape)
}

private func codec(
  _ bits: Int, _ granularity: AffineGroups.Granularity, symmetric: Bool,
  _ type: DType = .float32
) throws -> AffineGroups {
  try AffineGroups(
    bits: bits, granularity: granularity, isSymmetric: symmetric, scaleType: type,
    allowsShortLastGroup: true)
}

struct FakeQuantizationTests {
  static let granularities: [AffineGroups.Granularity] = [
    .group(16), .group(32), .channel, .tensor,
  ]

  /// Fast kernels against plain ones, every length of a row's tail.
  @Test(arguments: [2, 4, 8]) func kernelsAgreeForEveryTail(bits: Int) {
    for columns in 1...70 {
      for group in [5, 16, 70] {
        let groups = (columns + group - 1) / group
        let w = random([columns], UInt64(columns), scale: 1.5).array
        let v = random([columns], UInt64(columns + 100), scale: 0.2).array
        let dy = random([columns], UInt64(columns + 200)).array
        let scales = random([groups], 5).array.map { abs($0) * 0.2 + 0.05 }
        let zeros = (0..<groups).map { Float($0 % 3 - 1) }
        var job = pare_fake_quantization(columns: columns, group: group, bits: Int32(bits))
        for offsets in [v, nil] {
          var (fast, plain) = (w, w)
          pare_fake_quantize_row(&job, scales, zeros, w, offsets, &fast)
          pare_fake_quantize_row_reference(&job, scales, zeros, w, offsets, &plain)
          #expect(fast == plain, "\(columns) columns in groups of \(group)")
          var results: [[[Float]]] = []
          for isFast in [true, false] {
            var (dw, dv) = (w, w)
            var (dScale, dZero) = (scales, scales)
            if isFast {
              pare_fake_quantize_row_gradient(
                &job, scales, zeros, w, offsets, dy, &dw, &dv, &dScale, &dZero)
            } else {
              pare_fake_quantize_row_gradient_reference(
                &job, scales, zeros, w, offsets, dy, &dw, &dv, &dScale, &dZero)
            }
            results.append([dw, dv, dScale, dZero])
          }
          for (one, other) in zip(results[0].joined(), results[1].joined()) {
            #expect(abs(one - other) <= 1e-4 * max(1, abs(other)))
          }
        }
      }
    }
  }

  /// Before anything is learned the codes are those of the codec, and they survive being stored.
  @Test(arguments: [2, 3, 4, 8], granularities)
  func nothingLearnedIsRoundToNearest(bits: Int, granularity: AffineGroups.Granularity) throws {
    for isSymmetric in [true, false] {
      for type in [DType.float32, .bfloat16, .float16] {
        let codec = try codec(bits, granularity, symmetric: isSymmetric, type)
        let weight = random([9, 56], UInt64(bits))
        let (lower, upper) = codec.ranges(of: weight)
        let fake = FakeQuantizedWeight(weight, codec: codec, lower: lower, upper: upper)
        let (expected, error) = try codec.encode(weight, choosing: .range)
        #expect(try fake.settled().isIdentical(to: expected))
        #expect(fake.values.array == expected.dequantized().array)
        let measured = fake.error(against: weight)
        #expect(abs(measured.squaredError - error.squaredError) <= 1e-5 * error.squaredError)
        #expect(measured.largestError == error.largestError)
      }
    }
  }

  @Test(arguments: [2, 3, 4, 8]) func learnedCodesAreStoredAsTheyAre(bits: Int) throws {
    for isSymmetric in [true, false] {
      let codec = try codec(bits, .group(16), symmetric: isSymmetric, .bfloat16)
      let weight = random([7, 40], UInt64(bits))
      let (lower, upper) = codec.ranges(of: weight)
      let offsets = random([7, 40], 3, scale: 0.2)
      let fake = FakeQuantizedWeight(
        weight, codec: codec, lower: lower.scaled(by: 0.8), upper: upper.scaled(by: 0.7),
        offsets: offsets)
      let stored = try fake.settled()
      #expect(stored.dequantized().array == fake.values.array)
      for row in 0..<7 {
        for column in 0..<40 {
          let group = row * 3 + column / 16
          let steps =
            weight.floats[row * 40 + column] / fake.grids.scales[group]
            + Float(fake.grids.zeros[group])
          let code = (steps + offsets.floats[row * 40 + column]).rounded(.toNearestOrEven)
          let clamped = min(max(code, Float(codec.lowestCode)), Float(codec.highestCode))
          #expect(Float(stored.integerCodes[row * 40 + column]) == clamped)
        }
      }
    }
  }

  /// Central differences in double of the definition: every rounding adds a constant, and what is
  /// clamped stays clamped.
  @Test(arguments: [2, 4], granularities)
  func gradientsAreThoseOfTheDefinition(bits: Int, granularity: AffineGroups.Granularity) throws {
    for isSymmetric in [true, false] {
      let codec = try codec(bits, granularity, symmetric: isSymmetric)
      let (rows, columns) = (5, 40)
      let weight = random([rows, columns], 17)
      let ranges = codec.ranges(of: weight)
      let inputs = [
        weight, ranges.lower.scaled(by: 0.6), ranges.upper.scaled(by: 0.7),
        random([rows, columns], 4, scale: 0.25),
      ].map(\.asLeaf)
      let dy = random([rows, columns], 9)
      let fake = FakeQuantizedWeight(
        inputs[0], codec: codec, lower: inputs[1], upper: inputs[2], offsets: inputs[3])
      Tape.backward([(fake.values, dy)])

      let definition = StraightThrough(codec, inputs.map(\.array), rows: rows, columns: columns)
      let exact = inputs.map { $0.array.map(Double.init) }
      for (value, expected) in zip(fake.values.array, definition.values(exact)) {
        #expect(abs(Double(value) - expected) < 1e-5)
      }
      func loss(_ numbers: [[Double]]) -> Double {
        zip(definition.values(numbers), dy.array).reduce(0) { $0 + $1.0 * Double($1.1) }
      }
      for input in inputs.indices {
        let gradient = try #require(inputs[input].gradient)
        for at in stride(from: 0, to: gradient.count, by: gradient.count > 20 ? 3 : 1) {
          func moved(_ step: Double) -> Double {
            var numbers = exact
            numbers[input][at] += step
            return loss(numbers)
          }
          let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
          #expect(
            abs(Double(gradient.floats[at]) - slope) < 2e-4 * max(1, abs(slope)),
            "input \(input), number \(at), symmetric \(isSymmetric)")
        }
      }
    }
  }

  @Test func aRangesGradientGoesToTheNumberAtItsEnd() throws {
    for granularity in Self.granularities {
      let codec = try codec(4, granularity, symmetric: false)
      let weight = random([4, 40], 21).asLeaf
      let (lower, upper) = codec.ranges(of: weight)
      let (a, b) = (random(lower.shape, 1), random(upper.shape, 2))
      Tape.backward([(lower, a), (upper, b)])
      let gradient = try #require(weight.gradient)
      let size = codec.groupSize(inputs: 40)
      var expected = [Float](repeating: 0, count: 160)
      for index in 0..<lower.count {
        let members =
          granularity == .tensor
          ? Array(0..<160)
          : (0..<40).filter { $0 / size == index % codec.groupCount(inputs: 40) }
            .map { index / codec.groupCount(inputs: 40) * 40 + $0 }
        let low = try #require(members.min { weight.floats[$0] < weight.floats[$1] })
        let high = try #require(members.max { weight.floats[$0] < weight.floats[$1] })
        #expect(lower.floats[index] == weight.floats[low])
        #expect(upper.floats[index] == weight.floats[high])
        expected[low] += a.floats[index]
        expected[high] += b.floats[index]
      }
      #expect(gradient.array == expected)
    }
    // Zero ends a range that lies on one side of it, and no weight learns from that.
    let codec = try codec(4, .channel, symmetric: true)
    let positive = Tensor([1, 2, 3], shape: [1, 3]).asLeaf
    let (lower, _) = codec.ranges(of: positive)
    Tape.backward([(lower, Tensor([5], shape: [1, 1]))])
    #expect(lower.array == [0])
    #expect(positive.gradient?.array ?? [0, 0, 0] == [0, 0, 0])
  }

  @Test func tokensAreRoundedEachWithItsScale() {
    let x = random([5, 37], 2, scale: 3).asLeaf
    let y = x.fakeQuantizedTokens(bits: 8)
    for row in 0..<5 {
      let values = (0..<37).map { Double(x.floats[row * 37 + $0]) }
      let scale = (values.map(abs).max() ?? 0) / 127
      for (column, value) in values.enumerated() {
        let expected = (value / scale).rounded(.toNearestOrEven) * scale
        #expect(abs(Double(y.floats[row * 37 + column]) - expected) < 1e-5)
      }
    }
    let dy = random([5, 37], 3)
    Tape.backward([(y, dy)])
    #expect(x.gradient?.array == dy.array)
    #expect(Tensor.zeros([2, 3]).fakeQuantizedTokens(bits: 8).array == [0, 0, 0, 0, 0, 0])
  }

  @Test func threadsChangeNoBit() throws {
    let codec = try codec(3, .group(32), symmetric: false)
    let results = withThreadCounts {
      let weight = random([300, 200], 5).asLeaf
      let (lower, upper) = codec.ranges(of: weight)
      let fake = FakeQuantizedWeight(weight, codec: codec, lower: lower, upper: upper)
      Tape.backward([(fake.values, random([300, 200], 6))])
      return [fake.values.array, weight.gradient?.array ?? []]
    }
    #expect(results[0] == results[1])
  }
}

/// The definition in double, with the constants that roundings add where it was made.
private struct StraightThrough {
  let codec: AffineGroups
  let rows, columns: Int
  private var scaleRest: [Double] = []
  private var zeroRest: [Double] = []
  private var codeRest: [Double] = []
  /// nil where a code lies inside, else the end it is clamped to.
  private var clamped: [Double?] = []
  private var clampedZero: [Double?] = []

  init(_ codec: AffineGroups, _ inputs: [[Float]], rows: Int, columns: Int) {
    self.codec = codec
    (self.rows, self.columns) = (rows, columns)
    let low = Double(codec.lowestCode), high = Double(codec.highestCode)
    let numbers = inputs.map { $0.map(Double.init) }
    for index in numbers[1].indices {
      let exact = scale(numbers[1][index], numbers[2][index])
      scaleRest.append(Double(Float(exact)) - exact)
      let raw = codec.isSymmetric ? 0 : low - numbers[1][index] / (exact + scaleRest[index])
      let rounded = raw.rounded(.toNearestOrEven)
      zeroRest.append(rounded - raw)
      clampedZero.append(rounded < low ? low : rounded > high ? high : nil)
    }
    for at in 0..<rows * columns {
      let (scale, zero) = grid(numbers, place(at))
      let u = numbers[0][at] / scale + zero + numbers[3][at]
      let code = u.rounded(.toNearestOrEven)
      codeRest.append(code - u)
      clamped.append(code < low ? low : code > high ? high : nil)
    }
  }

  private func place(_ at: Int) -> Int {
    if codec.granularity == .tensor { return 0 }
    let (row, column) = (at / columns, at % columns)
    return row * codec.groupCount(inputs: columns) + column / codec.groupSize(inputs: columns)
  }

  private func scale(_ lower: Double, _ upper: Double) -> Double {
    let span = Double(codec.highestCode - codec.lowestCode)
    return codec.isSymmetric ? max(upper, -lower) / (span / 2) : (upper - lower) / span
  }

  private func grid(_ numbers: [[Double]], _ index: Int) -> (scale: Double, zero: Double) {
    let scale = scale(numbers[1][index], numbers[2][index]) + scaleRest[index]
    if codec.isSymmetric { return (scale, 0) }
    let zero = Double(codec.lowestCode) - numbers[1][index] / scale + zeroRest[index]
    return (scale, clampedZero[index] ?? zero)
  }

  /// - Parameter numbers: matrix, lower ends, upper ends, offsets.
  func values(_ numbers: [[Double]]) -> [Double] {
    (0..<rows * columns).map { at in
      let (scale, zero) = grid(numbers, place(at))
      let code = numbers[0][at] / scale + zero + numbers[3][at] + codeRest[at]
      return ((clamped[at] ?? code) - zero) * scale
    }
  }
}
