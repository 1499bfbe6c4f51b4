import CKernels
public import Tensors

/// One block type of GGUF: a run of 32 or 256 neighbouring weights of a row shares a block with its
/// own scales.
///
/// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TQ1_0, TQ2_0 and MXFP4 follow the format's rule, so their bytes are
/// those of every other writer. For the k-quants and IQ4 the format leaves the choice of scales
/// open: they are searched for the least squared error, or with importance for the least
/// `Σ importance · error²`, as are Q4_0, Q4_1, Q5_0 and Q5_1 then.
///
public struct GGUFBlocks: Codec, Hashable {
  public let type: GGUFType

  /// - Throws: `CodecError.unsupportedSetting` for F32, F16 and BF16, which are `DenseWeight`s.
  public init(_ type: GGUFType) throws(CodecError) {
    guard type.blockLength > 1 else {
      throw .unsupportedSetting(
        "\(type.name) has no blocks; convert the tensor to that type instead.")
    }
    self.type = type
  }

  static let suffix = "weight"

  /// Whether importance changes what is written.
  public var usesImportance: Bool {
    switch type {
    case .f32, .f16, .bf16, .q8_0, .tq1_0, .tq2_0, .mxfp4: false
    case .q4_0, .q4_1, .q5_0, .q5_1, .q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .iq4_nl, .iq4_xs: true
    }
  }

  /// Whether the format's rule picks codes before it rounds the scale to float16.
  private var roundsScaleLast: Bool {
    switch type {
    case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .tq1_0, .tq2_0: true
    default: false
    }
  }

  /// Bytes of a matrix of this size.
  /// - Throws: `CodecError.blockDoesNotDivide`.
  public func storedBytes(outputs: Int, inputs: Int) throws(CodecError) -> Int {
    try checkDivides(inputs)
    return outputs * type.rowBytes(inputs: inputs)
  }

  /// - Parameter weight: `[outputs, inputs]` of any floating-point type, mapped or not; read once,
  ///   row by row.
  /// - Throws: as `encode(_:importance:)`.
  public func encode(_ weight: Tensor) throws(CodecError) -> BlockQuantizedWeight {
    try encode(weight, importance: nil).weight
  }

  /// Encodes rows in parallel; the bytes depend neither on the number of threads nor on the
  /// machine's instruction set.
  ///
  /// - Parameters:
  ///   - weight: `[outputs, inputs]` of any floating-point type.
  ///   - importance: for each of the `inputs` columns the mean square of what it is multiplied by,
  ///     in any unit; columns of zero importance still get the nearest codes.
  /// - Throws: `CodecError.unsupportedShape`, `.blockDoesNotDivide`, `.wrongImportance`,
  ///   `.notFinite`, `.blockScaleOverflow`.
  public func encode(_ weight: Tensor, importance: [Float]?)
    throws(CodecError) -> (weight: BlockQuantizedWeight, error: EncodingError)
  {
    guard weight.shape.count == 2, weight.dtype.isFloatingPoint else {
      throw .unsupportedShape(shape: weight.shape, dtype: weight.dtype)
    }
    let inputs = weight.shape[1]
    try checkDivides(inputs)
    if let importance {
      guard importance.count == inputs else {
        throw .wrongImportance(
          "there are \(importance.count) importances for \(inputs) input columns")
      }
      if let bad = importance.firstIndex(where: { !($0 >= 0 && $0.isFinite) }) {
        throw .wrongImportance("the importance of column \(bad) is \(importance[bad])")
      }
    }
    return try BlockEncodingPass(type: type, source: weight, importance: importance).run()
  }

  /// Keeps every scale of `grid` and picks the nearest codes.
  public func encode(_ weight: Tensor, onGridOf grid: BlockQuantizedWeight)
    throws(CodecError) -> BlockQuantizedWeight
  {
    precondition(grid.type == type && weight.shape == [grid.outputs, grid.inputs])
    guard weight.dtype.isFloatingPoint else {
      throw .unsupportedShape(shape: weight.shape, dtype: weight.dtype)
    }
    return try BlockEncodingPass(type: type, source: weight, importance: nil, grid: grid)
      .run().weight
  }

  /// For the types whose rule rounds the scale last, plus what that can move the value by.
  public func halfStep(at value: Float, row: Int, column: Int, in weight: BlockQuantizedWeight)
    -> Float?
  {
    let block =
      weight.blocks.rawPointer + row * weight.rowBytes
      + column / type.blockLength * type.blockBytes
    let index = column % type.blockLength
    let half = pare_block_half_step(type.kernelType, block, index, value)
    guard half >= 0 else { return nil }
    guard roundsScaleLast else { return half }
    let offset = abs(pare_block_point(type.kernelType, block, index).offset)
    // Half a unit of float16's last place, relative or, below its normal range, absolute.
    let levels: Float = 130
    return half + max((abs(value) + 2 * offset) * 0x1p-11, levels * 0x1p-25)
  }

  /// A weight from a file's bytes; nothing is copied.
  /// - Parameter blocks: exactly the bytes of `outputs` rows, of any one-byte type and shape.
  /// - Throws: `CodecError.blockDoesNotDivide`, `.wrongType`, `.wrongShape`.
  public func decode(_ blocks: Tensor, outputs: Int, inputs: Int)
    throws(CodecError) -> BlockQuantizedWeight
  {
    try checkDivides(inputs)
    guard blocks.dtype.byteCount == 1 else {
      throw .wrongType(component: Self.suffix, expected: "U8", actual: blocks.dtype)
    }
    let (rowBytes, isTooLarge) = (inputs / type.blockLength)
      .multipliedReportingOverflow(by: type.blockBytes)
    let (byteCount, isFarTooLarge) = outputs.multipliedReportingOverflow(by: rowBytes)
    guard outputs >= 0, !isTooLarge, !isFarTooLarge, byteCount == blocks.byteCount else {
      throw .wrongShape(
        component: Self.suffix, expected: [outputs, rowBytes], actual: blocks.shape)
    }
    return BlockQuantizedWeight(
      type: type, outputs: outputs, inputs: inputs,
      blocks: Tensor(
        dtype: .uint8, shape: [outputs, rowBytes], storage: blocks.storage,
        byteOffset: blocks.byteOffset))
  }

  /// A weight from its one component, bytes `[outputs, rowBytes]`.
  /// - Throws: `CodecError.missing`, `.unexpected`, `.wrongType`, `.wrongShape`.
  public func decode(_ components: [String: Tensor]) throws(CodecError) -> BlockQuantizedWeight {
    guard let blocks = components[Self.suffix] else { throw .missing(component: Self.suffix) }
    if let stray = components.keys.sorted().first(where: { $0 != Self.suffix }) {
      throw .unexpected(component: stray)
    }
    guard blocks.shape.count == 2, blocks.shape[1] % type.blockBytes == 0 else {
      let rowBytes = (blocks.columns + type.blockBytes - 1) / type.blockBytes * type.blockBytes
      throw .wrongShape(
        component: Self.suffix, expected: [blocks.rows, rowBytes], actual: blocks.shape)
    }
    return try decode(
      blocks, outputs: blocks.shape[0],
      inputs: blocks.shape[1] / type.blockBytes * type.blockLength)
  }

  private func checkDivides(_ inputs: Int) throws(CodecError) {
    guard inputs >= 0, inputs % type.blockLength == 0 else {
      throw .blockDoesNotDivide(inputs: inputs, type: type)
    }
  }
}
