public import Tensors

/// A matrix as AutoGPTQ and GPTQModel store it: codes packed along the inputs of the transposed
/// weight.
///
///     qweight  [inputs·b/32, outputs]   a stream of bits down each column
///     qzeros   [groups, outputs·b/32]   a stream along each row
///     scales   [groups, outputs]
///     g_idx    [inputs]                 the group of each input
///     W[o, i] = (q[i, o] - z[g, o]) * scale[g, o],  g = g_idx[i]
public struct GPTQLayout: WritableLayout, Hashable {
  /// What a field of `qzeros` says: the commonest difference between programs.
  public enum ZeroPoints: String, Sendable, CaseIterable {
    /// `z - 1` modulo 2^b.
    case minusOne = "gptq"
    case plain = "gptq_v2"
  }

  public var bits: Int
  /// nil: one grid for a whole row.
  public var groupSize: Int?
  public var zeroPoints: ZeroPoints
  /// Type that scales are written in; any is read.
  public var scaleType: DType

  public static let supportedBits = [2, 3, 4, 8]

  public init(
    bits: Int, groupSize: Int?, zeroPoints: ZeroPoints, scaleType: DType = .float16
  ) throws(CodecError) {
    guard Self.supportedBits.contains(bits) else {
      throw .unsupportedSetting("GPTQ has 2, 3, 4 and 8 bits, not \(bits).")
    }
    self.bits = bits
    self.groupSize = groupSize
    self.zeroPoints = zeroPoints
    self.scaleType = scaleType
  }

  public var summary: String {
    "\(bits) bits \(groupSize.map { "g\($0)" } ?? "per channel") gptq"
  }
  public var requiredSuffixes: [String] { ["qweight", "qzeros", "scales"] }
  public var componentSuffixes: [String] { requiredSuffixes + ["g_idx"] }

  /// Codes that must divide rows and columns, so that no word is cut.
  private var period: Int { 32 % bits == 0 ? 32 / bits : 32 }

  // MARK: Reading

  public func decode(components: [String: Tensor]) throws(CodecError) -> any StoredWeight {
    try decode(components)
  }

  package func decode(_ components: [String: Tensor]) throws(CodecError) -> GroupQuantizedWeight {
    var reader = ComponentReader(components)
    let words = try reader.matrix("qweight", types: DType.words)
    let zeroWords = try reader.matrix("qzeros", types: DType.words)
    let scales = try reader.matrix("scales", types: DType.scaleTypes)
    let index = try reader.optional("g_idx", types: [.int32])
    try reader.finish()
    let outputs = words.shape[1]
    let inputs = words.shape[0] * 32 / bits
    guard words.shape[0] * 32 % bits == 0 else {
      throw .wrongValue(
        component: "qweight", reason: "\(words.shape[0]) words are no whole \(bits)-bit codes")
    }
    let length = min(groupSize ?? inputs, max(inputs, 1))
    let groups = max(1, (inputs + max(length, 1) - 1) / max(length, 1))
    try reader.check(scales, "scales", shape: [groups, outputs])
    try reader.check(
      zeroWords, "qzeros", shape: [groups, BitStream.words(outputs, bits: bits)])
    try reader.checkFinite(scales, "scales")
    if let index { try reader.check(index, "g_idx", shape: [inputs]) }

    let codes = Self.unpacked(words, outputs: outputs, inputs: inputs, bits: bits)
    let mask = UInt8((1 << bits) - 1)
    var zeros = [UInt8](repeating: 0, count: outputs * groups)
    zeros.withUnsafeMutableBufferPointer { zeros in
      guard let base = zeros.baseAddress else { return }
      for group in 0..<groups {
        BitStream.unpack(
          zeroWords.rawPointer + group * zeroWords.shape[1] * 4, count: outputs, bits: bits,
          into: base + group, stride: groups)
      }
      guard zeroPoints == .minusOne else { return }
      for index in zeros.indices { zeros[index] = (zeros[index] &+ 1) & mask }
    }
    let grid = OpenGrid(
      bits: bits, outputs: outputs, inputs: inputs, groupSize: groupSize,
      scales: scales.turned(), zeros: zeros, groupIndex: index?.int32s)
    return try GroupQuantizedWeight(grid, codes: codes)
  }

