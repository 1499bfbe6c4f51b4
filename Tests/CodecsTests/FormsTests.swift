import CKernels
import Codecs
import Tensors
import Testing

private func random(_ count: Int, seed: UInt64) -> [Float] {
  var random = Xoshiro256(seed: seed)
  return (0..<count).map { _ in Float(random.normal()) }
}

private func components(of weight: some StoredWeight) -> [String: Tensor] {
  Dictionary(uniqueKeysWithValues: weight.encoded().map { ($0.suffix, $0.tensor) })
}

/// Whether products, gradients and rows are those of the matrix `expected`, in Double.
private func check(
  _ weight: some StoredWeight, _ expected: [Double], tolerance: Double = 1e-6,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  let (rows, columns) = (weight.outputs, weight.inputs)
  let decoded = weight.dequantized().array
  for (found, value) in zip(decoded, expected) {
    #expect(
      abs(Double(found) - value) <= tolerance * (1 + abs(value)), sourceLocation: sourceLocation)
  }
  for tokens in [1, 3, 70] {
    let x = Tensor(random(tokens * columns, seed: UInt64(tokens)), shape: [tokens, columns]).asLeaf
    let dy = Tensor(random(tokens * rows, seed: UInt64(tokens + 1)), shape: [tokens, rows])
    let y = weight.multiply(x)
    for token in 0..<tokens {
      for row in 0..<rows {
        var (sum, size) = (0.0, 0.0)
        for column in 0..<columns {
          let term = Double(x.floats[token * columns + column]) * expected[row * columns + column]
          sum += term
          size += abs(term)
        }
        let error = abs(Double(y.floats[token * rows + row]) - sum)
        #expect(error <= tolerance * (size + 1), sourceLocation: sourceLocation)
      }
    }
    Tape.backward([(y, dy)])
    let gradient = x.gradient?.array ?? []
    #expect(gradient.count == x.count, sourceLocation: sourceLocation)
    for (index, found) in gradient.enumerated() {
      let (token, column) = (index / columns, index % columns)
      var (sum, size) = (0.0, 0.0)
      for row in 0..<rows {
        let term = Double(dy.floats[token * rows + row]) * expected[row * columns + column]
        sum += term
        size += abs(term)
      }
      #expect(abs(Double(found) - sum) <= tolerance * (size + 1), sourceLocation: sourceLocation)
    }
  }
}

// MARK: Low rank and sums

@Test(arguments: [(1, 1, 1), (9, 14, 3), (66, 35, 5)], [DType.float32, .bfloat16, .float16])
func lowRankWeightsMultiplyByTheirProduct(shape: (Int, Int, Int), type: DType) throws {
  let (rows, columns, rank) = shape
  let left = try Tensor(random(rows * rank, seed: 1), shape: [rows, rank]).stored(as: type)
  let right = try Tensor(random(rank * columns, seed: 2), shape: [rank, columns]).stored(as: type)
  let weight = try LowRankWeight(left: left, right: right)
  let (l, r) = (left.widened().array, right.widened().array)
  let expected = (0..<rows * columns).map { at in
    (0..<rank).reduce(0.0) { sum, k in
      sum + Double(l[at / columns * rank + k]) * Double(r[k * columns + at % columns])
    }
  }
  check(weight, expected)
  try checkStorageLaws(of: weight, decoded: weight.dequantized()) {
    components throws(CodecError) in try LowRankWeight.decode(components)
  }
}

