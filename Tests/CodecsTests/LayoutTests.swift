import Codecs
import Tensors
import TestSupport
import Testing

/// A random matrix on random grids.
private func weight(
  bits: Int, _ outputs: Int, _ inputs: Int, group: Int?, symmetric: Bool, scaleType: DType,
  order: Bool = false, seed: UInt64 = 3
) throws -> GroupQuantizedWeight {
  var random = TestRandom(seed: seed)
  let levels = 1 << bits
  let length = group ?? inputs
  let groups = (inputs + length - 1) / length
  let scales = Tensor(
    (0..<outputs * groups).map { _ in Float(0.01 + 0.05 * random.unit()) },
    shape: [outputs, groups]
  ).converted(to: scaleType)
  // From 1: version 1 of GPTQ has no zero point 0.
  let zeros = (0..<outputs * groups).map { _ in
    symmetric ? UInt8(levels / 2) : UInt8(1 + Int(random.unit() * Double(levels - 1)))
  }
  var index: [Int32]?
  if order {
    var groupsOfColumns = (0..<inputs).map { Int32($0 / length) }
    for column in stride(from: inputs - 1, to: 0, by: -1) {
      groupsOfColumns.swapAt(column, Int(random.unit() * Double(column + 1)))
    }
    index = groupsOfColumns
  }
  let grid = OpenGrid(
    bits: bits, outputs: outputs, inputs: inputs, groupSize: group, scales: scales, zeros: zeros,
    groupIndex: index)
  let codes = (0..<outputs * inputs).map { _ in UInt8(random.unit() * Double(levels)) }
  let weight = try GroupQuantizedWeight(grid, codes: codes)
  #expect(weight.openCodes() == codes && weight.openGrid().zeros == zeros)
  return weight
}

private func named(_ components: [(suffix: String, tensor: Tensor)]) -> [String: Tensor] {
  Dictionary(uniqueKeysWithValues: components.map { ($0.suffix, $0.tensor) })
}

/// Written, checked against what the plan declares, read again: the same codes, scales and zeros.
private func roundTrip(
  _ weight: GroupQuantizedWeight, _ layout: some WritableLayout
) throws -> (parts: [String: Tensor], back: any StoredWeight) {
  let components = try layout.encode(weight.openGrid(), codes: weight.openCodes())
  let plan = try layout.plan(weight.openGrid())
  #expect(components.map(\.suffix) == plan.components.map(\.suffix))
  #expect(components.map(\.tensor.shape) == plan.components.map(\.shape))
  #expect(components.map(\.tensor.dtype) == plan.components.map(\.dtype))
  let parts = named(components)
  return (parts, try layout.decode(components: parts))
}

private func expectEqual(_ weight: any Weight, _ oracle: [Double]) {
  let values = weight.dequantized()
  #expect(oracle.count == values.count)
  #expect(zip(0..<values.count, oracle).allSatisfy { values.floats[$0] == Float($1) })
}

@Test(
  arguments: GPTQLayout.supportedBits,
  [GPTQLayout.ZeroPoints.minusOne, .plain])
func gptqHoldsEveryGridBitByBit(bits: Int, zeroPoints: GPTQLayout.ZeroPoints) throws {
  for (shape, group) in [([32, 96], 32), ([96, 64], 64), ([64, 160], nil)] as [([Int], Int?)] {
    for symmetric in [true, false] {
      for order in [false, true] where group != nil || !order {
        let weight = try weight(
          bits: bits, shape[0], shape[1], group: group, symmetric: symmetric,
          scaleType: .bfloat16, order: order)
        let layout = try GPTQLayout(
          bits: bits, groupSize: group, zeroPoints: zeroPoints, scaleType: .bfloat16)
        let (parts, back) = try roundTrip(weight, layout)
        #expect(back.isIdentical(to: weight))
        expectEqual(
          weight,
          LayoutOracle.gptq(parts, bits: bits, isVersion1: zeroPoints == .minusOne))
      }
    }
  }
}

@Test func symmetricFourBitsAreTheWordsThatGPTQKnows() throws {
  let weight = try weight(
    bits: 4, 8, 32, group: 32, symmetric: true, scaleType: .float16)
  for (zeroPoints, word) in [(GPTQLayout.ZeroPoints.minusOne, 0x7777_7777), (.plain, 0x8888_8888)] {
    let layout = try GPTQLayout(bits: 4, groupSize: 32, zeroPoints: zeroPoints)
    let zeros = try #require(try roundTrip(weight, layout).parts["qzeros"])
    #expect(LayoutOracle.word(zeros, 0, 0) == UInt32(word))
  }
}

