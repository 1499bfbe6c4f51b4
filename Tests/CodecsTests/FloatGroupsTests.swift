import CKernels
import Codecs
import Tensors
import TestSupport
import Testing

/// The numbers of E4M3 and E2M1 codes, from the definition of floating point.
private enum FloatOracle {
  static func value(_ code: Int, exponentBits: Int, mantissaBits: Int, bias: Int) -> Double {
    let mantissa = Double(code % (1 << mantissaBits)) / Double(1 << mantissaBits)
    let exponent = code >> mantissaBits % (1 << exponentBits)
    return exponent == 0
      ? mantissa * Double(sign: .plus, exponent: 1 - bias, significand: 1)
      : (1 + mantissa) * Double(sign: .plus, exponent: exponent - bias, significand: 1)
  }

  /// Magnitudes in the order of their codes, without NaN.
  static func magnitudes(_ kind: pare_float_kind) -> [Double] {
    kind == PARE_FLOAT_E4M3
      ? (0..<127).map { value($0, exponentBits: 4, mantissaBits: 3, bias: 7) }
      : [0, 0.5, 1, 1.5, 2, 3, 4, 6]
  }

  /// Half to even, saturating.
  static func code(_ value: Double, _ kind: pare_float_kind) -> Int {
    let all = magnitudes(kind)
    let size = min(abs(value), all[all.count - 1])
    let above = all.firstIndex { $0 >= size } ?? all.count - 1
    guard above > 0, all[above] != size else { return above }
    let (down, up) = (size - all[above - 1], all[above] - size)
    if down != up { return down < up ? above - 1 : above }
    return above % 2 == 0 ? above : above - 1
  }
}

private let kinds = [PARE_FLOAT_E4M3, PARE_FLOAT_E2M1]

/// One code from either function.
private func encoded(_ values: [Float], _ kind: pare_float_kind, scale: Float = 1) -> [UInt8] {
  var codes = [UInt8](repeating: 0xEE, count: pare_float_bytes(kind, values.count))
  pare_float_encode(kind, values, values.count, scale, &codes)
  var reference = codes
  pare_float_encode_reference(kind, values, values.count, scale, &reference)
  #expect(codes == reference)
  guard kind == PARE_FLOAT_E2M1 else { return codes }
  return values.indices.map { codes[$0 / 2] >> ($0 % 2 == 0 ? 0 : 4) & 15 }
}

@Test func everyFloatCodeDecodesToItsDefinition() {
  for kind in kinds {
    let sign = kind == PARE_FLOAT_E4M3 ? 128 : 8
    let magnitudes = FloatOracle.magnitudes(kind)
    for scale: Float in [1, 0.37, 1e-30, -1] {
      let bytes = kind == PARE_FLOAT_E4M3 ? (0...255).map { UInt8($0) } : (0..<16).map { UInt8($0) }
      var values = [Float](repeating: 7, count: 512)
      let count = kind == PARE_FLOAT_E4M3 ? 256 : 32
      pare_float_decode(kind, bytes, count, scale, &values)
      var reference = [Float](repeating: 8, count: 512)
      pare_float_decode_reference(kind, bytes, count, scale, &reference)
      for index in 0..<count {
        let code =
          kind == PARE_FLOAT_E4M3
          ? index : index % 2 == 0 ? Int(bytes[index / 2]) & 15 : Int(bytes[index / 2]) >> 4
        #expect(values[index].bitPattern == reference[index].bitPattern || values[index].isNaN)
        if code % sign == 127 {
          #expect(values[index].isNaN && reference[index].isNaN)
        } else {
          let expected = Float(magnitudes[code % sign]) * (code >= sign ? -scale : scale)
          #expect(values[index] == expected)
        }
      }
    }
  }
}

@Test func everyTieAndNeighbourRoundsHalfToEvenAndTheRestSaturates() {
  for kind in kinds {
    let sign = kind == PARE_FLOAT_E4M3 ? 128 : 8
    let magnitudes = FloatOracle.magnitudes(kind)
    var values: [Float] = [
      0, -0.0, .leastNonzeroMagnitude, -.leastNonzeroMagnitude, 1e9, -1e9, .greatestFiniteMagnitude,
    ]
    for (low, high) in zip(magnitudes, magnitudes.dropFirst()) {
      let tie = Float((low + high) / 2)
      values += [Float(low), tie, tie.nextUp, tie.nextDown, -tie, -tie.nextUp, -tie.nextDown]
    }
    let top = Float(magnitudes[magnitudes.count - 1])
    values += [top, top.nextUp, -top, top * 1.07, top * 1.2]
    for (value, code) in zip(values, encoded(values, kind)) {
      #expect(Int(code) % sign == FloatOracle.code(Double(value), kind), "\(value)")
      #expect((Int(code) >= sign) == (value.sign == .minus), "\(value)")
    }
    // A scale that is a power of two moves everything.
    let scaled = values.filter { abs($0) < 1e8 && (abs($0) > 1e-30 || $0 == 0) }
    #expect(encoded(scaled.map { $0 * 0x1p-9 }, kind, scale: 0x1p-9) == encoded(scaled, kind))
    for value in scaled {
      let rounded = pare_float_round(kind, value * 0.25, 0.25)
      let magnitude = magnitudes[FloatOracle.code(Double(value), kind)]
      #expect(abs(Double(rounded)) == magnitude * 0.25)
    }
  }
}

