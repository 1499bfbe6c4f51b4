import Codecs
import Tensors
import Testing

private func parts(_ codec: AffineGroups, _ rows: Int, _ columns: Int, seed: UInt64 = 1) throws
  -> (weight: GroupQuantizedWeight, components: [String: Tensor])
{
  var random = TestRandom(seed: seed)
  let weight = try codec.encode(random.matrix(rows, columns))
  return (weight, Dictionary(uniqueKeysWithValues: weight.encoded()))
}

private func words(_ values: [UInt32], shape: [Int]) -> Tensor {
  Tensor(dtype: .int32, shape: shape) { bytes in
    values.withUnsafeBytes { bytes.copyMemory(from: $0) }
  }
}

@Test func damagedComponentsAreRefusedByName() throws {
  let codec = try AffineGroups(
    bits: 4, granularity: .group(16), isSymmetric: false, scaleType: .float32)
  let (_, good) = try parts(codec, 6, 32)
  func refused(_ change: (inout [String: Tensor]) -> Void) -> CodecError? {
    var components = good
    change(&components)
    do {
      _ = try codec.decode(components)
      return nil
    } catch { return error }
  }
  for name in good.keys {
    #expect(refused { $0[name] = nil } == .missing(component: name))
  }
  let zeros = words([0, 0, 0, 0, 0, 0], shape: [6, 1])
  #expect(
    refused { $0["weight_packed"] = zeros }
      == .wrongShape(component: "weight_packed", expected: [6, 4], actual: [6, 1]))
  #expect(
    refused { $0["weight_packed"] = Tensor([Float](repeating: 0, count: 24), shape: [6, 4]) }
      == .wrongType(component: "weight_packed", expected: "I32", actual: .float32))
  #expect(
    refused { $0["weight_scale"] = Tensor([Float](repeating: 1, count: 6), shape: [6, 1]) }
      == .wrongShape(component: "weight_scale", expected: [6, 2], actual: [6, 1]))
  #expect(
    refused { $0["weight_scale"] = $0["weight_scale"]?.truncatedToBFloat16() }
      == .wrongType(component: "weight_scale", expected: "F32", actual: .bfloat16))
  #expect(
    refused { $0["weight_zero_point"] = zeros }
      == .wrongShape(component: "weight_zero_point", expected: [1, 2], actual: [6, 1]))
  #expect(refused { $0["bias_scale"] = zeros } == .unexpected(component: "bias_scale"))
  let nan = [Float](repeating: 1, count: 11) + [.nan]
  #expect(refused { $0["weight_scale"] = Tensor(nan, shape: [6, 2]) } != nil)
  #expect(refused { $0["weight_g_idx"] = zeros } != nil)
  let huge = Tensor(dtype: .int64, shape: [2]) { bytes in
    bytes.storeBytes(of: Int64.max, toByteOffset: 0, as: Int64.self)
    bytes.storeBytes(of: Int64.min, toByteOffset: 8, as: Int64.self)
  }
  #expect(refused { $0["weight_shape"] = huge } != nil)
  #expect(refused { _ in } == nil)
}

@Test func codesWithGapsOfOlderWritersAreRead() throws {
  for (bits, columns) in [(3, 128), (5, 64), (6, 96), (3, 40)] {
    let codec = try AffineGroups(bits: bits, granularity: .channel, scaleType: .float32)
    var (weight, components) = try parts(codec, 5, columns)
    let perWord = 32 / bits
    let count = (columns + perWord - 1) / perWord
    var gapped = [UInt32](repeating: 0, count: 5 * count)
    for (index, code) in weight.integerCodes.enumerated() {
      let (row, column) = (index / columns, index % columns)
      gapped[row * count + column / perWord] |=
        UInt32(Int(code) + 1 << (bits - 1)) << UInt32(column % perWord * bits)
    }
    components["weight_packed"] = words(gapped, shape: [5, count])
    let read = try codec.decode(components)
    #expect(read.dequantized().isIdentical(to: weight.dequantized()), "\(bits) bits")
  }
}

@Test func aLayoutThatNoBitTellsIsRefused() throws {
  let codec = try AffineGroups(bits: 3, granularity: .channel, scaleType: .float32)
  var (_, components) = try parts(codec, 1, 40)
  components["weight_packed"] = words([1, 0, 0, 0], shape: [1, 4])
  #expect(throws: CodecError.self) { try codec.decode(components) }
}

@Test func aGroupThatDoesNotDivideIsAnErrorUnlessAllowed() throws {
  var random = TestRandom(seed: 5)
  let weight = random.matrix(4, 40)
  var codec = try AffineGroups(bits: 4, granularity: .group(32))
  #expect(throws: CodecError.groupDoesNotDivide(inputs: 40, groupSize: 32)) {
    try codec.encode(weight)
  }
  codec.allowsShortLastGroup = true
  try checkLaws(of: codec, on: weight)
  #expect(AffineGroups.dividingGroupSize(inputs: 4096, atMost: 128) == 128)
  #expect(AffineGroups.dividingGroupSize(inputs: 576, atMost: 128) == 64)
  #expect(AffineGroups.dividingGroupSize(inputs: 72, atMost: 128) == 72)
  #expect(AffineGroups.dividingGroupSize(inputs: 37, atMost: 128) == nil)
}

@Test func settingsOutsideTheFormatAreRefused() {
  #expect(throws: CodecError.self) { try AffineGroups(bits: 7, granularity: .channel) }
  #expect(throws: CodecError.self) { try AffineGroups(bits: 4, granularity: .group(8)) }
  #expect(throws: CodecError.self) {
    try AffineGroups(bits: 4, granularity: .channel, scaleType: .int8)
  }
}

@Test func notFiniteWeightsAndTooLargeScalesAreLocated() throws {
  let codec = try AffineGroups(bits: 4, granularity: .group(16), scaleType: .float16)
  for bad in [Float.nan, .infinity, -.infinity] {
    var values = [Float](repeating: 0.5, count: 3 * 64)
    values[64 + 37] = bad
    values[128] = bad
    let weight = Tensor(values, shape: [3, 64])
    #expect(throws: CodecError.notFinite(row: 1, column: 37)) { try codec.encode(weight) }
    let perTensor = try AffineGroups(bits: 4, granularity: .tensor)
    #expect(throws: CodecError.notFinite(row: 1, column: 37)) { try perTensor.encode(weight) }
  }
  var values = [Float](repeating: 0.5, count: 2 * 64)
  values[64 + 20] = 1e6
  #expect(throws: CodecError.scaleOverflow(row: 1, column: 16, scaleType: .float16)) {
    try codec.encode(Tensor(values, shape: [2, 64]))
  }
}
