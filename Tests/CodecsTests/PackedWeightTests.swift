import CKernels
import Codecs
import Tensors
import Testing

private let blockTypes = GGUFType.allCases.filter { ![.f32, .f16, .bf16].contains($0) }
private let rowCounts = [1, 7, 8, 9, 17, 35]
private let levels = [
  PARE_LEVEL_PLAIN, PARE_LEVEL_AVX2, PARE_LEVEL_VNNI, PARE_LEVEL_DOTPROD,
].filter { pare_packed_has_level($0) != 0 }

/// Columns to try: short rows, rows that end inside a unit, rows longer than a panel.
private func columnCounts(_ type: GGUFType) -> [Int] {
  type.blockLength == 256 ? [256, 768, 2304] : [32, 96, 256, 768, 2080]
}

/// Blocks whose codes are any bits and whose scales are moderate.
private func randomBlocks(
  _ type: GGUFType, rows: Int, columns: Int, _ random: inout TestRandom
) throws -> BlockQuantizedWeight {
  let blocks = rows * columns / type.blockLength
  let bytes = Tensor(dtype: .int8, shape: [blocks * type.blockBytes]) { target in
    for index in target.indices { target[index] = UInt8(random.unit() * 256) }
    for block in 0..<blocks {
      let start = block * type.blockBytes
      if type == .mxfp4 { target[start] = UInt8(random.unit() * 16) + 118 }
      if type == .mxfp4, block % 5 == 0 { target[start] = UInt8(block % 3) }
      for offset in halfOffsets(type) {
        let scale = Float16((random.unit() - 0.5) * 0.1)
        target.storeBytes(of: scale.bitPattern, toByteOffset: start + offset, as: UInt16.self)
      }
    }
  }
  return try GGUFBlocks(type).decode(bytes, outputs: rows, inputs: columns)
}

private func halfOffsets(_ type: GGUFType) -> [Int] {
  switch type {
  case .q4_1, .q5_1, .q4_K, .q5_K: [0, 2]
  case .q2_K: [80, 82]
  case .q3_K: [108]
  case .q6_K: [208]
  case .tq1_0: [52]
  case .tq2_0: [64]
  case .mxfp4: []
  default: [0]
  }
}

/// What the packed product is meant to be, in Double: decoded weights times rounded activations.
private struct Reference {
  var values: [Double] = []
  /// Sums of absolute terms, which rounding errors are measured by.
  var sizes: [Double] = []

  init(_ weight: some Weight, _ x: Tensor) {
    let W = weight.dequantized().array  // [outputs, inputs]
    let rounded = Self.rounded(x)
    for token in 0..<x.rows {
      for output in 0..<weight.outputs {
        var (sum, size) = (0.0, 0.0)
        for column in 0..<weight.inputs {
          let term =
            Double(W[output * weight.inputs + column]) * rounded[token * weight.inputs + column]
          sum += term
          size += abs(term)
        }
        values.append(sum)
        sizes.append(size)
      }
    }
  }

  /// The multiples of max |x| / 127 nearest to 32 activations each.
  private static func rounded(_ x: Tensor) -> [Double] {
    let values = x.array
    return stride(from: 0, to: values.count, by: 32).flatMap { start in
      let block = values[start..<(start + 32)]
      let largest = block.reduce(Float(0)) { max($0, abs($1)) }
      let inverse = largest > 0 ? 127 / largest : 0
      return block.map {
        Double(($0 * inverse).rounded(.toNearestOrEven)) * Double(largest / 127)
      }
    }
  }

  func check(_ result: Tensor, _ what: String) {
    #expect(result.count == values.count)
    for (index, value) in result.array.enumerated() {
      // Minima and products cancel, so sums of rounded terms count, not the result.
      let allowed = 4e-6 * sizes[index] + 1e-7
      if !(abs(Double(value) - values[index]) <= allowed) {
        Issue.record("\(what), element \(index): \(value), expected \(values[index])")
        return
      }
    }
  }
}

