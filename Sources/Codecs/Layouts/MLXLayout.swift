public import Tensors

/// A matrix as MLX stores affine quantization: unsigned codes along each row, and for each group a
/// scale and what is added, so that zero need not be on the grid.
///
///     weight  U32 [outputs, inputs·b/32]
///     scales  [outputs, inputs/g]
///     biases  [outputs, inputs/g]        W = q * scale + bias
public struct MLXLayout: WritableLayout, Hashable {
  public var bits: Int
  public var groupSize: Int
  /// Type that scales and biases are written in; any is read.
  public var scaleType: DType

  public static let supportedBits = [2, 3, 4, 5, 6, 8]
  public static let writtenGroupSizes = [128, 64, 32]

  public init(bits: Int, groupSize: Int, scaleType: DType = .float16) throws(CodecError) {
    guard Self.supportedBits.contains(bits) else {
      throw .unsupportedSetting("MLX has 2, 3, 4, 5, 6 and 8 bits, not \(bits).")
    }
    guard groupSize > 0, groupSize % 8 == 0 else {
      throw .unsupportedSetting("a group size of \(groupSize) is none of MLX's; use 32, 64 or 128.")
    }
    self.bits = bits
    self.groupSize = groupSize
    self.scaleType = scaleType
  }

  public var summary: String { "\(bits) bits g\(groupSize) mlx" }
  public var requiredSuffixes: [String] { ["weight", "scales", "biases"] }
  public var componentSuffixes: [String] { requiredSuffixes }

  // MARK: Reading

  /// A `GroupQuantizedWeight` where every bias is exactly minus an integer times its scale, else a
  /// `BiasedGroupWeight`.
  public func decode(components: [String: Tensor]) throws(CodecError) -> any StoredWeight {
    var reader = ComponentReader(components)
    let words = try reader.matrix("weight", types: DType.words)
    let scales = try reader.matrix("scales", types: DType.scaleTypes)
    let biases = try reader.matrix("biases", types: DType.scaleTypes)
    try reader.finish()
    let outputs = words.shape[0]
    let inputs = words.shape[1] * 32 / bits
    guard words.shape[1] * 32 % bits == 0, inputs % groupSize == 0 else {
      throw .wrongShape(
        component: "weight", expected: [outputs, scales.shape[1] * groupSize * bits / 32],
        actual: words.shape)
    }
    try reader.check(scales, "scales", shape: [outputs, inputs / groupSize])
    try reader.check(biases, "biases", shape: [outputs, inputs / groupSize])
    try reader.checkFinite(scales, "scales")
    try reader.checkFinite(biases, "biases")
    let packed = Tensor(
      dtype: .int32, shape: words.shape, storage: words.storage, byteOffset: words.byteOffset)
    let weight = try BiasedGroupWeight(
      bits: bits, groupSize: groupSize, outputs: outputs, inputs: inputs, codes: packed,
      scales: scales, biases: biases)
    return weight.withIntegerZeros() ?? weight
  }

  // MARK: Writing

  /// A grid in groups that MLX has: longer ones are split by repeating their scale.
  package static func groupSize(for grid: OpenGrid) -> Int? {
    writtenGroupSizes.first { grid.groupLength % $0 == 0 && grid.inputs % $0 == 0 }
  }

  package func plan(_ grid: OpenGrid) throws(CodecError) -> LayoutPlan {
    guard grid.bits == bits else {
      throw .notRepresentable("it has \(grid.bits) bits, not \(bits)")
    }
    guard grid.groupIndex == nil else {
      throw .notRepresentable("MLX has no order of columns, which its groups follow")
    }
    guard grid.groupLength % groupSize == 0, grid.inputs % groupSize == 0 else {
      throw .notRepresentable(
        "groups of \(grid.groupLength) in \(grid.inputs) columns are no whole groups of "
          + "\(groupSize); MLX has 32, 64 and 128")
    }
    let shape = [grid.outputs, grid.inputs / groupSize]
    let scales = try grid.scales(as: scaleType)
    let biases = try Self.biases(grid, scales.tensor)
    return LayoutPlan(
      components: [
        ("weight", .uint32, [grid.outputs, grid.inputs * bits / 32]),
        ("scales", scaleType, shape), ("biases", scaleType, shape),
      ],
      rounding: !scales.isExact
        ? "scales and biases rounded to \(scaleType.rawValue)"
        : biases.isExact ? nil : "biases rounded to \(scaleType.rawValue)")
  }

  /// `-zero · scale` of the stored scales.
  private static func biases(_ grid: OpenGrid, _ scales: Tensor)
    throws(CodecError) -> (tensor: Tensor, isExact: Bool)
  {
    let widened = scales.widened()
    let products = Tensor(shape: scales.shape) { target in
      for index in target.indices {
        target[index] = -Float(grid.zeros[index]) * widened.floats[index]
      }
    }
    let stored = try OpenGrid.rounded(products, to: scales.dtype, what: "bias")
    // Eight bits times a bfloat16 scale: two zero points may have the same bias.
    let biases = stored.tensor.widened()
    for index in 0..<products.count where widened.floats[index] != 0 {
      let zero = (-biases.floats[index] / widened.floats[index]).rounded(.toNearestOrEven)
      guard zero == Float(grid.zeros[index]) else {
        throw .notRepresentable(
          "the bias of row \(index / scales.columns) cannot be told from its neighbour's in "
            + "\(scales.dtype.rawValue); write biases in float32 (--dtype f32)")
      }
    }
    // A product of a float32 scale may be rounded in float32 already.
    let isExact = (0..<products.count).allSatisfy {
      Double(products.floats[$0]) == -Double(grid.zeros[$0]) * Double(widened.floats[$0])
    }
    return (stored.tensor, stored.isExact && isExact)
  }

  package func encode(_ grid: OpenGrid, codes: [UInt8])
    throws(CodecError) -> [(suffix: String, tensor: Tensor)]
  {
    _ = try plan(grid)
    let grid = grid.repeated(groupSize: groupSize)
    let codec = try AffineGroups(bits: bits, granularity: .group(groupSize))
    let packed = GroupQuantizedWeight.stored(codes, codec, grid.outputs, grid.inputs)
    let scales = try grid.scales(as: scaleType).tensor
    return [
      (
        "weight",
        Tensor(dtype: .uint32, shape: packed.shape, storage: packed.storage)
      ),
      ("scales", scales), ("biases", try Self.biases(grid, scales).tensor),
    ]
  }
}