  private static func unpacked(_ words: Tensor, outputs: Int, inputs: Int, bits: Int) -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: outputs * inputs) { target, initialized in
      initialized = outputs * inputs
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(outputs, of: 64) { columns in
        for column in columns {
          BitStream.unpack(
            words.rawPointer + column * 4, wordStride: outputs, count: inputs, bits: bits,
            into: target.value + column * inputs)
        }
      }
    }
  }

  // MARK: Writing

  package func plan(_ grid: OpenGrid) throws(CodecError) -> LayoutPlan {
    guard grid.bits == bits, grid.groupSize == groupSize else {
      throw .notRepresentable(
        "it has \(grid.bits) bits in groups of \(grid.groupSize ?? grid.inputs), not \(summary)")
    }
    guard grid.inputs % period == 0, grid.outputs % period == 0 else {
      throw .notRepresentable(
        "GPTQ packs \(period) codes at a time, which do not divide \(grid.outputs)×\(grid.inputs)")
    }
    if zeroPoints == .minusOne, let at = grid.zeros.firstIndex(of: 0) {
      throw .notRepresentable(
        "row \(at / grid.groups) has a zero point of 0, which version 1 of GPTQ cannot tell from "
          + "\(1 << bits); write gptq-v2")
    }
    let isExact = try grid.scales(as: scaleType).isExact
    let words = grid.outputs * bits / 32
    return LayoutPlan(
      components: [
        ("qweight", .int32, [grid.inputs * bits / 32, grid.outputs]),
        ("qzeros", .int32, [grid.groups, words]),
        ("scales", scaleType, [grid.groups, grid.outputs]),
        ("g_idx", .int32, [grid.inputs]),
      ], rounding: isExact ? nil : "scales rounded to \(scaleType.rawValue)")
  }

  package func encode(_ grid: OpenGrid, codes: [UInt8])
    throws(CodecError) -> [(suffix: String, tensor: Tensor)]
  {
    _ = try plan(grid)
    let (bits, inputs, outputs, groups) = (bits, grid.inputs, grid.outputs, grid.groups)
    let words = Tensor(dtype: .int32, shape: [inputs * bits / 32, outputs]) { target in
      guard let base = target.bindMemory(to: UInt32.self).baseAddress else { return }
      let target = Unshared(base)
      codes.withUnsafeBufferPointer { codes in
        guard let source = codes.baseAddress else { return }
        let shared = Unshared(source)
        Parallel.ranges(outputs, of: 64) { columns in
          for column in columns {
            BitStream.pack(
              shared.value + column * inputs, count: inputs, bits: bits,
              into: target.value + column, wordStride: outputs)
          }
        }
      }
    }
    let mask = UInt8((1 << bits) - 1)
    let fields = zeroPoints == .plain ? grid.zeros : grid.zeros.map { ($0 &- 1) & mask }
    let zeroWords = outputs * bits / 32
    let zeros = Tensor(dtype: .int32, shape: [groups, zeroWords]) { target in
      guard let base = target.bindMemory(to: UInt32.self).baseAddress else { return }
      fields.withUnsafeBufferPointer { fields in
        guard let source = fields.baseAddress else { return }
        for group in 0..<groups {
          BitStream.pack(
            source + group, stride: groups, count: outputs, bits: bits,
            into: base + group * zeroWords)
        }
      }
    }
    let length = grid.groupLength
    let index = grid.groupIndex ?? (0..<inputs).map { Int32($0 / length) }
    return [
      ("qweight", words), ("qzeros", zeros),
      ("scales", try grid.scales(as: scaleType).tensor.turned()), ("g_idx", Tensor(index)),
    ]
  }
}

extension Tensor {
  /// `[rows, columns]` of any element type, the other way round.
  func turned() -> Tensor {
    let (rows, columns, width) = (rows, columns, dtype.byteCount)
    return Tensor(dtype: dtype, shape: [columns, rows]) { target in
      guard let base = target.baseAddress else { return }
      for row in 0..<rows {
        for column in 0..<columns {
          (base + (column * rows + row) * width).copyMemory(
            from: rawPointer + (row * columns + column) * width, byteCount: width)
        }
      }
    }
  }
}