@Test func floatKernelsReachEveryTail() {
  var random = TestRandom(seed: 41)
  for kind in kinds {
    for count in Array(0...70) + [127, 128, 511, 512, 513, 1000] {
      let values = random.matrix(1, count + 1, scale: 2).array
      let bytes = pare_float_bytes(kind, count)
      var codes = [UInt8](repeating: 0xEE, count: bytes + 1)
      var reference = codes
      pare_float_encode(kind, values, count, 0.3, &codes)
      pare_float_encode_reference(kind, values, count, 0.3, &reference)
      #expect(codes == reference)
      #expect(codes[bytes] == 0xEE)
      var (decoded, other) = (
        [Float](repeating: 9, count: count + 1), [Float](repeating: 9, count: count + 1)
      )
      pare_float_decode(kind, codes, count, 0.3, &decoded)
      pare_float_decode_reference(kind, codes, count, 0.3, &other)
      #expect(decoded == other)
      var squares = 0.0
      var largest: Float = 0
      let error = pare_float_error(kind, values, count, 0.3, &squares, &largest)
      var (sum, size, worst) = (0.0, 0.0, Float(0))
      for index in 0..<count {
        let off = abs(decoded[index] - values[index])
        sum += Double(off) * Double(off)
        size += Double(values[index]) * Double(values[index])
        worst = max(worst, off)
      }
      #expect(abs(error - sum) <= 1e-5 * sum && abs(squares - size) <= 1e-5 * size)
      #expect(largest == worst)
      #expect(pare_float_largest(values, count) == values.prefix(count).map(abs).max() ?? 0)
    }
  }
}

private func codecs() throws -> [FloatGroups] {
  [
    .nvfp4, .mxfp4, try .float8(.channel), try .float8(.tensor, scaleType: .float32),
    try .float8(.group(32), scaleType: .float16),
  ]
}

@Test func floatGroupsKeepTheLawsOfCodecs() throws {
  var random = TestRandom(seed: 42)
  for codec in try codecs() {
    try checkLaws(of: codec, on: random.matrix(33, 96, scale: 0.02))
    try checkLaws(of: codec, on: random.matrix(5, 160).truncatedToBFloat16())
    try checkLaws(of: codec, on: Tensor([Float](repeating: 0, count: 192), shape: [2, 96]))
    try checkLaws(of: codec, on: Tensor([Float](repeating: -0.25, count: 192), shape: [2, 96]))
    try checkLaws(of: codec, on: random.matrix(2, 32, scale: 1e-30))
    try checkLaws(of: codec, on: Tensor([], shape: [0, 32]))
    if codec.granularity == .channel || codec.granularity == .tensor {
      for (rows, columns) in [(3, 131), (1, 1), (7, 33)] {
        try checkLaws(of: codec, on: random.matrix(rows, columns))
      }
    }
    let declared = codec.componentShapes(outputs: 33, inputs: 96)
    let encoded = try codec.encode(random.matrix(33, 96))
    let written = encoded.encoded()
    let form = try #require(StoredForm(of: encoded))
    let described = try StoredForm(form.json).decode(
      Dictionary(uniqueKeysWithValues: written.map { ($0.suffix, $0.tensor) }))
    #expect(described.isIdentical(to: encoded))
    #expect(declared.map(\.suffix) == written.map(\.suffix))
    #expect(declared.map(\.dtype) == written.map(\.tensor.dtype))
    #expect(declared.map(\.shape) == written.map(\.tensor.shape))
  }
  #expect(FloatGroups.nvfp4.storedBytes(outputs: 64, inputs: 64) == 64 * 64 * 9 / 16 + 4)
  #expect(FloatGroups.mxfp4.storedBytes(outputs: 64, inputs: 64) == 64 * 64 * 17 / 32)
}

