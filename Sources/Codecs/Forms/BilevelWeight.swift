import CKernels
public import Tensors

/// Integer codes in small groups whose scales and zero points are integer codes too (SpQR: Dettmers
/// et al. 2023, arXiv:2306.03078, section 4): what makes groups of 16 affordable.
///
///     W = scale · (code - zero)      scale = base + step · scaleCode,   zero likewise
///
/// A group is so many kept columns of one row; `levelRows` neighbouring rows share the base and step of
/// their scales, and those of their zero points, in each group of columns.
public struct BilevelWeight: StoredWeight {
  /// How many bits and how large the groups are.
  public struct Settings: Sendable, Hashable {
    /// Bits of a weight.
    public var bits: Int
    /// Columns that share a scale.
    public var groupSize: Int
    /// Bits of a scale and of a zero point.
    public var levelBits: Int
    /// Rows whose scales share a base and a step.
    public var levelRows: Int

    /// - Throws: `CodecError.unsupportedSetting`.
    public init(bits: Int = 3, groupSize: Int = 16, levelBits: Int = 3, levelRows: Int = 16)
      throws(CodecError)
    {
      guard (1...8).contains(bits), (1...8).contains(levelBits) else {
        throw .unsupportedSetting(
          "codes of \(bits) bits with scales of \(levelBits) are not supported; choose 1 to 8.")
      }
      guard (1...1 << 20).contains(groupSize), (1...1 << 20).contains(levelRows) else {
        throw .unsupportedSetting(
          "groups of \(groupSize) columns and \(levelRows) rows are not possible; choose 1 or more."
        )
      }
      self.bits = bits
      self.groupSize = groupSize
      self.levelBits = levelBits
      self.levelRows = levelRows
    }

    package func groupCount(inputs: Int) -> Int { max((inputs + groupSize - 1) / groupSize, 1) }
    package func levelCount(outputs: Int) -> Int { max((outputs + levelRows - 1) / levelRows, 1) }
    package func codeStride(inputs: Int) -> Int { (inputs * bits + 7) / 8 }
    package func levelStride(outputs: Int) -> Int { (outputs * levelBits + 7) / 8 }
  }

  public let settings: Settings
  public let outputs: Int
  public let inputs: Int
  /// uint8 `[outputs, codeStride]`: a stream of codes for each row, least significant bit first.
  private let codes: Tensor
  /// uint8 `[groups, levelStride]`: a stream of codes for each group of columns, one for each row.
  private let scaleCodes: Tensor
  private let zeroCodes: Tensor
  /// float16 `[groups, levels, 2]`: base and step.
  private let scaleLevels: Tensor
  private let zeroLevels: Tensor
  private let widenedLevels: (scale: Tensor, zero: Tensor)
  /// Which column of W is kept at a place; nil where they lie as in W.
  private let order: [Int]?

  /// Names of the components, after the module's path.
  public enum Suffix {
    public static let codes = "bilevel_codes"
    public static let scaleCodes = "bilevel_scale_codes"
    public static let zeroCodes = "bilevel_zero_codes"
    public static let scaleLevels = "bilevel_scale_levels"
    public static let zeroLevels = "bilevel_zero_levels"
    public static let shape = "bilevel_shape"
    public static let order = "bilevel_order"
  }

  /// - Parameters:
  ///   - codes: `outputs × inputs`, in the order kept.
  ///   - scaleCodes: `groups × outputs`; `zeroCodes` likewise.
  ///   - scaleLevels: `groups × levels × 2`, numbers that float16 holds; `zeroLevels` likewise.
  ///   - order: the column of W at each place, if not its own.
  package init(
    settings: Settings, outputs: Int, inputs: Int, codes: [UInt8], scaleCodes: [UInt8],
    zeroCodes: [UInt8], scaleLevels: [Float], zeroLevels: [Float], order: [Int]?
  ) throws(CodecError) {
    let groups = settings.groupCount(inputs: inputs)
    let levels = settings.levelCount(outputs: outputs)
    func stream(_ values: [UInt8], _ rows: Int, _ columns: Int, _ bits: Int) -> Tensor {
      let stride = (columns * bits + 7) / 8
      return Tensor(dtype: .uint8, shape: [rows, stride]) { bytes in
        guard let target = bytes.bindMemory(to: UInt8.self).baseAddress else { return }
        target.initialize(repeating: 0, count: rows * stride)
        for row in 0..<rows {
          for column in 0..<columns {
            pare_stream_put(
              target + row * stride, Int32(bits), column, UInt32(values[row * columns + column]))
          }
        }
      }
    }
    func table(_ values: [Float]) throws(CodecError) -> Tensor {
      try Tensor(values, shape: [groups, levels, 2]).stored(as: .float16)
    }
    var components = [
      Suffix.codes: stream(codes, outputs, inputs, settings.bits),
      Suffix.scaleCodes: stream(scaleCodes, groups, outputs, settings.levelBits),
      Suffix.zeroCodes: stream(zeroCodes, groups, outputs, settings.levelBits),
      Suffix.scaleLevels: try table(scaleLevels), Suffix.zeroLevels: try table(zeroLevels),
      Suffix.shape: FormNumbers.sizes(outputs, inputs),
    ]
    if let order { components[Suffix.order] = FormNumbers.integers(order, .int32) }
    self = try Self.decode(components, settings)
  }

