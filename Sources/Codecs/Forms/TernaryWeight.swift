import CKernels
public import Tensors

/// Weights of -1, 0 and 1 times a scale for each group of neighbouring columns, multiplied from their
/// packed codes.
public struct TernaryWeight: StoredWeight {
  /// How codes lie in bytes (`CKernels/include/bits.h`).
  public enum Packing: String, Sendable, Hashable, CaseIterable {
    /// Four to a byte: 2 bits a weight.
    case bits
    /// Five to a byte in base three: 1.6 bits a weight, slower to open.
    case digits

    var kernelPacking: pare_ternary_packing {
      self == .bits ? PARE_TERNARY_BITS : PARE_TERNARY_DIGITS
    }

    /// Bytes of a row.
    package func stride(inputs: Int) -> Int { self == .bits ? (inputs + 3) / 4 : (inputs + 4) / 5 }
  }

  public let packing: Packing
  /// Columns that share a scale; the last group of a row may be shorter.
  public let groupSize: Int
  public let outputs: Int
  public let inputs: Int
  /// uint8 `[outputs, stride]`.
  private let codes: Tensor
  /// As stored, `[outputs, groups]`.
  private let scales: Tensor
  private let widenedScales: Tensor

  /// Names of the components, after the module's path.
  public enum Suffix {
    public static let codes = "ternary_codes"
    public static let scales = "ternary_scales"
    public static let shape = "ternary_shape"
  }

  /// - Parameters:
  ///   - codes: `outputs × inputs` of -1, 0 and 1, row after row.
  ///   - scales: `outputs × groups`.
  ///   - scaleType: float32, bfloat16 or float16.
  public init(
    codes: [Int8], scales: [Float], outputs: Int, inputs: Int, groupSize: Int, packing: Packing,
    scaleType: DType
  ) throws(CodecError) {
    precondition(codes.count == outputs * inputs && codes.allSatisfy { abs($0) <= 1 })
    let stride = packing.stride(inputs: inputs)
    let packed = Tensor(dtype: .uint8, shape: [outputs, stride]) { bytes in
      guard let target = bytes.bindMemory(to: UInt8.self).baseAddress else { return }
      codes.withUnsafeBufferPointer { codes in
        guard let source = codes.baseAddress else { return }
        for row in 0..<outputs {
          pare_ternary_pack(
            packing.kernelPacking, source + row * inputs, inputs, target + row * stride)
        }
      }
    }
    let groups = Self.groupCount(inputs: inputs, groupSize: groupSize)
    self = try Self.decode(
      [
        Suffix.codes: packed,
        Suffix.scales: try Tensor(scales, shape: [outputs, groups]).stored(as: scaleType),
        Suffix.shape: FormNumbers.sizes(outputs, inputs),
      ], packing: packing, groupSize: groupSize)
  }

  private init(
    packing: Packing, groupSize: Int, outputs: Int, inputs: Int, codes: Tensor, scales: Tensor
  ) {
    self.packing = packing
    self.groupSize = groupSize
    self.outputs = outputs
    self.inputs = inputs
    self.codes = codes
    self.scales = scales
    widenedScales = scales.widened()
  }

  static func groupCount(inputs: Int, groupSize: Int) -> Int {
    max((inputs + groupSize - 1) / groupSize, 1)
  }

  public static func decode(_ components: [String: Tensor], packing: Packing, groupSize: Int)
    throws(CodecError) -> TernaryWeight
  {
    guard groupSize >= 1, groupSize <= 1 << 30 else {
      throw .unsupportedSetting("groups of \(groupSize) columns do not exist; choose 1 or more.")
    }
    var reader = FormComponents(components)
    let (outputs, inputs) = try reader.takeSizes(Suffix.shape)
    let stride = packing.stride(inputs: inputs)
    let codes = try reader.take(Suffix.codes, [.uint8], [outputs, stride])
    let scales = try reader.takeNumbers(
      Suffix.scales, [outputs, groupCount(inputs: inputs, groupSize: groupSize)])
    try reader.finish()
    let bad = pare_ternary_check(
      packing.kernelPacking, codes.rawPointer.assumingMemoryBound(to: UInt8.self), codes.byteCount)
    guard bad == codes.byteCount else {
      throw .wrongValue(component: Suffix.codes, reason: "byte \(bad) holds no ternary codes")
    }
    return TernaryWeight(
      packing: packing, groupSize: groupSize, outputs: outputs, inputs: inputs, codes: codes,
      scales: scales)
  }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    [
      (Suffix.codes, codes), (Suffix.scales, scales),
      (Suffix.shape, FormNumbers.sizes(outputs, inputs)),
    ]
  }

  /// `x · Wᵀ`. Few tokens are multiplied code by code; for many, tiles of W are opened for sgemm.
  public func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    return recordingInput(x, product(x))
  }

  private func product(_ x: Tensor) -> Tensor {
    guard x.rows <= Tensor.fewRows else {
      return tiledProduct(x, outputs: outputs) { dequantizeRows($0, into: $1) }
    }
    let (tokens, outputs) = (x.rows, outputs)
    let input = Unshared(x.floats)
    return Tensor(shape: [tokens, outputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(outputs, of: 32) { rows in
        var view = kernelView
        pare_ternary_multiply_rows(
          &view, rows.lowerBound, rows.upperBound, input.value, tokens,
          target.value + rows.lowerBound, outputs)
      }
    }
  }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    var view = kernelView
    for row in range {
      pare_ternary_decode_row(&view, row, target + (row - range.lowerBound) * inputs)
    }
  }

  public func giveBack() {
    codes.giveBack()
    scales.giveBack()
  }

  /// What the C kernels read; valid while this weight is.
  private var kernelView: pare_ternary {
    pare_ternary(
      rows: outputs, columns: inputs, group: groupSize,
      groups: Self.groupCount(inputs: inputs, groupSize: groupSize),
      packing: packing.kernelPacking,
      codes: codes.rawPointer.assumingMemoryBound(to: UInt8.self),
      stride: packing.stride(inputs: inputs), scales: widenedScales.floats)
  }
}
