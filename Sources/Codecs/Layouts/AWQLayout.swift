public import Tensors

/// A matrix as AutoAWQ's "gemm" kernels store it: eight 4-bit codes of neighbouring outputs in a word,
/// in the order 0, 2, 4, 6, 1, 3, 5, 7.
///
///     qweight  [inputs, outputs/8]
///     qzeros   [groups, outputs/8]      the zero point itself
///     scales   [groups, outputs]        float16
public struct AWQLayout: WritableLayout, Hashable {
  /// nil: one grid for a whole row.
  public var groupSize: Int?

  public init(groupSize: Int?) { self.groupSize = groupSize }

  public var bits: Int { 4 }
  public var summary: String { "4 bits \(groupSize.map { "g\($0)" } ?? "per channel") awq" }
  public var requiredSuffixes: [String] { ["qweight", "qzeros", "scales"] }
  public var componentSuffixes: [String] { requiredSuffixes }

  /// The output that each nibble of a word holds.
  private static let order = [0, 2, 4, 6, 1, 3, 5, 7]

  // MARK: Reading

  public func decode(components: [String: Tensor]) throws(CodecError) -> any StoredWeight {
    try decode(components)
  }

  package func decode(_ components: [String: Tensor]) throws(CodecError) -> GroupQuantizedWeight {
    var reader = ComponentReader(components)
    let words = try reader.matrix("qweight", types: DType.words)
    let zeroWords = try reader.matrix("qzeros", types: DType.words)
    let scales = try reader.matrix("scales", types: DType.scaleTypes)
    try reader.finish()
    let inputs = words.shape[0]
    let outputs = words.shape[1] * 8
    let length = groupSize ?? max(inputs, 1)
    guard length > 0, inputs % length == 0 else {
      throw .groupDoesNotDivide(inputs: inputs, groupSize: length)
    }
    let groups = max(1, inputs / length)
    try reader.check(zeroWords, "qzeros", shape: [groups, outputs / 8])
    try reader.check(scales, "scales", shape: [groups, outputs])
    try reader.checkFinite(scales, "scales")
    let grid = OpenGrid(
      bits: 4, outputs: outputs, inputs: inputs, groupSize: groupSize, scales: scales.turned(),
      zeros: Self.unpacked(zeroWords))
    return try GroupQuantizedWeight(grid, codes: Self.unpacked(words))
  }

  /// Codes `[words.rows, 8 · words.columns]`, turned to `[outputs, rows]`.
  private static func unpacked(_ words: Tensor) -> [UInt8] {
    let (rows, columns) = (words.rows, words.columns)
    return [UInt8](unsafeUninitializedCapacity: rows * columns * 8) { target, initialized in
      initialized = rows * columns * 8
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(columns, of: 8) { part in
        for column in part {
          for row in 0..<rows {
            let word = words.rawPointer.loadUnaligned(
              fromByteOffset: (row * columns + column) * 4, as: UInt32.self
            ).littleEndian
            for (nibble, output) in Self.order.enumerated() {
              target.value[(column * 8 + output) * rows + row] =
                UInt8(truncatingIfNeeded: word >> UInt32(4 * nibble)) & 15
            }
          }
        }
      }
    }
  }

  // MARK: Writing

  package func plan(_ grid: OpenGrid) throws(CodecError) -> LayoutPlan {
    guard grid.bits == 4 else {
      throw .notRepresentable("AWQ has 4 bits only and it has \(grid.bits)")
    }
    guard grid.groupSize == groupSize else {
      throw .notRepresentable(
        "AWQ has one group size for the whole model, \(groupSize ?? -1), and it has "
          + "\(grid.groupSize ?? -1)")
    }
    guard grid.groupIndex == nil else {
      throw .notRepresentable("AWQ has no order of columns, which its groups follow")
    }
    guard grid.outputs % 8 == 0, grid.inputs % grid.groupLength == 0 else {
      throw .notRepresentable(
        "AWQ wants outputs in multiples of 8 and whole groups, and it is "
          + "\(grid.outputs)×\(grid.inputs)")
    }
    let isExact = try grid.scales(as: .float16).isExact
    return LayoutPlan(
      components: [
        ("qweight", .int32, [grid.inputs, grid.outputs / 8]),
        ("qzeros", .int32, [grid.groups, grid.outputs / 8]),
        ("scales", .float16, [grid.groups, grid.outputs]),
      ], rounding: isExact ? nil : "scales rounded to F16")
  }

  package func encode(_ grid: OpenGrid, codes: [UInt8])
    throws(CodecError) -> [(suffix: String, tensor: Tensor)]
  {
    _ = try plan(grid)
    return [
      ("qweight", Self.packed(codes, outputs: grid.outputs, rows: grid.inputs)),
      ("qzeros", Self.packed(grid.zeros, outputs: grid.outputs, rows: grid.groups)),
      ("scales", try grid.scales(as: .float16).tensor.turned()),
    ]
  }

  private static func packed(_ codes: [UInt8], outputs: Int, rows: Int) -> Tensor {
    let columns = outputs / 8
    return Tensor(dtype: .int32, shape: [rows, columns]) { target in
      guard let base = target.bindMemory(to: UInt32.self).baseAddress else { return }
      let target = Unshared(base)
      codes.withUnsafeBufferPointer { codes in
        guard let source = codes.baseAddress else { return }
        let shared = Unshared(source)
        Parallel.ranges(columns, of: 8) { part in
          for column in part {
            for row in 0..<rows {
              var word: UInt32 = 0
              for (nibble, output) in Self.order.enumerated() {
                word |=
                  UInt32(shared.value[(column * 8 + output) * rows + row]) << UInt32(4 * nibble)
              }
              target.value[row * columns + column] = word.littleEndian
            }
          }
        }
      }
    }
  }
}