@Test func aZeroPointOfZeroIsRefusedByVersion1Alone() throws {
  let grid = OpenGrid(
    bits: 4, outputs: 8, inputs: 32, groupSize: 32,
    scales: Tensor([Float](repeating: 0.5, count: 8), shape: [8, 1]).converted(to: .float16),
    zeros: [8, 8, 0, 8, 8, 8, 8, 8])
  let error = #expect(throws: CodecError.self) {
    try GPTQLayout(bits: 4, groupSize: 32, zeroPoints: .minusOne).plan(grid)
  }
  #expect("\(error.map { "\($0)" } ?? "")".contains("row 2"))
  _ = try GPTQLayout(bits: 4, groupSize: 32, zeroPoints: .plain).plan(grid)
}

@Test func awqHoldsEveryGridOfFourBits() throws {
  for (shape, group) in [([8, 96], 32), ([24, 64], 16), ([16, 40], nil)] as [([Int], Int?)] {
    for symmetric in [true, false] {
      let weight = try weight(
        bits: 4, shape[0], shape[1], group: group, symmetric: symmetric, scaleType: .float16)
      let (parts, back) = try roundTrip(weight, AWQLayout(groupSize: group))
      #expect(back.isIdentical(to: weight))
      expectEqual(weight, LayoutOracle.awq(parts, groupSize: group ?? shape[1]))
    }
  }
}

@Test(arguments: MLXLayout.supportedBits, [DType.float32, .float16, .bfloat16])
func mlxHoldsEveryGridUpToTheTypeOfItsBiases(bits: Int, scaleType: DType) throws {
  for (shape, group) in [([5, 96], 32), ([24, 64], 64), ([7, 256], nil)] as [([Int], Int?)] {
    for symmetric in [true, false] {
      let weight = try weight(
        bits: bits, shape[0], shape[1], group: group, symmetric: symmetric, scaleType: scaleType)
      let size = try #require(MLXLayout.groupSize(for: weight.openGrid()))
      let layout = try MLXLayout(bits: bits, groupSize: size, scaleType: scaleType)
      // Two zero points of 8 bits may have the same bias in bfloat16.
      if bits == 8, scaleType == .bfloat16, !symmetric,
        (try? layout.plan(weight.openGrid())) == nil
      {
        continue
      }
      let (parts, back) = try roundTrip(weight, layout)
      let again = try #require(back as? any AffineWeight)
      let grid = weight.openGrid().repeated(groupSize: size)
      #expect(again.openCodes() == weight.openCodes())
      #expect(try again.openGrid().zeros == grid.zeros)
      #expect(try again.openGrid().scales.isIdentical(to: grid.scales))
      let oracle = LayoutOracle.mlx(parts, bits: bits, groupSize: size)
      let rounding = try layout.plan(weight.openGrid()).rounding
      // A product of a power of two is exact, whatever the type.
      if symmetric { #expect(rounding == nil) }
      if rounding == nil { expectEqual(weight, oracle) }
      let values = back.dequantized()
      // Two roundings of a code's product and its sum with the bias.
      let largest = Double(1 << bits) * 0.06
      #expect(
        zip(0..<values.count, oracle).allSatisfy {
          abs(Double(values.floats[$0]) - $1) <= largest * 0x1p-22
        })
    }
  }
}

@Test func aBiasThatLosesItsZeroPointIsRefused() throws {
  // 255 · 129/128 is 256 in bfloat16, which is nearer to 254 scales.
  let grid = OpenGrid(
    bits: 8, outputs: 1, inputs: 32, groupSize: 32,
    scales: Tensor([129.0 / 128], shape: [1, 1]).converted(to: .bfloat16), zeros: [255])
  let error = #expect(throws: CodecError.self) {
    try MLXLayout(bits: 8, groupSize: 32, scaleType: .bfloat16).plan(grid)
  }
  #expect("\(error.map { "\($0)" } ?? "")".contains("--dtype f32"))
  #expect(
    try MLXLayout(bits: 8, groupSize: 32, scaleType: .float32).plan(grid).rounding == nil)
}

@Test func biasesThatAreNoZeroPointsAreReadAsTheyAreAndNotCarried() throws {
  var random = TestRandom(seed: 8)
  let codes = Tensor(dtype: .uint32, shape: [6, 8]) { target in
    for index in target.indices { target[index] = UInt8(random.unit() * 256) }
  }
  let scales = Tensor((0..<12).map { _ in Float(random.unit() - 0.5) }, shape: [6, 2])
  let biases = Tensor((0..<12).map { _ in Float(random.unit() - 0.5) }, shape: [6, 2])
  let parts = ["weight": codes, "scales": scales, "biases": biases]
  let weight = try MLXLayout(bits: 4, groupSize: 32).decode(components: parts)
  let oracle = LayoutOracle.mlx(parts, bits: 4, groupSize: 32)
  let values = weight.dequantized()
  for (index, value) in oracle.enumerated() {
    #expect(abs(Double(values.floats[index]) - value) < 1e-6)
  }
  let x = random.matrix(3, 64)
  let y = weight.multiply(x)
  for token in 0..<3 {
    for row in 0..<6 {
      let sum = (0..<64).reduce(0.0) {
        $0 + oracle[row * 64 + $1] * Double(x.floats[token * 64 + $1])
      }
      #expect(abs(Double(y.floats[token * 6 + row]) - sum) < 1e-4)
    }
  }
  #expect(named(weight.encoded())["biases"]?.isIdentical(to: biases) == true)
  let affine = try #require(weight as? any AffineWeight)
  #expect(throws: CodecError.self) { try affine.openGrid() }
}

