import Codecs
import Foundation
import Tensors
import TestSupport
import Testing

private let allCodecs: [AffineGroups] = AffineGroups.supportedBits.flatMap { bits in
  [true, false].flatMap { isSymmetric in
    [AffineGroups.Granularity.group(16), .group(40), .channel, .tensor].flatMap { granularity in
      [AffineGroups.Layout.packed, .int8].compactMap { layout in
        let types: [DType] = [.float32, .bfloat16, .float16]
        return try? AffineGroups(
          bits: bits, granularity: granularity, isSymmetric: isSymmetric,
          scaleType: types[(bits + (isSymmetric ? 1 : 0)) % 3], layout: layout)
      }
    }
  }
}

@Test(arguments: allCodecs) func everyCodecKeepsTheLaws(_ codec: AffineGroups) throws {
  var random = TestRandom(seed: 7)
  try checkLaws(of: codec, on: random.matrix(33, 80, scale: 0.02))
  try checkLaws(of: codec, on: random.matrix(9, 240).truncatedToBFloat16())
  if codec.granularity == .channel || codec.granularity == .tensor {
    try checkLaws(of: codec, on: random.matrix(3, 131))
    try checkLaws(of: codec, on: random.matrix(1, 1))
  }
  try checkLaws(of: codec, on: Tensor([Float](repeating: 0, count: 160), shape: [2, 80]))
  try checkLaws(of: codec, on: Tensor([Float](repeating: -0.25, count: 160), shape: [2, 80]))
}

@Test(arguments: allCodecs) func encodingIsTheFormatsArithmetic(_ codec: AffineGroups) throws {
  var random = TestRandom(seed: UInt64(codec.bits))
  let weight = random.matrix(37, 80, scale: 0.05)
  let oracle = AffineOracle(codec: codec, outputs: 37, inputs: 80)
  let encoded = try codec.encode(weight)
  let grids = encoded.grids
  let codes = encoded.integerCodes
  let decoded = encoded.dequantized()
  for (index, group) in oracle.groups.enumerated() {
    let values = group.map { Double(weight.floats[$0.row * 80 + $0.column]) }
    let scale = Double(grids.scales[index])
    let zero = Double(grids.zeros[index])
    let expected = oracle.grid(values)
    // The codec divides in float32; only a float32 scale can show that.
    let tolerance = codec.scaleType == .float32 ? expected.scale * 0x1p-22 : 0
    #expect(abs(scale - expected.scale) <= tolerance)
    #expect(zero == expected.zero)
    for (position, value) in zip(group, values) {
      let at = position.row * 80 + position.column
      let steps = value / scale + zero
      let isTie = abs(abs(steps - steps.rounded(.down)) - 0.5) < 1e-4
      let code = oracle.code(value, scale: scale, zero: zero)
      #expect(Double(codes[at]) == code || isTie)
      #expect(decoded.floats[at] == Float((Double(codes[at]) - zero) * scale))
    }
  }
  guard codec.layout == .packed else { return }
  let components = Dictionary(uniqueKeysWithValues: encoded.encoded())
  let packed = try #require(components["weight_packed"])
  let rows = (0..<37).flatMap { row in
    oracle.packed((0..<80).map { Int(codes[row * 80 + $0]) })
  }
  #expect(packed.bytes.elementsEqual(rows.withUnsafeBytes { Array($0) }))
  guard let zeroPoints = components["weight_zero_point"], codec.granularity != .tensor else {
    return
  }
  let groups = codec.groupCount(inputs: 80)
  for group in 0..<groups {
    let stream = oracle.packed((0..<37).map { Int(grids.zeros[$0 * groups + group]) })
    for (word, value) in stream.enumerated() {
      let at = (word * groups + group) * 4
      #expect(zeroPoints.bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self) == value)
    }
  }
}

@Test func symmetricFourBitsClampTheLargestAndOvershootTheMostNegative() throws {
  let codec = try AffineGroups(bits: 4, granularity: .channel, scaleType: .float32)
  let weight = Tensor([7.5, -7.5, 3.75, 0], shape: [1, 4])  // scale 1
  let encoded = try codec.encode(weight)
  #expect(encoded.integerCodes == [7, -8, 4, 0])
  let decoded = encoded.dequantized().array
  #expect(abs(decoded[0] / 7.5 - 0.933) < 0.001)
  #expect(abs(decoded[1] / 7.5 + 1.067) < 0.001)
}

@Test func allZeroGroupsTakeEpsilonAsScale() throws {
  for type in [DType.float32, .bfloat16, .float16] {
    let codec = try AffineGroups(bits: 4, granularity: .group(16), scaleType: type)
    let encoded = try codec.encode(Tensor([Float](repeating: 0, count: 32), shape: [1, 32]))
    #expect(encoded.grids.scales.allSatisfy { Double($0) == AffineOracle.epsilon(type) })
    #expect(encoded.dequantized().array.allSatisfy { $0 == 0 })
  }
}

private let golden = SharedFiles.packageRoot
  .appending(path: "Tests/Golden/affine-groups/cases.safetensors").path

@Test func bytesEqualThoseOfTheCompressedTensorsPackage() throws {
  let file = try GoldenFile(golden)
  let cases = Set(file.tensors.keys.compactMap { $0.split(separator: "/").first.map(String.init) })
    .subtracting(["weight"]).sorted()
  #expect(cases.count == 40)
  for name in cases {
    let parts = name.split(separator: "-").map(String.init)
    let granularity: AffineGroups.Granularity =
      parts[2] == "group16" ? .group(16) : parts[2] == "channel" ? .channel : .tensor
    let codec = try AffineGroups(
      bits: try #require(Int(parts[0].dropFirst())), granularity: granularity,
      isSymmetric: parts[1] == "sym", scaleType: try #require(DType(rawValue: parts[3])),
      layout: parts[4] == "packed" ? .packed : .int8)
    var components = file.group(name)
    let sum = try #require(components["decoded_sum"])
    components["decoded_sum"] = nil
    let weight = try #require(file.tensors["weight/\(parts[2])"])
    let encoded = try codec.encode(weight)
    #expect(Set(encoded.encoded().map(\.suffix)) == Set(components.keys), "\(name)")
    for (suffix, tensor) in encoded.encoded() {
      let expected = try #require(components[suffix])
      #expect(tensor.isIdentical(to: expected), "\(name)/\(suffix)")
    }
    let read = try codec.decode(components)
    let expectedSum = sum.bytes.loadUnaligned(as: Double.self)
    let total = read.dequantized().array.reduce(0.0) { $0 + Double($1) }
    #expect(abs(total - expectedSum) <= abs(expectedSum) * 1e-9 + 1e-9, "\(name)")
  }
}

@Test(arguments: allCodecs) func declaredShapesAreThoseWritten(_ codec: AffineGroups) throws {
  var random = TestRandom(seed: 3)
  let encoded = try codec.encode(random.matrix(19, 80))
  let declared = codec.componentShapes(outputs: 19, inputs: 80)
  let written = encoded.encoded()
  #expect(declared.map(\.suffix) == written.map(\.suffix))
  #expect(declared.map(\.dtype) == written.map(\.tensor.dtype))
  #expect(declared.map(\.shape) == written.map(\.tensor.shape))
  #expect(codec.storedBytes(outputs: 19, inputs: 80) == encoded.storedBytes)
}