@Suite(.serialized) struct PackedWeightTests {
  private func checkProducts(_ packed: PackedWeight, _ random: inout TestRandom, _ what: String) {
    let before = Parallel.threads
    defer { Parallel.threads = before }
    let tokens = packed.inputs < 300 ? 33 : 17
    let x = random.matrix(tokens, packed.inputs)
    let reference = Reference(packed, x.rows(0..<1))
    var first: Tensor?
    for level in levels {
      pare_packed_use_level(level)
      let all = packed.multiply(x)
      reference.check(all.rows(0..<1), "\(what) at level \(level.rawValue)")
      if let first {
        #expect(all.isIdentical(to: first), "\(what): level \(level.rawValue) differs from plain C")
      }
      first = first ?? all
      for some in [1, 2, 3, 4, 5, 6, 7, 8, 9, 17] {
        let last = (tokens - some)..<tokens
        #expect(
          packed.multiply(x.rows(last)).isIdentical(to: all.rows(last)),
          "\(what): \(some) tokens at level \(level.rawValue)")
      }
    }
    for threads in [1, 2, 3] {
      Parallel.threads = threads
      #expect(packed.multiply(x).isIdentical(to: first ?? x))
      #expect(packed.multiply(x.rows(4..<5)).isIdentical(to: (first ?? x).rows(4..<5)))
    }
  }

  @Test(arguments: blockTypes)
  func packedBlocksMultiplyAsTheirDecodedValues(_ type: GGUFType) throws {
    var random = TestRandom(seed: UInt64(type.rawValue) + 700)
    for (rows, columns) in zip(rowCounts, columnCounts(type) + columnCounts(type)) {
      let weight = try randomBlocks(type, rows: rows, columns: columns, &random)
      let packed = try #require(PackedWeight(packing: weight))
      #expect((packed.outputs, packed.inputs) == (rows, columns))
      #expect(packed.dequantized().isIdentical(to: weight.dequantized()))
      checkProducts(packed, &random, "\(type.name) [\(rows), \(columns)]")
    }
  }

  @Test(arguments: AffineGroups.supportedBits)
  func packedGroupsMultiplyAsTheirDecodedValues(bits: Int) throws {
    var random = TestRandom(seed: UInt64(bits) + 800)
    let shapes: [(AffineGroups.Granularity, Int, Int)] = [
      (.group(32), 9, 160), (.group(16), 17, 96), (.group(64), 33, 448), (.group(128), 7, 2304),
      (.group(96), 16, 288), (.group(256), 3, 512), (.channel, 19, 2336), (.tensor, 20, 64),
    ]
    for isSymmetric in [true, false] {
      for (index, (granularity, rows, columns)) in shapes.enumerated() {
        let codec = try AffineGroups(
          bits: bits, granularity: granularity, isSymmetric: isSymmetric,
          scaleType: [.bfloat16, .float16, .float32][index % 3],
          layout: index % 2 == 0 ? .packed : .int8)
        let weight = try codec.encode(random.matrix(rows, columns, scale: 0.05))
        let packed = try #require(PackedWeight(packing: weight))
        #expect(packed.dequantized().isIdentical(to: weight.dequantized()))
        checkProducts(packed, &random, "\(bits) bits \(granularity) [\(rows), \(columns)]")
      }
    }
  }

  @Test func matricesWithoutAPackedFormAreLeftAlone() throws {
    var random = TestRandom(seed: 900)
    #expect(try PackedWeight(packing: GGUFBlocks(.q8_0).encode(random.matrix(0, 64))) == nil)
    for (granularity, columns) in [(AffineGroups.Granularity.group(24), 96), (.channel, 50)] {
      let codec = try AffineGroups(bits: 4, granularity: granularity)
      #expect(try PackedWeight(packing: codec.encode(random.matrix(4, columns))) == nil)
    }
  }

  @Test(arguments: blockTypes) func packedMatricesTakeTheMemoryOfTheirFiles(_ type: GGUFType) throws
  {
    var random = TestRandom(seed: 901)
    let weight = try randomBlocks(type, rows: 32, columns: 2048, &random)
    let packed = try #require(PackedWeight(packing: weight))
    #expect(packed.storedBytes == weight.storedBytes)
    guard type != .tq1_0 else { return }
    #expect(Double(packed.residentBytes) <= 1.03 * Double(weight.storedBytes))
  }

  @Test func activationsThatAreZeroOrTinyGiveZeros() throws {
    var random = TestRandom(seed: 902)
    let weight = try randomBlocks(.q4_K, rows: 5, columns: 256, &random)
    let packed = try #require(PackedWeight(packing: weight))
    for value in [0, 1e-38, -Float.leastNonzeroMagnitude] {
      let x = Tensor([Float](repeating: value, count: 256), shape: [1, 256])
      #expect(packed.multiply(x).array.allSatisfy { $0 == 0 })
    }
  }

  @Test func rowsAreLookedUp() throws {
    var random = TestRandom(seed: 903)
    let weight = try randomBlocks(.q6_K, rows: 21, columns: 256, &random)
    let packed = try #require(PackedWeight(packing: weight))
    #expect(packed.rows(at: [20, 0, 16, 16]).isIdentical(to: weight.rows(at: [20, 0, 16, 16])))
  }
}