@Test func sumsAddTheirParts() throws {
  let (rows, columns) = (37, 64)
  let base = try AffineGroups(bits: 4, granularity: .group(32))
    .encode(Tensor(random(rows * columns, seed: 3), shape: [rows, columns]))
  let thin = try LowRankWeight(
    left: Tensor(random(rows * 2, seed: 4), shape: [rows, 2]),
    right: Tensor(random(2 * columns, seed: 5), shape: [2, columns]))
  let few = try SparseWeight(
    inputs: columns, rows: (0..<rows).map { row in [(column: row, value: Float(row) - 9)] },
    valueType: .bfloat16)
  let sum = try SumWeight([base, try SumWeight([thin, few]), thin])
  #expect(sum.parts.count == 4)
  var expected = [Double](repeating: 0, count: rows * columns)
  for part in sum.parts {
    for (index, value) in part.dequantized().array.enumerated() { expected[index] += Double(value) }
  }
  check(sum, expected, tolerance: 3e-6)
  #expect(
    sum.encoded().map(\.suffix) == [
      "weight_packed", "weight_scale", "weight_shape", "part_1.low_rank_left",
      "part_1.low_rank_right", "part_2.sparse_shape", "part_2.sparse_offsets",
      "part_2.sparse_columns", "part_2.sparse_values", "part_3.low_rank_left",
      "part_3.low_rank_right",
    ])
  try checkStorageLaws(of: sum, decoded: sum.dequantized()) { components throws(CodecError) in
    let parts = try SumWeight.split(components, count: 4)
    return try SumWeight([
      try base.codec.decode(parts[0]), try LowRankWeight.decode(parts[1]),
      try SparseWeight.decode(parts[2]), try LowRankWeight.decode(parts[3]),
    ])
  }
  #expect(throws: CodecError.unexpected(component: "part_3.low_rank_left")) {
    try SumWeight.split(components(of: sum), count: 3)
  }
  #expect(throws: CodecError.self) { try SumWeight([]) }
  #expect(throws: CodecError.self) {
    try SumWeight([thin, DenseWeight(Tensor([1, 2], shape: [1, 2]))])
  }
}

// MARK: Sparse

@Test(arguments: [(1, 1), (5, 40), (70, 33), (2, 70_000)])
func sparseWeightsMultiplyTheirEntries(rows: Int, columns: Int) throws {
  var random = Xoshiro256(seed: UInt64(rows * columns))
  var expected = [Double](repeating: 0, count: rows * columns)
  let entries = (0..<rows).map { row -> [(column: Int, value: Float)] in
    guard row % 3 != 2 else { return [] }
    return (0..<columns).compactMap { column in
      guard random.uniform() < min(0.2, 300 / Double(columns)) else { return nil }
      let value = (Float(random.normal()) * 8).rounded() / 8
      expected[row * columns + column] = Double(value)
      return (column, value)
    }
  }
  for type in [DType.float32, .float16, .bfloat16] {
    let weight = try SparseWeight(inputs: columns, rows: entries, valueType: type)
    if columns < 1000 { check(weight, expected) }
    #expect(weight.dequantized().array.map { Double($0) } == expected)
    #expect(weight.entryCount == entries.reduce(0) { $0 + $1.count })
    try checkStorageLaws(of: weight, decoded: weight.dequantized()) {
      components throws(CodecError) in try SparseWeight.decode(components)
    }
  }
}

@Test func damagedSparseComponentsAreRefused() throws {
  let weight = try SparseWeight(
    inputs: 8, rows: [[(1, 2), (5, 3)], [], [(7, 1)]], valueType: .float16)
  let good = components(of: weight)
  func refused(_ name: String, _ values: [Int], _ type: DType) -> Bool {
    var damaged = good
    damaged[name] = Tensor(dtype: type, shape: [values.count]) { bytes in
      for (index, value) in values.enumerated() {
        if type == .uint16 {
          bytes.storeBytes(of: UInt16(value), toByteOffset: 2 * index, as: UInt16.self)
        } else {
          bytes.storeBytes(of: Int32(value), toByteOffset: 4 * index, as: Int32.self)
        }
      }
    }
    do {
      _ = try SparseWeight.decode(damaged)
      return false
    } catch {
      return true
    }
  }
  #expect(!refused(SparseWeight.Suffix.offsets, [0, 2, 2, 3], .int32))
  #expect(refused(SparseWeight.Suffix.offsets, [0, 3, 2, 3], .int32))
  #expect(refused(SparseWeight.Suffix.offsets, [0, 2, 2, 4], .int32))
  #expect(refused(SparseWeight.Suffix.offsets, [1, 2, 2, 3], .int32))
  #expect(refused(SparseWeight.Suffix.columns, [5, 1, 7], .uint16))
  #expect(refused(SparseWeight.Suffix.columns, [1, 1, 7], .uint16))
  #expect(refused(SparseWeight.Suffix.columns, [1, 5, 8], .uint16))
  #expect(refused(SparseWeight.Suffix.columns, [1, 5, 7], .int32))
  for name in good.keys {
    var missing = good
    missing[name] = nil
    #expect(throws: CodecError.missing(component: name)) { try SparseWeight.decode(missing) }
  }
  var more = good
  more["weight"] = more[SparseWeight.Suffix.values]
  #expect(throws: CodecError.unexpected(component: "weight")) { try SparseWeight.decode(more) }
}

// MARK: Binary

