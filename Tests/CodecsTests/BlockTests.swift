import CKernels
import Codecs
import Foundation
import Tensors
import TestSupport
import Testing

private let blockTypes = GGUFType.allCases.filter { $0.blockLength > 1 }
private let searched = blockTypes.filter { !BlockRule.types.contains($0) }

private func encode(
  _ type: GGUFType, _ row: [Float], importance: [Float]? = nil, level: Int32 = 2
) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: type.rowBytes(inputs: row.count))
  var fault = 0
  let status =
    importance.map {
      pare_block_encode_at(level, type.kernelType, row, row.count, $0, &bytes, &fault)
    } ?? pare_block_encode_at(level, type.kernelType, row, row.count, nil, &bytes, &fault)
  #expect(status == PARE_BLOCK_OK)
  return bytes
}

/// Rows a converter meets: weights, weights with outliers, zeros, constants, one lone weight,
/// numbers below float16's range, all of one sign.
private func rows(_ columns: Int, seed: UInt64) -> [[Float]] {
  var random = TestRandom(seed: seed)
  let weights = random.matrix(1, columns, scale: 0.05).array
  return [
    weights, weights.map { abs($0) + 0.01 }, weights.map { -abs($0) }, weights.map { $0 * 1e-7 },
    weights.map { $0 * 1e-20 }, weights.map { $0 * 1e4 },
    [Float](repeating: 0, count: columns), [Float](repeating: -0.0, count: columns),
    [Float](repeating: 0.3, count: columns), [Float](repeating: -0.3, count: columns),
    (0..<columns).map { $0 == columns / 2 ? -1 : 0 },
    (0..<columns).map { Float($0 % 9 - 4) / 4 },
  ]
}

private func importance(_ columns: Int, seed: UInt64) -> [Float] {
  var random = TestRandom(seed: seed)
  return (0..<columns).map { _ in Float(exp(4 * random.unit() - 2)) }
}

@Test(arguments: blockTypes) func decodingRandomBytesIsTheFormatsArithmetic(_ type: GGUFType) {
  var random = TestRandom(seed: UInt64(type.rawValue) + 1)
  for blocks in 1...9 {
    var bytes = (0..<blocks * type.blockBytes).map { _ in UInt8(random.unit() * 256) }
    for block in 0..<blocks {
      for offset in BlockOracle.scaleOffsets(type) {
        // Any float16 but NaN and infinity.
        let at = block * type.blockBytes + offset + 1
        if bytes[at] & 0x7c == 0x7c { bytes[at] &= 0xbf }
      }
      if type == .mxfp4 { bytes[block * type.blockBytes] %= 250 }
    }
    let count = blocks * type.blockLength
    var fast = [Float](repeating: .nan, count: count + 1)
    var plain = fast
    // One byte off any alignment.
    ([0] + bytes).withUnsafeBytes {
      guard let base = $0.baseAddress else { return }
      pare_block_decode(type.kernelType, base + 1, count, &fast)
      pare_block_decode_reference(type.kernelType, base + 1, count, &plain)
    }
    #expect(fast[count].isNaN, "nothing is written past the end")
    let expected = BlockOracle.decode(type, bytes)
    for i in 0..<count {
      #expect(fast[i] == plain[i])
      // One rounding, of the difference of two products.
      #expect(abs(Double(fast[i]) - expected[i]) <= abs(expected[i]) * 0x1p-24 + 0x1p-60)
    }
  }
}

@Test(arguments: BlockRule.types) func bytesFollowTheFormatsRule(_ type: GGUFType) {
  for seed in 1...4 {
    for row in rows(512, seed: UInt64(seed)) {
      #expect(encode(type, row) == BlockRule.encode(type, row))
    }
  }
}

@Test(arguments: blockTypes) func everyInstructionSetGivesTheSameBytes(_ type: GGUFType) {
  for row in rows(768, seed: 11) {
    let importance = importance(768, seed: 12)
    let plain = encode(type, row)
    let weighted = encode(type, row, importance: importance)
    for level in [Int32(0), 1] {
      #expect(encode(type, row, level: level) == plain)
      #expect(encode(type, row, importance: importance, level: level) == weighted)
    }
  }
}

@Test(arguments: blockTypes) func aRowIsItsBlocksWhateverItsLength(_ type: GGUFType) {
  let length = type.blockLength
  let most = length == 32 ? 35 : 5
  var random = TestRandom(seed: 21)
  let row = random.matrix(1, most * length, scale: 0.02).array
  let importance = importance(row.count, seed: 22)
  for isWeighted in [false, true] {
    let alone = (0..<most).map { block in
      let range = block * length..<(block + 1) * length
      return encode(
        type, Array(row[range]), importance: isWeighted ? Array(importance[range]) : nil)
    }
    for blocks in [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 35] where blocks <= most {
      let part = Array(row[..<(blocks * length)])
      let bytes = encode(
        type, part, importance: isWeighted ? Array(importance[..<part.count]) : nil)
      #expect(bytes == alone[..<blocks].flatMap { $0 })
    }
  }
}

