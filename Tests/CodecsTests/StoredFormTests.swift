import Codecs
import Tensors
import Testing
import Text

private func weights() throws -> [any StoredWeight] {
  var random = TestRandom(seed: 4)
  let matrix = random.matrix(20, 48)
  let affine = try AffineGroups(
    bits: 3, granularity: .group(32), isSymmetric: false, scaleType: .float16,
    allowsShortLastGroup: true
  ).encode(matrix)
  let channel = try AffineGroups(bits: 8, granularity: .channel, layout: .int8).encode(matrix)
  let thin = try LowRankWeight(left: random.matrix(20, 3), right: random.matrix(3, 48))
  let sparse = try SparseWeight(
    inputs: 48, rows: (0..<20).map { [(column: $0, value: 1)] }, valueType: .float16)
  let binary = try BinaryWeight(
    signs: [(0..<20 * 48).map { $0 % 3 == 0 }], scales: [[Float](repeating: 0.5, count: 40)],
    offsets: [0, 20, 48], outputs: 20, order: Array((0..<48).reversed()),
    columnFactors: [Float](repeating: 2, count: 48), scaleType: .bfloat16)
  let ternary = try TernaryWeight(
    codes: (0..<20 * 48).map { Int8($0 % 3 - 1) }, scales: [Float](repeating: 2, count: 60),
    outputs: 20, inputs: 48, groupSize: 16, packing: .digits, scaleType: .float16)
  let bilevel = try BilevelWeight(
    settings: .init(bits: 4, groupSize: 16, levelBits: 2, levelRows: 8), outputs: 20, inputs: 48,
    codes: (0..<20 * 48).map { UInt8($0 % 16) }, scaleCodes: (0..<60).map { UInt8($0 % 4) },
    zeroCodes: (0..<60).map { UInt8($0 % 4) }, scaleLevels: [Float](repeating: 0.5, count: 18),
    zeroLevels: [Float](repeating: 0.25, count: 18), order: nil)
  return [
    DenseWeight(matrix), affine, channel, thin, sparse, binary, ternary, bilevel,
    try SumWeight([affine, thin, sparse]), try SumWeight([bilevel, sparse, thin, thin]),
  ]
}

@Test func storedFormsRebuildTheirWeightsFromJSON() throws {
  for weight in try weights() {
    let form = try #require(StoredForm(of: weight))
    let text = form.json.serialized()
    let read = try StoredForm(JSON.parse(text, name: "form"))
    #expect(read == form)
    let components = Dictionary(
      uniqueKeysWithValues: weight.encoded().map { ($0.suffix, $0.tensor) })
    let rebuilt = try read.decode(components)
    #expect(rebuilt.isIdentical(to: weight))
    #expect(rebuilt.dequantized().array == weight.dequantized().array)

    let declared = form.components(outputs: 20, inputs: 48)
    for component in declared {
      guard let tensor = components[component.suffix] else {
        #expect(component.isOptional, "\(component.suffix)")
        continue
      }
      #expect(component.types.contains(tensor.dtype))
      #expect(tensor.shape.count == component.shape.count)
      for (side, expected) in zip(tensor.shape, component.shape) {
        #expect(expected == nil || side == expected)
      }
    }
    #expect(Set(declared.map(\.suffix)).isSuperset(of: components.keys))

    for name in components.keys {
      var missing = components
      missing[name] = nil
      guard declared.first(where: { $0.suffix == name })?.isOptional == false else { continue }
      #expect(throws: CodecError.self, "without \(name)") { try form.decode(missing) }
    }
    var more = components
    more["stray"] = Tensor([1], shape: [1])
    #expect(throws: CodecError.unexpected(component: "stray")) { try form.decode(more) }
  }
}

@Test(arguments: [
  #"[]"#, #"{}"#, #"{"kind": 3}"#, #"{"kind": "zip"}"#, #"{"kind": "dense", "bits": 3}"#,
  #"{"kind": "sum"}"#, #"{"kind": "sum", "parts": []}"#,
  #"{"kind": "sum", "parts": [{"kind": "sum", "parts": [{"kind": "dense"}]}]}"#,
  #"{"kind": "ternary", "packing": "bits", "group_size": 0}"#,
  #"{"kind": "ternary", "packing": "nibbles", "group_size": 16}"#,
  #"{"kind": "bilevel", "bits": 9, "group_size": 16, "level_bits": 3, "level_rows": 16}"#,
  #"{"kind": "bilevel", "bits": 3, "group_size": 16, "level_bits": 3}"#,
])
func formsThatNobodyWroteAreRefused(text: String) throws {
  let json = try JSON.parse(Array(text.utf8), name: "form")
  #expect(throws: CodecError.self) { try StoredForm(json) }
}
