import CKernels
import Codecs
import Tensors
import Testing

/// Rounding written from the definition, in Double but for the scale's own rounding.
private func oracle(_ row: [Float], _ scheme: ActivationScheme, range: ClosedRange<Float>? = nil)
  -> (values: [Double], step: Double)
{
  let (low, high) = (Double(scheme.lowestCode), Double(scheme.highestCode))
  let smallest = Double(min(range?.lowerBound ?? row.min() ?? 0, 0))
  let largest = Double(max(range?.upperBound ?? row.max() ?? 0, 0))
  var scale =
    scheme.isSymmetric
    ? Double(Float(max(-smallest, largest) / ((high - low) / 2)))
    : Double(Float((largest - smallest) / (high - low)))
  if scale == 0 { scale = Double(Float.ulpOfOne) }
  let zero =
    scheme.isSymmetric
    ? 0 : min(max((low - smallest / scale).rounded(.toNearestOrEven), low), high)
  let values = row.map { x in
    (min(max(Double(x) / scale + zero, low), high).rounded(.toNearestOrEven) - zero) * scale
  }
  return (values, scale)
}

private let schemes: [ActivationScheme] = {
  var list: [ActivationScheme] = []
  for bits in [4, 8] {
    for isSymmetric in [true, false] {
      for granularity in [ActivationScheme.Granularity.token, .tensor] {
        if let one = try? ActivationScheme(
          bits: bits, isSymmetric: isSymmetric, granularity: granularity)
        {
          list.append(one)
        }
      }
    }
  }
  return list
}()

private func quantizer(_ scheme: ActivationScheme, _ range: ClosedRange<Float>) throws
  -> ActivationQuantizer
{
  scheme.isStatic
    ? try ActivationQuantizer(static: scheme, range: range) : ActivationQuantizer(dynamic: scheme)
}

@Test(arguments: schemes)
func activationsRoundAsDefined(_ scheme: ActivationScheme) throws {
  var random = TestRandom(seed: 41)
  for columns in [1, 7, 32, 33, 300] {
    var values = random.matrix(6, columns).array
    for column in 0..<columns { values[2 * columns + column] = 0 }
    for column in 0..<columns { values[3 * columns + column] = abs(values[column]) + 3 }
    let x = Tensor(values, shape: [6, columns])
    let range: ClosedRange<Float> = -1.5...2.25
    let rounded = try quantizer(scheme, range).rounded(x).array
    var moved = 0
    for token in 0..<6 {
      let part = (token * columns)..<((token + 1) * columns)
      let (expected, step) = oracle(
        Array(values[part]), scheme, range: scheme.isStatic ? range : nil)
      for (value, expected) in zip(rounded[part], expected) {
        let gap = abs(Double(value) - expected)
        // A quotient between two codes may round either way.
        if gap > 0.5 * step { moved += 1 }
        #expect(gap <= step * 1.0001, "\(scheme), \(columns) columns, token \(token)")
      }
    }
    // A token whose largest magnitude is negative ends halfway between its two lowest codes.
    #expect(moved <= 6 + columns / 100, "\(moved) of \(6 * columns) values on another code")
  }
}

@Test func roundingKernelsAgreeWithTheirReferencesOverAllTails() {
  var random = TestRandom(seed: 5)
  for count in Array(0...70) + [127, 255, 1000] {
    var x = random.matrix(1, max(count, 1)).array
    if count > 3 { (x[1], x[2]) = (-.infinity, .infinity) }
    if count > 40 { x[39] = .nan }
    var (a, b) = (x, x)
    pare_round_to_grid(x, count, 0.013, 3, -128, 127, &a)
    pare_round_to_grid_ref(x, count, 0.013, 3, -128, 127, &b)
    #expect(a.map(\.bitPattern) == b.map(\.bitPattern))
    var (low, high, lowRef, highRef): (Float, Float, Float, Float) = (1, 1, 2, 2)
    pare_range_with_zero(x, count, &low, &high)
    pare_range_with_zero_ref(x, count, &lowRef, &highRef)
    #expect(low == lowRef && high == highRef)
  }
}