@Test(arguments: searched) func everyCodeIsTheNearestOfItsBlocksGrid(_ type: GGUFType) {
  for (row, isWeighted) in rows(512, seed: 31).flatMap({ [($0, false), ($0, true)] }) {
    let bytes = encode(type, row, importance: isWeighted ? importance(512, seed: 32) : nil)
    for (block, oracle) in BlockOracle.blocks(type, bytes).enumerated() {
      for i in 0..<type.blockLength {
        let value = Double(row[block * type.blockLength + i])
        let grid = oracle.grid(i)
        let nearest = grid.map { abs($0 - value) }.min() ?? 0
        let span = grid.map(abs).max() ?? 0
        // Near a midpoint float32 may take either side.
        #expect(abs(oracle.value(i) - value) <= nearest + span * 0x1p-21 + 1e-9 * abs(value))
      }
    }
  }
}

private func squaredError(_ type: GGUFType, _ bytes: [UInt8], _ row: [Float], _ weights: [Float])
  -> Double
{
  zip(zip(BlockOracle.decode(type, bytes), row), weights).reduce(0.0) {
    let gap = $1.0.0 - Double($1.0.1)
    return $0 + gap * gap * Double($1.1)
  }
}

@Test(arguments: blockTypes) func importanceLowersTheWeightedError(_ type: GGUFType) throws {
  var random = TestRandom(seed: 41)
  for seed in 1...3 {
    let row = random.matrix(1, 2048, scale: 0.02).array
    let importance = importance(2048, seed: UInt64(seed))
    let plain = squaredError(type, encode(type, row), row, importance)
    let weighted = squaredError(
      type, encode(type, row, importance: importance), row, importance)
    if try GGUFBlocks(type).usesImportance {
      #expect(weighted < plain)
    } else {
      #expect(weighted == plain)
    }
    // One importance for all is none: what is searched is the same sum.
    let ones = [Float](repeating: 3, count: 2048)
    if searched.contains(type) {
      #expect(encode(type, row, importance: ones) == encode(type, row))
    }
    // Columns that are never used still get near codes, and break nothing.
    let unused = importance.enumerated().map { $0.offset % 512 < 300 ? 0 : $0.element }
    let bytes = encode(type, row, importance: unused)
    let size = row.reduce(0.0) { $0 + Double($1) * Double($1) }
    #expect(
      squaredError(type, bytes, row, ones)
        < (type == .tq1_0 || type == .tq2_0 ? 4 : 0.9) * size)
  }
}

@Test func eachBitOfTheKQuantsHalvesTheErrorAtLeast() {
  var random = TestRandom(seed: 51)
  let row = random.matrix(1, 1024, scale: 0.02).array
  let ones = [Float](repeating: 1, count: row.count)
  let ladder: [GGUFType] = [.q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .q8_0]
  let errors = ladder.map { squaredError($0, encode($0, row), row, ones) }
  for (worse, better) in zip(errors, errors.dropFirst()) { #expect(better < worse / 2) }
}

private let golden = SharedFiles.packageRoot
  .appending(path: "Tests/Golden/gguf-blocks/cases.safetensors").path

@Test(arguments: blockTypes) func blocksOfLlamaCppAreReadAndNeverBeaten(_ type: GGUFType) throws {
  let file = try GoldenFile(golden)
  let weight = try #require(file.tensors["weight"]).widened()
  let importance = try #require(file.tensors["importance"]).array
  for suffix in ["plain", "weighted"] {
    let stored = try #require(file.tensors["\(type.name)/\(suffix)"])
    let sum = try #require(file.tensors["\(type.name)/\(suffix)_sum"])
    let read = try GGUFBlocks(type).decode(["weight": stored])
    #expect(read.inputs == weight.columns)
    let total = read.dequantized().array.reduce(0.0) { $0 + Double($1) }
    let expected = sum.bytes.loadUnaligned(as: Double.self)
    #expect(abs(total - expected) <= 1e-9 * abs(expected) + 1e-12)

    let weights = suffix == "plain" ? [Float](repeating: 1, count: importance.count) : importance
    var (ours, theirs) = (0.0, 0.0)
    for row in 0..<weight.rows {
      let values = weight.rows(row..<row + 1).array
      let bytes = encode(type, values, importance: suffix == "plain" ? nil : importance)
      let other = Array(stored.rows(row..<row + 1).bytes)
      if BlockRule.types.contains(type), suffix == "plain" { #expect(bytes == other) }
      ours += squaredError(type, bytes, values, weights)
      theirs += squaredError(type, other, values, weights)
    }
    #expect(ours <= theirs)
  }
}