@Test(arguments: 0...70) func signSumsEqualTheirReferenceForEveryTail(count: Int) {
  var random = Xoshiro256(seed: UInt64(count))
  let stream = (0..<24).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  let x = (0..<count).map { _ in Float(random.normal()) }
  for first in [0, 1, 7, 8, 33, 192 - count] {
    let fast = pare_sign_dot(stream, stream.count, first, x, count)
    #expect(fast == pare_sign_dot_reference(stream, stream.count, first, x, count))
    let exact = (0..<count).reduce(0.0) { sum, index in
      let bit = first + index
      return sum + Double(x[index]) * (stream[bit / 8] >> UInt8(bit % 8) & 1 == 1 ? 1 : -1)
    }
    #expect(abs(Double(fast) - exact) < 1e-5)
  }
}

@Test(arguments: [(1, 1, 1), (3, 64, 2), (35, 77, 1), (34, 130, 3)])
func binaryWeightsMultiplyByScaledSigns(rows: Int, columns: Int, planes: Int) throws {
  var random = Xoshiro256(seed: UInt64(rows))
  let signs = (0..<planes).map { _ in (0..<rows * columns).map { _ in random.uniform() < 0.5 } }
  for offsets in [[0, columns], [0, columns / 3, columns / 3, columns / 2, columns]] {
    let groups = offsets.count - 1
    let scales = (0..<planes).map { _ in
      (0..<rows * groups).map { _ in Float(Int(random.uniform() * 64) - 20) / 16 }
    }
    for isArranged in [false, true] {
      let order = Array((0..<columns).map { ($0 + columns / 2) % columns }.reversed())
      let factors = (0..<columns).map { Float($0 % 5) / 4 - 0.25 }
      let weight = try BinaryWeight(
        signs: signs, scales: scales, offsets: offsets, outputs: rows,
        order: isArranged ? order : nil, columnFactors: isArranged ? factors : nil,
        scaleType: .float16)
      var expected = [Double](repeating: 0, count: rows * columns)
      for row in 0..<rows {
        for place in 0..<columns {
          let group = (0..<groups).last { offsets[$0] <= place && place < offsets[$0 + 1] } ?? 0
          let column = isArranged ? order[place] : place
          for plane in 0..<planes {
            let scale = Double(scales[plane][row * groups + group])
            expected[row * columns + column] +=
              (signs[plane][row * columns + place] ? scale : -scale)
              * (isArranged ? Double(factors[column]) : 1)
          }
        }
      }
      check(weight, expected)
      try checkStorageLaws(of: weight, decoded: weight.dequantized()) {
        components throws(CodecError) in try BinaryWeight.decode(components)
      }
      for name in components(of: weight).keys {
        var damaged = components(of: weight)
        damaged[name] = Tensor([.nan], shape: [1])
        #expect(throws: CodecError.self) { try BinaryWeight.decode(damaged) }
      }
    }
  }
}

// MARK: Ternary

@Test(arguments: 0...70) func ternarySumsEqualTheirReferenceForEveryTail(count: Int) {
  var random = Xoshiro256(seed: UInt64(count))
  let codes = (0..<108).map { _ in Int8(random.uniform() * 3) - 1 }
  var stream = [UInt8](repeating: 255, count: 27)
  pare_ternary_pack(PARE_TERNARY_BITS, codes, codes.count, &stream)
  let x = (0..<count).map { _ in Float(random.normal()) }
  for first in [0, 1, 3, 4, 30, 108 - count] where first + count <= 108 {
    let fast = pare_ternary_dot(stream, stream.count, first, x, count)
    #expect(fast == pare_ternary_dot_reference(stream, stream.count, first, x, count))
    let exact = (0..<count).reduce(0.0) { $0 + Double(x[$1]) * Double(codes[first + $1]) }
    #expect(abs(Double(fast) - exact) < 1e-5)
  }
}

@Test(
  arguments: [(1, 1, 1), (3, 64, 16), (35, 77, 32), (34, 131, 131), (2, 83, 7)],
  TernaryWeight.Packing.allCases)
