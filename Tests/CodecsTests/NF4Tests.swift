import CKernels
import Codecs
import Tensors
import TestSupport
import Testing

/// Written from the paper alone: levels as published, everything in double.
private enum NF4Oracle {
  static let levels: [Double] = [
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1,
  ]

  /// Decoded values, and how far the second-best level is behind in each.
  static func roundTrip(_ values: [Float], block: Int) -> [(value: Double, margin: Double)] {
    var result: [(Double, Double)] = []
    for start in stride(from: 0, to: values.count, by: block) {
      let part = values[start..<min(start + block, values.count)]
      let scale = part.reduce(0.0) { max($0, abs(Double($1))) }
      for value in part {
        let order = levels.sorted {
          abs($0 * scale - Double(value)) < abs($1 * scale - Double(value))
        }
        result.append(
          (
            order[0] * scale,
            abs(order[1] * scale - Double(value)) - abs(order[0] * scale - Double(value))
          ))
      }
    }
    return result
  }
}

private let shapes = [(1, 1), (3, 64), (5, 65), (7, 130), (1, 4097), (33, 192), (300, 257)]

@Test(arguments: shapes) func nf4RoundTripsAreThoseOfThePaper(rows: Int, columns: Int) throws {
  var random = TestRandom(seed: 71)
  for block in [64, 256] {
    let weight = random.matrix(rows, columns, scale: 0.03)
    let encoded = try NF4(blockSize: block, isDoubleQuantized: false).encode(weight)
    let expected = NF4Oracle.roundTrip(weight.array, block: block)
    for (value, expected) in zip(encoded.dequantized().array, expected)
    where expected.margin > 1e-7 {
      #expect(abs(Double(value) - expected.value) <= abs(expected.value) * 0x1p-22)
    }
  }
}

@Test(arguments: [true, false]) func nf4KeepsTheLawsOfCodecs(isDoubleQuantized: Bool) throws {
  var random = TestRandom(seed: 72)
  for (rows, columns) in shapes {
    for block in [64, 4096] {
      let codec = try NF4(blockSize: block, isDoubleQuantized: isDoubleQuantized)
      try checkLaws(of: codec, on: random.matrix(rows, columns, scale: 0.03))
    }
  }
  let codec = try NF4(isDoubleQuantized: isDoubleQuantized)
  try checkLaws(of: codec, on: random.matrix(3, 100).truncatedToBFloat16())
  try checkLaws(of: codec, on: Tensor([Float](repeating: 0, count: 99), shape: [1, 99]))
  try checkLaws(of: codec, on: Tensor([Float](repeating: -0.25, count: 99), shape: [1, 99]))
  try checkLaws(of: codec, on: random.matrix(2, 70, scale: 1e-42))
  // A block of zeros among others, whose quantized scale need not be 0.
  var values = random.matrix(1, 300).array
  for index in 64..<128 { values[index] = 0 }
  try checkLaws(of: codec, on: Tensor(values, shape: [2, 150]))
  try checkLaws(of: codec, on: Tensor([], shape: [0, 5]))
}