@Test(arguments: [true, false], [1, 40])
func columnsInAnotherOrderMultiplyAsTheyDecode(symmetric: Bool, tokens: Int) throws {
  let weight = try weight(
    bits: 4, 40, 96, group: 32, symmetric: symmetric, scaleType: .float32, order: true)
  var random = TestRandom(seed: 5)
  let x = random.matrix(tokens, 96)
  let dense = weight.dequantized()
  let y = weight.multiply(x)
  for token in 0..<tokens {
    for row in 0..<40 {
      let sum = (0..<96).reduce(0.0) {
        $0 + Double(dense.floats[row * 96 + $1]) * Double(x.floats[token * 96 + $1])
      }
      #expect(abs(Double(y.floats[token * 40 + row]) - sum) < 1e-4)
    }
  }
  let parts = named(weight.encoded())
  #expect(parts["weight_g_idx"]?.shape == [96])
  let back = try weight.codec.decode(parts)
  #expect(back.isIdentical(to: weight) && back.dequantized().isIdentical(to: dense))
  #expect(PackedWeight(packing: weight) == nil)
  // The index moves scales, not codes.
  var plain = parts
  plain["weight_g_idx"] = nil
  let unordered = try weight.codec.decode(plain)
  #expect(unordered.openCodes() == weight.openCodes())
  #expect(!unordered.dequantized().isIdentical(to: dense))
}

@Test func aGroupIndexOfUnequalGroupsIsRefused() throws {
  let weight = try weight(
    bits: 4, 8, 64, group: 32, symmetric: true, scaleType: .float32, order: true)
  var parts = named(weight.encoded())
  parts["weight_g_idx"] = Tensor([Int32](repeating: 0, count: 63) + [1])
  #expect(throws: CodecError.self) { try weight.codec.decode(parts) }
  parts["weight_g_idx"] = Tensor([Int32](repeating: 9, count: 64))
  #expect(throws: CodecError.self) { try weight.codec.decode(parts) }
  // Written where the order means nothing.
  parts["weight_g_idx"] = Tensor([Int32](repeating: -1, count: 64))
  #expect(try weight.codec.decode(parts).columnGroups == nil)
}

@Test func whatALayoutCannotHoldIsRefusedWithTheReason() throws {
  let five = try weight(bits: 5, 8, 64, group: 32, symmetric: true, scaleType: .float16)
    .openGrid()
  let odd = try weight(bits: 4, 7, 64, group: 32, symmetric: true, scaleType: .float16).openGrid()
  let ordered = try weight(
    bits: 4, 8, 64, group: 32, symmetric: true, scaleType: .float16, order: true
  ).openGrid()
  let short = try weight(bits: 4, 8, 72, group: 32, symmetric: true, scaleType: .float16)
    .openGrid()
  let small = try weight(bits: 4, 8, 64, group: 16, symmetric: true, scaleType: .float16)
    .openGrid()
  let awq = AWQLayout(groupSize: 32)
  let gptq = try GPTQLayout(bits: 4, groupSize: 32, zeroPoints: .plain)
  let mlx = try MLXLayout(bits: 4, groupSize: 32)
  let refused: [(any WritableLayout, OpenGrid, String)] = [
    (awq, five, "5"), (awq, odd, "7"), (awq, ordered, "order"), (awq, small, "16"),
    (gptq, odd, "7"), (gptq, five, "5"), (mlx, ordered, "order"), (mlx, small, "16"),
    (mlx, short, "72"),
  ]
  for (layout, grid, word) in refused {
    let error = #expect(throws: CodecError.self) { try layout.plan(grid) }
    #expect("\(error.map { "\($0)" } ?? "")".contains(word), "\(layout)")
  }
  for grid in [ordered, small, short] {
    #expect(throws: CodecError.self) { try GGUFBlocks.type(holding: grid, codes: { [] }) }
  }
  #expect(throws: CodecError.self) { try GPTQLayout(bits: 5, groupSize: 32, zeroPoints: .plain) }
}