func ternaryWeightsMultiplyByScaledCodes(shape: (Int, Int, Int), packing: TernaryWeight.Packing)
  throws
{
  let (rows, columns, group) = shape
  var random = Xoshiro256(seed: UInt64(rows))
  let codes = (0..<rows * columns).map { _ in Int8(random.uniform() * 3) - 1 }
  let groups = (columns + group - 1) / group
  let scales = (0..<rows * groups).map { Float($0 % 9) / 8 + 0.125 }
  let weight = try TernaryWeight(
    codes: codes, scales: scales, outputs: rows, inputs: columns, groupSize: group,
    packing: packing, scaleType: .bfloat16)
  let expected = codes.enumerated().map { index, code in
    Double(code) * Double(scales[index / columns * groups + index % columns / group])
  }
  #expect(weight.dequantized().array.map { Double($0) } == expected)
  check(weight, expected)
  try checkStorageLaws(of: weight, decoded: weight.dequantized()) {
    components throws(CodecError) in
    try TernaryWeight.decode(components, packing: packing, groupSize: group)
  }
  var damaged = components(of: weight)
  let stride = packing == .bits ? (columns + 3) / 4 : (columns + 4) / 5
  damaged[TernaryWeight.Suffix.codes] = Tensor(dtype: .uint8, shape: [rows, stride]) { bytes in
    for index in bytes.indices { bytes[index] = index == bytes.count - 1 ? 0xFE : 0 }
  }
  #expect(
    throws: CodecError.wrongValue(
      component: "ternary_codes", reason: "byte \(rows * stride - 1) holds no ternary codes")
  ) { try TernaryWeight.decode(damaged, packing: packing, groupSize: group) }
}

@Test func bothTernaryPackingsGiveTheSameBits() throws {
  var random = Xoshiro256(seed: 8)
  let (rows, columns) = (40, 1000)
  let codes = (0..<rows * columns).map { _ in Int8(random.uniform() * 3) - 1 }
  let x = Tensor((0..<3 * columns).map { _ in Float(random.normal()) }, shape: [3, columns])
  let products = try TernaryWeight.Packing.allCases.map { packing in
    try TernaryWeight(
      codes: codes, scales: [Float](repeating: 0.3, count: rows * 4), outputs: rows,
      inputs: columns, groupSize: 250, packing: packing, scaleType: .float32
    ).multiply(x)
  }
  #expect(products[0].array == products[1].array)
}

// MARK: Codes with coded scales

@Test(arguments: [(1, 1, 1, 1), (5, 33, 3, 3), (33, 48, 4, 2), (18, 50, 8, 8), (40, 20, 2, 5)])
func bilevelWeightsMultiplyByTheirValues(rows: Int, columns: Int, bits: Int, levelBits: Int) throws
{
  let settings = try BilevelWeight.Settings(
    bits: bits, groupSize: 16, levelBits: levelBits, levelRows: 16)
  let (groups, levels) = ((columns + 15) / 16, (rows + 15) / 16)
  var random = Xoshiro256(seed: UInt64(columns))
  func codes(_ count: Int, _ bits: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next() % (1 << UInt64(bits))) }
  }
  let values = codes(rows * columns, bits)
  let scaleCodes = codes(groups * rows, levelBits)
  let zeroCodes = codes(groups * rows, levelBits)
  let scaleLevels = (0..<groups * levels * 2).map { Float($0 % 7 + 1) / 32 }
  let zeroLevels = (0..<groups * levels * 2).map { Float($0 % 5) / 4 }
  for order in [nil, Array((0..<columns).reversed())] {
    let weight = try BilevelWeight(
      settings: settings, outputs: rows, inputs: columns, codes: values, scaleCodes: scaleCodes,
      zeroCodes: zeroCodes, scaleLevels: scaleLevels, zeroLevels: zeroLevels, order: order)
    var expected = [Double](repeating: 0, count: rows * columns)
    for row in 0..<rows {
      for place in 0..<columns {
        let group = place / 16
        let level = 2 * (group * levels + row / 16)
        func statistic(_ table: [Float], _ codes: [UInt8]) -> Double {
          Double(table[level]) + Double(table[level + 1]) * Double(codes[group * rows + row])
        }
        expected[row * columns + (order?[place] ?? place)] =
          statistic(scaleLevels, scaleCodes)
          * (Double(values[row * columns + place]) - statistic(zeroLevels, zeroCodes))
      }
    }
    check(weight, expected)
    try checkStorageLaws(of: weight, decoded: weight.dequantized()) {
      components throws(CodecError) in try BilevelWeight.decode(components, settings)
    }
    for name in components(of: weight).keys {
      var damaged = components(of: weight)
      damaged[name] = Tensor([.nan], shape: [1])
      #expect(throws: CodecError.self) { try BilevelWeight.decode(damaged, settings) }
    }
  }
}