@Test func quantizedScalesErrByAtMostHalfTheirWidestStep() throws {
  var random = TestRandom(seed: 73)
  let weight = random.matrix(257, 512, scale: 0.02)
  let plain = try NF4(isDoubleQuantized: false).encode(weight)
  let (exact, decoded) = (plain.dequantized(), try NF4.qlora.encode(weight).dequantized())
  let bitsandbytes = try NF4(fitsStoredScales: false).encode(weight)
  func error(_ other: Tensor) -> Double {
    zip(weight.array, other.array).reduce(0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
  }
  // Codes for the scales as stored err less than codes for those before.
  #expect(error(decoded) <= error(bitsandbytes.dequantized()))
  #expect(error(decoded) <= 1.01 * error(exact))

  let scales = plain.encoded()[1].tensor.array
  let mean = scales.reduce(0, +) / Float(scales.count)
  let ones = try NF4.qlora.encode(weight)
  for block in stride(from: 0, to: scales.count, by: 256) {
    let part = scales[block..<min(block + 256, scales.count)]
    let largest = part.reduce(0) { max($0, abs($1 - mean)) }
    for index in part.indices {
      // The dynamic code's widest step is 0.9 / 64; below its last decade it falls to 0.
      let step = max(0.9 / 64 * largest / 2, 1e-6 * largest)
      #expect(abs(scale(of: ones, block: index) - scales[index]) <= step * 1.001 + 1e-7)
    }
  }
  #expect(abs(ones.bitsPerWeight - 4.127) < 0.1)
  #expect(NF4.qlora.storedBytes(outputs: 4096, inputs: 4096) * 8 == Int(4096 * 4096 * 4.126953125))
}

/// A block's scale as decoding shows it: the largest level is 1.
private func scale(of weight: NF4Weight, block: Int) -> Float {
  let components = Dictionary(uniqueKeysWithValues: weight.encoded().map { ($0.suffix, $0.tensor) })
  guard let codes = components["weight.absmax"], let levels = components["weight.nested_quant_map"],
    let scales = components["weight.nested_absmax"],
    let state = components["weight.quant_state.bitsandbytes__nf4"]
  else { return .nan }
  let text = String(decoding: state.bytes, as: UTF8.self)
  let offset = text.split(separator: " ").last.flatMap { Float($0.dropLast()) } ?? .nan
  return levels.floats[Int(codes.bytes[block])] * scales.floats[block / 256] + offset
}

@Test func fastNF4KernelsEqualTheirReferences() {
  var random = TestRandom(seed: 74)
  for block in [16, 64] {
    for count in Array(0...70) + [127, 128, 129, 255, 1000, 1023] {
      let source = random.matrix(1, count + 1).array
      var scales = [Float](repeating: 0, count: count / block + 1)
      #expect(pare_nf4_scales(source, count, block, &scales) == count)
      if scales.count > 2 { scales[1] *= -1 }
      var (codes, expected) = (
        [UInt8](repeating: 255, count: count / 2 + 1), [UInt8](repeating: 255, count: count / 2 + 1)
      )
      pare_nf4_encode(source, count, block, scales, &codes)
      pare_nf4_encode_reference(source, count, block, scales, &expected)
      #expect(codes == expected)

      codes.withUnsafeBufferPointer { codes in
        scales.withUnsafeBytes { scales in
          var matrix = pare_nf4()
          (matrix.block, matrix.codes, matrix.scales) = (
            block, codes.baseAddress, scales.baseAddress
          )
          for first in [0, 1, 2, 5, 16, 63] where first <= count {
            var (values, expected) = (
              [Float](repeating: 9, count: count + 1), [Float](repeating: 9, count: count + 1)
            )
            pare_nf4_decode(&matrix, first, count - first, &values)
            pare_nf4_decode_reference(&matrix, first, count - first, &expected)
            #expect(values == expected)
          }
        }
      }
    }
  }
}

@Test func productsFromNF4CodesEqualThoseOfDecodedValues() throws {
  var random = TestRandom(seed: 75)
  for columns in [33, 192] {
    let weight = try NF4.qlora.encode(random.matrix(67, columns, scale: 0.05))
    let W = weight.dequantized()
    for tokens in [1, 3, 7, 33] {
      let x = random.matrix(tokens, columns)
      let result = weight.multiply(x)
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
}

@Test func everySourceTypeAndThreadCountGivesTheSameNF4() throws {
  var random = TestRandom(seed: 76)
  let narrow = random.matrix(301, 512, scale: 0.03).truncatedToBFloat16()
  let expected = try NF4.qlora.encode(narrow)
  #expect(try NF4.qlora.encode(narrow.widened()).codes.isIdentical(to: expected.codes))
  let threads = Parallel.threads
  defer { Parallel.threads = threads }
  for count in [1, 2, 5] {
    Parallel.threads = count
    #expect(try NF4.qlora.encode(narrow).isIdentical(to: expected))
  }
}

/// Components that bitsandbytes made (Scripts/fixtures/nf4.py).
@Test func nf4ComponentsAreThoseOfBitsandbytes() throws {
  let golden = try GoldenFile(
    SharedFiles.packageRoot.appending(path: "Tests/Golden/nf4/cases.safetensors").path)
  for (name, blockSize, isDoubleQuantized) in [
    ("plain", 64, false), ("tail", 64, false), ("nested", 64, true), ("nested-128", 128, true),
  ] {
    let group = golden.group(name)
    let source = try #require(group["source"]).widened()
    let codec = try NF4(
      blockSize: blockSize, isDoubleQuantized: isDoubleQuantized, fitsStoredScales: false)
    let encoded = try codec.encode(source)
    var components = group
    for key in ["source", "decoded"] { components[key] = nil }
    let mine = encoded.encoded()
    #expect(Set(mine.map(\.suffix)) == Set(components.keys))
    for (suffix, tensor) in mine {
      let reference = try #require(components[suffix])
      if isDoubleQuantized, suffix == "weight.absmax" {
        // Its search on the CPU is not exact: now and then it takes the neighbour of the nearest.
        let exact = try NF4(blockSize: blockSize, isDoubleQuantized: false).encode(source)
        let scales = exact.encoded()[1].tensor.array
        let other = try codec.decode(components)
        for block in scales.indices where tensor.bytes[block] != reference.bytes[block] {
          let (ours, theirs) = (scale(of: encoded, block: block), scale(of: other, block: block))
          #expect(abs(ours - scales[block]) <= abs(theirs - scales[block]))
        }
        #expect(zip(tensor.bytes, reference.bytes).count { $0 != $1 } <= scales.count / 100)
      } else {
        #expect(tensor.isIdentical(to: reference), "\(name)/\(suffix)")
      }
    }
    let read = try codec.decode(components)
    if let decoded = group["decoded"] {
      #expect(read.dequantized().array == decoded.array)
    }
  }
}

@Test func nf4RefusesWhatItCannotEncodeOrRead() throws {
  var values = [Float](repeating: 0.5, count: 3 * 70)
  values[70 + 66] = .nan
  values[2 * 70] = .infinity
  #expect(throws: CodecError.notFinite(row: 1, column: 66)) {
    try NF4.qlora.encode(Tensor(values, shape: [3, 70]))
  }
  #expect(throws: CodecError.unsupportedShape(shape: [210], dtype: .float32)) {
    try NF4.qlora.encode(Tensor(values, shape: [210]))
  }
  #expect(throws: CodecError.self) { try NF4(blockSize: 48) }

  let good = try NF4.qlora.encode(Tensor([Float](repeating: 1, count: 130), shape: [2, 65]))
  let components = Dictionary(uniqueKeysWithValues: good.encoded().map { ($0.suffix, $0.tensor) })
  for name in components.keys {
    var broken = components
    broken[name] = nil
    #expect(throws: CodecError.missing(component: name)) { try NF4.qlora.decode(broken) }
    broken[name] = Tensor(dtype: .int64, shape: [1]) {
      $0.initializeMemory(as: Int64.self, repeating: 0)
    }
    #expect(throws: CodecError.self) { try NF4.qlora.decode(broken) }
  }
  var stray = components
  stray["bias"] = Tensor([1], shape: [1])
  #expect(throws: CodecError.unexpected(component: "bias")) { try NF4.qlora.decode(stray) }
  for text in [
    "", "{}", "[1",
    #"{"quant_type": "fp4", "blocksize": 64, "dtype": "float32", "shape": [2, 65]}"#,
    #"{"quant_type": "nf4", "blocksize": 0, "dtype": "float32", "shape": [2, 65]}"#,
    #"{"quant_type": "nf4", "blocksize": 64, "dtype": "int8", "shape": [2, 65]}"#,
    #"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, -65]}"#,
    #"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [9223372036854775807, 9]}"#,
    #"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [2, 65], "nested_offset": 1}"#,
  ] {
    var broken = components
    broken["weight.quant_state.bitsandbytes__nf4"] = Tensor(
      dtype: .uint8, shape: [text.utf8.count]
    ) { $0.copyBytes(from: Array(text.utf8)) }
    #expect(throws: CodecError.self) { try NF4.qlora.decode(broken) }
  }
}