@Test func scalesBeyondFloat16AreRefused() throws {
  for scale in [1e6, 1e-9] as [Float] {
    let grid = OpenGrid(
      bits: 4, outputs: 8, inputs: 32, groupSize: nil,
      scales: Tensor([Float](repeating: scale, count: 8), shape: [8, 1]),
      zeros: [UInt8](repeating: 8, count: 8))
    #expect(throws: CodecError.self) { try AWQLayout(groupSize: nil).plan(grid) }
    #expect(throws: CodecError.self) { try GGUFBlocks.type(holding: grid, codes: { [] }) }
  }
}

@Test(arguments: [2, 3, 4, 5, 6, 8], [true, false])
func ggufBlocksHoldEveryGrid(bits: Int, symmetric: Bool) throws {
  for (inputs, group) in [(96, 32), (128, 64), (160, nil)] as [(Int, Int?)] {
    let weight = try weight(
      bits: bits, 5, inputs, group: group, symmetric: symmetric, scaleType: .bfloat16)
    let grid = weight.openGrid()
    let codes = weight.openCodes()
    if bits == 8, !symmetric {
      #expect(throws: CodecError.self) { try GGUFBlocks.type(holding: grid, codes: { codes }) }
      continue
    }
    let (type, rounding) = try GGUFBlocks.type(holding: grid, codes: { codes })
    let blocks = try GGUFBlocks.blocks(grid, codes: codes, as: type)
    let (old, new) = (weight.dequantized(), blocks.dequantized())
    for index in 0..<old.count {
      let largest = Float(1 << bits) * 0.06
      let slack = rounding == nil ? 0 : largest * 0x1p-11
      #expect(abs(old.floats[index] - new.floats[index]) <= slack, "\(type)")
    }
    // Back from the blocks: the same steps from zero, on the grid of the type.
    guard symmetric || bits <= 5 else { continue }
    let back = try blocks.openGrid()
    let opened = blocks.openCodes()
    for index in codes.indices {
      let (row, column) = (index / inputs, index % inputs)
      let was = Int(codes[index]) - Int(grid.zeros[row * grid.groups + column / grid.groupLength])
      let is_ = Int(opened[index]) - Int(back.zeros[row * back.groups + column / 32])
      #expect(was == is_)
    }
  }
}

@Test func ternaryCodesTakeTwoBits() throws {
  var random = TestRandom(seed: 12)
  let codes = (0..<512).map { _ in UInt8(1 + random.unit() * 3) }
  let grid = OpenGrid(
    bits: 2, outputs: 2, inputs: 256, groupSize: nil,
    scales: Tensor([0.5, 0.25], shape: [2, 1]), zeros: [2, 2])
  let (type, rounding) = try GGUFBlocks.type(holding: grid, codes: { codes })
  #expect(type == .tq2_0 && rounding == nil)
  let weight = try GroupQuantizedWeight(grid, codes: codes)
  let blocks = try GGUFBlocks.blocks(grid, codes: codes, as: type)
  #expect(blocks.dequantized().isIdentical(to: weight.dequantized()))
}

@Test func damagedLayoutsAreRefusedByComponent() throws {
  let weight = try weight(bits: 4, 16, 64, group: 32, symmetric: false, scaleType: .float16)
  let layouts: [any WritableLayout] = [
    try GPTQLayout(bits: 4, groupSize: 32, zeroPoints: .plain), AWQLayout(groupSize: 32),
    try MLXLayout(bits: 4, groupSize: 32),
  ]
  for layout in layouts {
    let parts = named(try layout.encode(weight.openGrid(), codes: weight.openCodes()))
    for suffix in layout.requiredSuffixes {
      var damaged = parts
      damaged[suffix] = nil
      #expect(throws: CodecError.missing(component: suffix)) {
        try layout.decode(components: damaged)
      }
      damaged[suffix] = Tensor(dtype: .int64, shape: parts[suffix]?.shape ?? []) { target in
        target.initializeMemory(as: UInt8.self, repeating: 0)
      }
      #expect(throws: CodecError.self) { try layout.decode(components: damaged) }
      guard let tensor = parts[suffix], tensor.rows > 1 else { continue }
      damaged[suffix] = tensor.rows(0..<1)
      #expect(throws: CodecError.self) { try layout.decode(components: damaged) }
    }
    var stray = parts
    stray["more"] = weight.scales
    #expect(throws: CodecError.unexpected(component: "more")) {
      try layout.decode(components: stray)
    }
    var infinite = parts
    infinite["scales"] = parts["scales"].map {
      Tensor([Float](repeating: .infinity, count: $0.count), shape: $0.shape)
    }
    #expect(throws: CodecError.self) { try layout.decode(components: infinite) }
  }
}
