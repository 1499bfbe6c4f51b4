import Codecs
import Foundation
import Tensors
import TestSupport
import Testing

private let codecs = GGUFType.allCases.compactMap { try? GGUFBlocks($0) }

@Test(arguments: codecs) func blockWeightsKeepTheLawsOfStoredWeights(_ codec: GGUFBlocks) throws {
  var random = TestRandom(seed: 61)
  for (rows, blocks) in [(1, 1), (5, 3), (70, 2), (3, 0), (0, 2)] {
    let columns = blocks * codec.type.blockLength
    let weight = random.matrix(rows, columns, scale: 0.03)
    let (encoded, error) = try codec.encode(weight, importance: nil)
    let decoded = encoded.dequantized()
    #expect(decoded.shape == [rows, columns])
    #expect(try codec.storedBytes(outputs: rows, inputs: columns) == encoded.storedBytes)
    #expect(error.count == rows * columns)
    try checkStorageLaws(of: encoded, decoded: decoded) { components throws(CodecError) in
      try codec.decode(components)
    }
    let raw = Tensor(dtype: .int8, shape: [encoded.storedBytes]) {
      $0.copyMemory(from: encoded.blocks.bytes)
    }
    #expect(try codec.decode(raw, outputs: rows, inputs: columns).isIdentical(to: encoded))
    try encoded.checkScales()

    var (squares, gaps, largest) = (0.0, 0.0, Float(0))
    for (value, other) in zip(weight.array, decoded.array) {
      squares += Double(value) * Double(value)
      gaps += (Double(other) - Double(value)) * (Double(other) - Double(value))
      largest = max(largest, abs(other - value))
    }
    #expect(abs(error.squaredWeight - squares) <= 1e-9 * squares)
    #expect(abs(error.squaredError - gaps) <= 1e-5 * gaps)
    #expect(error.largestError == largest)
  }
}

@Test(arguments: codecs) func blocksKeepTheLawsOfCodecs(_ codec: GGUFBlocks) throws {
  var random = TestRandom(seed: 64)
  for blocks in [1, 3, 17] where blocks * codec.type.blockLength <= 1024 {
    try checkLaws(of: codec, on: random.matrix(9, blocks * codec.type.blockLength, scale: 0.03))
  }
  let columns = 2 * codec.type.blockLength
  try checkLaws(of: codec, on: random.matrix(3, columns).truncatedToBFloat16())
  try checkLaws(of: codec, on: Tensor([Float](repeating: 0, count: columns), shape: [1, columns]))
  try checkLaws(
    of: codec, on: Tensor([Float](repeating: -0.25, count: columns), shape: [1, columns]))
}

@Test(arguments: codecs) func codesOnAGridThatExistsAreTheNearest(_ codec: GGUFBlocks) throws {
  var random = TestRandom(seed: 65)
  let columns = 3 * max(codec.type.blockLength, 64)
  let grid = try codec.encode(random.matrix(4, columns, scale: 0.03))
  let other = random.matrix(4, columns, scale: 0.05)
  let encoded = try codec.encode(other, onGridOf: grid)
  for row in 0..<4 {
    let bytes = Array(encoded.blocks.rows(row..<row + 1).bytes)
    for (block, oracle) in BlockOracle.blocks(codec.type, bytes).enumerated() {
      for i in 0..<codec.type.blockLength {
        let value = Double(other.floats[row * columns + block * codec.type.blockLength + i])
        // TQ2_0 has a fourth code, which no encoder writes.
        let levels = codec.type == .tq2_0 ? Array(oracle.grid(i).prefix(3)) : oracle.grid(i)
        let nearest = levels.map { abs($0 - value) }.min() ?? 0
        #expect(abs(oracle.value(i) - value) <= nearest + 1e-8)
      }
    }
  }
  var values = other.array
  values[2 * columns + 5] = .nan
  #expect(throws: CodecError.notFinite(row: 2, column: 5)) {
    try codec.encode(Tensor(values, shape: [4, columns]), onGridOf: grid)
  }
}

@Test(arguments: codecs) func everySourceTypeAndThreadCountGivesTheSameBlocks(
  _ codec: GGUFBlocks
) throws {
  var random = TestRandom(seed: 62)
  let narrow = random.matrix(301, 512, scale: 0.03).truncatedToBFloat16()
  let wide = narrow.widened()
  let importance = (0..<512).map { Float($0 % 7) + 0.5 }
  let (expected, error) = try codec.encode(narrow, importance: importance)
  #expect(try codec.encode(wide, importance: importance).weight.isIdentical(to: expected))
  // float16 holds these bfloat16 values exactly, but for the smallest.
  let half = wide.converted(to: .float16)
  #expect(
    try codec.encode(half, importance: importance).weight.isIdentical(
      to: codec.encode(half.widened(), importance: importance).weight))
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  for count in [1, 2, 5] {
    Parallel.threads = count
    let (other, otherError) = try codec.encode(narrow, importance: importance)
    #expect(other.isIdentical(to: expected))
    #expect(otherError == error)
  }
}