  private init(
    settings: Settings, outputs: Int, inputs: Int, codes: Tensor, scaleCodes: Tensor,
    zeroCodes: Tensor, scaleLevels: Tensor, zeroLevels: Tensor, order: [Int]?
  ) {
    self.settings = settings
    self.outputs = outputs
    self.inputs = inputs
    self.codes = codes
    self.scaleCodes = scaleCodes
    self.zeroCodes = zeroCodes
    self.scaleLevels = scaleLevels
    self.zeroLevels = zeroLevels
    widenedLevels = (scaleLevels.widened(), zeroLevels.widened())
    self.order = order
  }

  public static func decode(_ components: [String: Tensor], _ settings: Settings)
    throws(CodecError) -> BilevelWeight
  {
    var reader = FormComponents(components)
    let (outputs, inputs) = try reader.takeSizes(Suffix.shape)
    let groups = settings.groupCount(inputs: inputs)
    let levels = settings.levelCount(outputs: outputs)
    let levelStride = settings.levelStride(outputs: outputs)
    let codes = try reader.take(
      Suffix.codes, [.uint8], [outputs, settings.codeStride(inputs: inputs)])
    let scaleCodes = try reader.take(Suffix.scaleCodes, [.uint8], [groups, levelStride])
    let zeroCodes = try reader.take(Suffix.zeroCodes, [.uint8], [groups, levelStride])
    let scaleLevels = try reader.takeNumbers(Suffix.scaleLevels, [groups, levels, 2])
    let zeroLevels = try reader.takeNumbers(Suffix.zeroLevels, [groups, levels, 2])
    var order: [Int]?
    if reader.contains(Suffix.order) {
      let stored = try reader.takeIntegers(Suffix.order, [.int32], count: inputs)
      try FormNumbers.checkPermutation(stored, Suffix.order)
      order = stored
    }
    try reader.finish()
    return BilevelWeight(
      settings: settings, outputs: outputs, inputs: inputs, codes: codes, scaleCodes: scaleCodes,
      zeroCodes: zeroCodes, scaleLevels: scaleLevels, zeroLevels: zeroLevels, order: order)
  }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    var components = [
      (suffix: Suffix.codes, tensor: codes), (Suffix.scaleCodes, scaleCodes),
      (Suffix.zeroCodes, zeroCodes), (Suffix.scaleLevels, scaleLevels),
      (Suffix.zeroLevels, zeroLevels), (Suffix.shape, FormNumbers.sizes(outputs, inputs)),
    ]
    if let order { components.append((Suffix.order, FormNumbers.integers(order, .int32))) }
    return components
  }

  public func multiply(_ x: Tensor) -> Tensor { recordingInput(x, openedProduct(x)) }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    guard inputs > 0 else { return }
    var view = kernelView
    withUnsafeTemporaryAllocation(of: Float.self, capacity: inputs) { scratch in
      guard let kept = scratch.baseAddress else { return }
      for row in range {
        let line = target + (row - range.lowerBound) * inputs
        pare_bilevel_decode_row(&view, row, order == nil ? line : kept)
        if let order { for place in 0..<inputs { line[order[place]] = kept[place] } }
      }
    }
  }

  public func giveBack() { codes.giveBack() }

  /// What the C kernels read; valid while this weight is.
  private var kernelView: pare_bilevel {
    func bytes(_ tensor: Tensor) -> UnsafePointer<UInt8> {
      tensor.rawPointer.assumingMemoryBound(to: UInt8.self)
    }
    return pare_bilevel(
      rows: outputs, columns: inputs, group: settings.groupSize,
      groups: settings.groupCount(inputs: inputs), bits: Int32(settings.bits),
      level_bits: Int32(settings.levelBits), level_rows: settings.levelRows, codes: bytes(codes),
      code_stride: settings.codeStride(inputs: inputs), scale_codes: bytes(scaleCodes),
      zero_codes: bytes(zeroCodes), level_stride: settings.levelStride(outputs: outputs),
      scale_levels: widenedLevels.scale.floats, zero_levels: widenedLevels.zero.floats)
  }
}