@Test func roundedActivationsPassGradientsInsideTheirRange() throws {
  let x = Tensor([-3, -1, 0, 0.4, 1, 2.5], shape: [1, 6]).asLeaf
  let dy = Tensor([1, 2, 3, 4, 5, 6], shape: [1, 6])
  let fixed = try ActivationQuantizer(
    static: ActivationScheme(bits: 8, granularity: .tensor), range: -2...1)
  Tape.backward([(fixed.rounded(x), dy)])
  #expect(x.gradient?.array == [0, 2, 3, 4, 5, 0])
  let y = x.detached.asLeaf
  Tape.backward([(ActivationQuantizer(dynamic: .int8).rounded(y), dy)])
  #expect(y.gradient?.array == dy.array)
}

@Test func staticGridsAreReadAsTheyAreStored() throws {
  for isSymmetric in [true, false] {
    let scheme = try ActivationScheme(bits: 8, isSymmetric: isSymmetric, granularity: .tensor)
    let made = try ActivationQuantizer(static: scheme, range: -1...5, scaleType: .bfloat16)
    let stored = made.encoded()
    #expect(stored.map(\.suffix) == scheme.requiredSuffixes)
    let read = try ActivationQuantizer(
      scheme, components: Dictionary(uniqueKeysWithValues: stored.map { ($0.suffix, $0.tensor) }))
    let x = Tensor((0..<64).map { Float($0) * 0.1 - 2 }, shape: [2, 32])
    #expect(read.rounded(x).array == made.rounded(x).array)
    #expect(throws: CodecError.missing(component: "input_scale")) {
      try ActivationQuantizer(scheme, components: [:])
    }
    #expect(throws: CodecError.self) {
      try ActivationQuantizer(
        scheme, components: ["input_scale": Tensor([.nan], shape: [1])])
    }
  }
}

private let levels = [
  PARE_LEVEL_PLAIN, PARE_LEVEL_AVX2, PARE_LEVEL_VNNI, PARE_LEVEL_DOTPROD,
].filter { pare_packed_has_level($0) != 0 }

extension PackedWeightTests {
  /// Integer products from packed bytes: W8A8, W4A8 and their kin, codes of -128 on both sides.
  @Test(arguments: [2, 3, 4, 5, 6, 8])
  func packedWeightsTakeActivationsOnTheirLayersGrid(bits: Int) throws {
    let before = Parallel.threads
    defer { Parallel.threads = before }
    for (granularity, columns) in [
      (AffineGroups.Granularity.channel, 160), (.group(32), 96), (.group(16), 64), (.tensor, 32),
    ] {
      for isSymmetric in [true, false] {
        var random = TestRandom(seed: UInt64(bits * 100 + columns))
        let rows = 21
        let codec = try AffineGroups(
          bits: bits, granularity: granularity, isSymmetric: isSymmetric, scaleType: .float32,
          layout: .int8)
        // The most negative of every row and token take the lowest code.
        var W = random.matrix(rows, columns).array
        for row in 0..<rows { W[row * columns + row % columns] = -7 }
        let weight = try codec.encode(Tensor(W, shape: [rows, columns]))
        let packed = try #require(PackedWeight(packing: weight))
        for scheme in schemes {
          let quantizer = try quantizer(scheme, -2...2)
          var values = random.matrix(19, columns).array
          for token in 0..<19 { values[token * columns + token % columns] = -9 }
          let x = Tensor(values, shape: [19, columns])
          let rounded = quantizer.rounded(x).array.map(Double.init)
          let decoded = packed.dequantized().array.map(Double.init)
          var first: Tensor?
          for level in levels {
            pare_packed_use_level(level)
            let result = quantizer.multiply(x, by: packed)
            for token in 0..<19 {
              for row in 0..<rows {
                var (sum, size) = (0.0, 0.0)
                for column in 0..<columns {
                  let term = rounded[token * columns + column] * decoded[row * columns + column]
                  (sum, size) = (sum + term, size + abs(term))
                }
                let gap = abs(Double(result.floats[token * rows + row]) - sum)
                #expect(gap <= 4e-6 * size + 1e-7, "\(granularity) \(scheme) \(level)")
              }
            }
            if let first, scheme.isSymmetric { #expect(result.isIdentical(to: first)) }
            first = first ?? result
            #expect(
              quantizer.multiply(x.rows(5..<6), by: packed).isIdentical(to: result.rows(5..<6))
                || !scheme.isSymmetric)
          }
          Parallel.threads = 3
          #expect(quantizer.multiply(x, by: packed).isIdentical(to: first ?? x))
          Parallel.threads = before
          let plain = quantizer.multiply(x, by: weight)
          for (a, b) in zip(plain.array, (first ?? x).array) { #expect(abs(a - b) < 2e-3) }
        }
      }
    }
  }
}