@Test(arguments: codecs) func productsFromBlocksEqualThoseOfDecodedValues(
  _ codec: GGUFBlocks
) throws {
  var random = TestRandom(seed: 63)
  let columns = 2 * max(codec.type.blockLength, 96)
  let weight = try codec.encode(random.matrix(67, columns, scale: 0.05))
  let W = weight.dequantized()
  for tokens in [1, 3, 7, 33] {
    let x = random.matrix(tokens, columns)
    let result = weight.multiply(x)
    #expect(result.shape == [tokens, 67])
    for token in 0..<tokens {
      for output in 0..<67 {
        let expected = (0..<columns).reduce(0.0) {
          $0 + Double(x.floats[token * columns + $1]) * Double(W.floats[output * columns + $1])
        }
        #expect(abs(Double(result.floats[token * 67 + output]) - expected) <= 2e-4)
      }
    }
  }
}

@Test(arguments: codecs) func notFiniteWeightsAndTooLargeScalesAreLocatedInBlocks(
  _ codec: GGUFBlocks
) throws {
  let length = codec.type.blockLength
  let columns = 3 * length
  for bad in [Float.nan, .infinity, -.infinity] {
    var values = [Float](repeating: 0.5, count: 3 * columns)
    values[columns + length + 7] = bad
    values[2 * columns] = bad
    #expect(throws: CodecError.notFinite(row: 1, column: length + 7)) {
      try codec.encode(Tensor(values, shape: [3, columns]))
    }
  }
  for (importance, size) in [(nil, Float(3e9)), ([Float](repeating: 1, count: columns), 3e38)] {
    var values = [Float](repeating: 0.5, count: 2 * columns)
    values[columns + length + 5] = size
    let weight = Tensor(values, shape: [2, columns])
    if codec.type == .mxfp4 {
      // Its scale is an exponent, which reaches all of float32.
      #expect(try codec.encode(weight).dequantized().array.allSatisfy { $0.isFinite })
    } else {
      #expect(
        throws: CodecError.blockScaleOverflow(row: 1, column: length, type: codec.type)
      ) { try codec.encode(weight, importance: importance) }
    }
  }
  // Just within float16.
  let values = (0..<columns).map { Float($0 % 5 - 2) * 3e4 }
  let large = try codec.encode(Tensor(values, shape: [1, columns]))
  try large.checkScales()
  #expect(large.dequantized().array.allSatisfy { $0.isFinite })
}

@Test(arguments: codecs) func matricesAndBytesThatDoNotFitAreRefusedByName(
  _ codec: GGUFBlocks
) throws {
  let length = codec.type.blockLength
  let odd = Tensor([Float](repeating: 1, count: length + 16), shape: [1, length + 16])
  #expect(throws: CodecError.blockDoesNotDivide(inputs: length + 16, type: codec.type)) {
    try codec.encode(odd)
  }
  #expect(
    CodecError.blockDoesNotDivide(inputs: 48, type: codec.type).description
      .contains(codec.type.name))
  let weight = Tensor([Float](repeating: 1, count: length), shape: [1, length])
  for wrong in [[], [Float](repeating: 1, count: length + 1)] {
    #expect(throws: CodecError.self) { try codec.encode(weight, importance: wrong) }
  }
  for value in [Float.nan, .infinity, -1] {
    var wrong = [Float](repeating: 1, count: length)
    wrong[length - 1] = value
    #expect(
      throws: CodecError.wrongImportance("the importance of column \(length - 1) is \(value)")
    ) { try codec.encode(weight, importance: wrong) }
  }
  #expect(throws: CodecError.unsupportedShape(shape: [length], dtype: .float32)) {
    try codec.encode(weight.reshaped([length]))
  }

  func bytes(_ shape: [Int]) -> Tensor {
    Tensor(dtype: .uint8, shape: shape) { $0.initializeMemory(as: UInt8.self, repeating: 255) }
  }
  let size = codec.type.blockBytes
  let damaged = try codec.decode(bytes([2, size]), outputs: 2, inputs: length)
  #expect(throws: CodecError.self) { try damaged.checkScales() }
  for (outputs, inputs) in [(1, length), (3, length), (-2, length), (2, Int.max / length * length)]
  {
    #expect(throws: CodecError.self) {
      try codec.decode(bytes([2, size]), outputs: outputs, inputs: inputs)
    }
  }
  #expect(throws: CodecError.blockDoesNotDivide(inputs: length - 1, type: codec.type)) {
    try codec.decode(bytes([2, size]), outputs: 2, inputs: length - 1)
  }
  #expect(throws: CodecError.missing(component: "weight")) { try codec.decode([:]) }
  #expect(throws: CodecError.unexpected(component: "scale")) {
    try codec.decode(["weight": bytes([2, size]), "scale": bytes([2])])
  }
  #expect(
    throws: CodecError.wrongShape(
      component: "weight", expected: [2, size], actual: [2, size - 1])
  ) { try codec.decode(["weight": bytes([2, size - 1])]) }
  #expect(
    throws: CodecError.wrongType(component: "weight", expected: "U8", actual: .float32)
  ) { try codec.decode(["weight": Tensor([Float](repeating: 0, count: size), shape: [1, size])]) }
}

@Test func plainTypesHaveNoBlocks() {
  for type in [GGUFType.f32, .f16, .bf16] {
    #expect(throws: CodecError.self) { try GGUFBlocks(type) }
  }
}