/// Components that the compressed-tensors package made (Scripts/fixtures/float_groups.py).
@Test func floatComponentsAreThoseOfCompressedTensors() throws {
  let golden = try GoldenFile(
    SharedFiles.packageRoot.appending(path: "Tests/Golden/float-groups/cases.safetensors").path)
  let names = Set(
    golden.tensors.keys.compactMap { $0.split(separator: "/").first.map(String.init) })
  #expect(names.count == 7)
  for name in names.sorted() {
    let parts = name.split(separator: "-").map(String.init)
    let codec: FloatGroups =
      switch parts[0] {
      case "nvfp4": .nvfp4
      case "mxfp4": .mxfp4
      default:
        try .float8(
          parts[1] == "channel" ? .channel : parts[1] == "tensor" ? .tensor : .group(32),
          scaleType: try #require(DType(rawValue: parts[2])))
      }
    var components = golden.group(name)
    let source = try #require(components["source"])
    let decoded = try #require(components["decoded"])
    for key in ["source", "decoded"] { components[key] = nil }
    let encoded = try codec.encode(source)
    #expect(Set(encoded.encoded().map(\.suffix)) == Set(components.keys), "\(name)")
    for (suffix, tensor) in encoded.encoded() {
      #expect(tensor.isIdentical(to: try #require(components[suffix])), "\(name)/\(suffix)")
    }
    let read = try codec.decode(components)
    #expect(read.isIdentical(to: encoded))
    #expect(read.dequantized().array == decoded.array, "\(name)")
  }
}

@Test func productsFromFloatCodesEqualThoseOfDecodedValues() throws {
  var random = TestRandom(seed: 43)
  for codec in try codecs() {
    let weight = try codec.encode(random.matrix(67, 96, scale: 0.05))
    let W = weight.dequantized()
    for tokens in [1, 3, 33] {
      let x = random.matrix(tokens, 96)
      let result = weight.multiply(x)
      for token in 0..<tokens {
        for output in 0..<67 {
          let expected = (0..<96).reduce(0.0) {
            $0 + Double(x.floats[token * 96 + $1]) * Double(W.floats[output * 96 + $1])
          }
          #expect(abs(Double(result.floats[token * 67 + output]) - expected) <= 1e-4)
        }
      }
    }
  }
}

@Test func threadsAndSourceTypesDoNotChangeFloatCodes() throws {
  var random = TestRandom(seed: 44)
  let narrow = random.matrix(301, 512, scale: 0.03).truncatedToBFloat16()
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  for codec in try codecs() {
    for choice in [FloatScaleChoice.range, .search] {
      Parallel.threads = 1
      let expected = try codec.encode(narrow, choosing: choice)
      for count in [2, 5] {
        Parallel.threads = count
        let again = try codec.encode(narrow.widened(), choosing: choice)
        #expect(again.weight.isIdentical(to: expected.weight))
        #expect(again.error == expected.error)
      }
    }
  }
}

@Test func numbersRoundToWhatEncodingGivesThem() throws {
  var random = TestRandom(seed: 45)
  let weight = random.matrix(4, 64, scale: 0.1)
  for codec in try codecs() {
    let grid: any RoundingGrid = codec
    let encoded = try codec.encode(weight)
    let decoded = encoded.dequantized()
    for index in 0..<weight.count {
      let (row, column) = (index / 64, index % 64)
      let scale = encoded.scale(row: row, group: column / codec.groupSize(inputs: 64))
      #expect(grid.rounded(weight.floats[index], scale: scale) == decoded.floats[index])
    }
  }
}

@Test func floatGroupsRefuseWhatTheyCannotEncodeOrRead() throws {
  var values = [Float](repeating: 0.5, count: 3 * 64)
  values[64 + 40] = .nan
  values[2 * 64] = .infinity
  for codec in try codecs() {
    #expect(throws: CodecError.notFinite(row: 1, column: 40)) {
      try codec.encode(Tensor(values, shape: [3, 64]))
    }
    #expect(throws: CodecError.unsupportedShape(shape: [192], dtype: .float32)) {
      try codec.encode(Tensor(values, shape: [192]))
    }
    let good = try codec.encode(Tensor([Float](repeating: 1, count: 64), shape: [2, 32]))
    let components = Dictionary(uniqueKeysWithValues: good.encoded().map { ($0.suffix, $0.tensor) })
    for name in components.keys {
      var broken = components
      broken[name] = nil
      #expect(throws: CodecError.missing(component: name)) { try codec.decode(broken) }
      broken[name] = Tensor(dtype: .int64, shape: [1]) {
        $0.initializeMemory(as: Int64.self, repeating: 0)
      }
      #expect(throws: CodecError.self) { try codec.decode(broken) }
      // Right type, wrong shape; and scales that are no numbers.
      let type = try #require(components[name]).dtype
      broken[name] = Tensor(dtype: type, shape: [3, 5, 1]) {
        $0.initializeMemory(as: UInt8.self, repeating: 0)
      }
      #expect(throws: CodecError.self) { try codec.decode(broken) }
      if name != "weight", name != "weight_packed" {
        broken[name] = Tensor(dtype: type, shape: try #require(components[name]).shape) {
          $0.initializeMemory(as: UInt8.self, repeating: 0xff)
        }
        #expect(throws: CodecError.self) { try codec.decode(broken) }
      }
    }
    var stray = components
    stray["bias"] = Tensor([1], shape: [1])
    #expect(throws: CodecError.unexpected(component: "bias")) { try codec.decode(stray) }
  }
  #expect(throws: CodecError.groupDoesNotDivide(inputs: 40, groupSize: 16)) {
    try FloatGroups.nvfp4.encode(Tensor([Float](repeating: 1, count: 40), shape: [1, 40]))
  }
  #expect(throws: CodecError.self) { try FloatGroups.float8(.group(7)) }
  #expect(throws: CodecError.self) { try FloatGroups.float8(scaleType: .int8) }
  let huge = Tensor([Float](repeating: 3e38, count: 32), shape: [1, 32])
  #expect(throws: CodecError.scaleOverflow(row: 0, column: 0, scaleType: .float16)) {
    try FloatGroups.float8(scaleType: .float16).encode(huge)
  }
}
