import Codecs
import Tensors
import Testing

/// LLM.int8() from the paper in Double: what is multiplied, and how large the terms are.
private func oracle(
  _ W: [Float], _ x: [Float], outputs: Int, inputs: Int, outliers: Set<Int>, keepsWeights: Bool
) -> (values: [Double], sizes: [Double]) {
  func scale(_ row: some Sequence<Float>) -> Double {
    let largest = row.reduce(Float(0)) { max($0, abs($1)) }
    return largest > 0 ? Double(largest / 127) : 1
  }
  let tokens = x.count / inputs
  var (values, sizes): ([Double], [Double]) = ([], [])
  for token in 0..<tokens {
    let row = Array(x[(token * inputs)..<((token + 1) * inputs)])
    let tokenScale = scale(row.indices.filter { !outliers.contains($0) }.map { row[$0] })
    for output in 0..<outputs {
      let weights = Array(W[(output * inputs)..<((output + 1) * inputs)])
      let rowScale = scale(
        weights.indices.filter { !(keepsWeights && outliers.contains($0)) }.map { weights[$0] })
      var (sum, size) = (0.0, 0.0)
      for column in 0..<inputs {
        let w = (Double(weights[column]) / rowScale).rounded(.toNearestOrEven) * rowScale
        let term =
          outliers.contains(column)
          ? Double(row[column])
            * (keepsWeights ? Double(Float16(weights[column])) : w)
          : (Double(row[column]) / tokenScale).rounded(.toNearestOrEven) * tokenScale * w
        (sum, size) = (sum + term, size + abs(term))
      }
      values.append(sum)
      sizes.append(size)
    }
  }
  return (values, sizes)
}

private func check(
  _ result: Tensor, _ expected: (values: [Double], sizes: [Double]), _ what: String
) {
  var moved = 0
  for (index, value) in result.array.enumerated() {
    let gap = abs(Double(value) - expected.values[index])
    // A weight or activation halfway between two codes may go either way.
    if gap > 1e-5 * expected.sizes[index] + 1e-6 { moved += 1 }
    #expect(gap <= 2e-3 * expected.sizes[index] + 1e-6, "\(what): \(value)")
  }
  #expect(moved * 50 <= result.count, "\(what): \(moved) of \(result.count)")
}

/// Weights with a row of zeros, inputs with a token of zeros and two columns that stand out.
private func problem(_ outputs: Int, _ inputs: Int, seed: UInt64) -> (W: Tensor, x: Tensor) {
  var random = TestRandom(seed: seed)
  var W = random.matrix(outputs, inputs, scale: 0.1).array
  for column in 0..<inputs { W[2 * inputs + column] = 0 }
  let tokens = 9
  var x = random.matrix(tokens, inputs, scale: 0.4).array
  for index in x.indices { x[index] = min(max(x[index], -5.9), 5.9) }
  for column in 0..<inputs { x[3 * inputs + column] = 0 }
  x[5 * inputs + 1] = -40
  x[7 * inputs + inputs - 2] = 6.5
  x[0 * inputs + inputs - 2] = 80
  return (Tensor(W, shape: [outputs, inputs]), Tensor(x, shape: [tokens, inputs]))
}

@Test(arguments: [[5, 32], [37, 96], [16, 288], [7, 45]])
func mixedProductsAreThoseOfThePaper(shape: [Int]) throws {
  let (outputs, inputs) = (shape[0], shape[1])
  let (W, x) = problem(outputs, inputs, seed: UInt64(inputs))
  let outliers: Set = [1, inputs - 2]
  for keepsWeights in [false, true] {
    let (mixed, error) =
      try keepsWeights
      ? MixedInt8Weight.encode(W, keeping: outliers.sorted())
      : MixedInt8Weight.encode(W, threshold: 6)
    #expect(mixed.outlierColumns(x) == outliers.sorted())
    let expected = oracle(
      W.array, x.array, outputs: outputs, inputs: inputs, outliers: outliers,
      keepsWeights: keepsWeights)
    check(mixed.multiply(x), expected, "rounded")
    let gap = zip(mixed.dequantized().array, W.array).reduce(0.0) {
      $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1)
    }
    #expect(abs(gap - error.squaredError) <= 1e-4 * gap)
    guard inputs % 32 == 0 else {
      #expect(mixed.packed == nil)
      continue
    }
    let packed = try #require(mixed.packed)
    check(packed.multiply(x), expected, "packed")
    #expect(packed.dequantized().isIdentical(to: mixed.dequantized()))
    // Without outliers beside them, tokens are what they are alone.
    let calm = x.rows(1..<5)
    #expect(packed.multiply(calm).rows(0..<1).isIdentical(to: packed.multiply(calm.rows(0..<1))))

    let stored = Dictionary(
      uniqueKeysWithValues: mixed.encoded().map { ($0.suffix, $0.tensor) })
    let read = try MixedInt8Weight(components: stored)
    #expect(read.isIdentical(to: mixed) && read.multiply(x).isIdentical(to: mixed.multiply(x)))
  }
}

@Test func plainRoundingSuffersWhereOutliersAreKeptApart() throws {
  let (W, x) = problem(32, 128, seed: 8)
  let exact = x.multiplied(byTransposeOf: W)
  func error(_ result: Tensor) -> Double {
    zip(result.array, exact.array).reduce(0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
  }
  let mixed = try MixedInt8Weight.encode(W, threshold: 6).weight
  let plain = try MixedInt8Weight.encode(W, threshold: .infinity).weight
  #expect(error(mixed.multiply(x)) * 4 < error(plain.multiply(x)))
}

@Test func mixedWeightsRefuseComponentsThatDoNotFit() throws {
  let (W, _) = problem(5, 32, seed: 9)
  let mixed = try MixedInt8Weight.encode(W, keeping: [1, 30]).weight
  let stored = Dictionary(uniqueKeysWithValues: mixed.encoded().map { ($0.suffix, $0.tensor) })
  for name in stored.keys {
    var rest = stored
    rest[name] = nil
    #expect(throws: CodecError.missing(component: name)) {
      try MixedInt8Weight(components: rest)
    }
  }
  var wrong = stored
  wrong["weight_outlier_columns"] = Tensor(dtype: .int32, shape: [2]) {
    $0.storeBytes(of: 30, toByteOffset: 0, as: Int32.self)
    $0.storeBytes(of: 1, toByteOffset: 4, as: Int32.self)
  }
  #expect(throws: CodecError.self) { try MixedInt8Weight(components: wrong) }
}

@Test func singleElementsArePackedRowsElements() throws {
  var random = TestRandom(seed: 12)
  for (granularity, columns) in [
    (AffineGroups.Granularity.channel, 352), (.group(32), 320), (.group(64), 448),
    (.group(16), 96),
  ] {
    let codec = try AffineGroups(bits: 8, granularity: granularity, isSymmetric: false)
    let packed = try #require(PackedWeight(packing: try codec.encode(random.matrix(19, columns))))
    let W = packed.dequantized().array
    let picked = [0, 1, 31, 32, 95, columns - 33, columns - 1].filter { $0 < columns }
    for row in 0..<19 {
      for column in picked {
        #expect(packed.element(row, column) == W[row * columns + column])
      }
    }
  }
}
