import CKernels
import Tensors

/// NormalFloat-4: sixteen levels that a normal distribution hits equally often, times the largest
/// magnitude of a block (Dettmers et al. 2023, QLoRA, arXiv:2305.14314, section 3).
///
///     scale = max|w| over a block           blocks run on over the ends of rows
///     code  = the level nearest to w / scale, the lower of two equally near
///     value = level[code] * scale
///
/// With double quantization the scales are 8-bit codes themselves: their mean is taken off, and blocks
/// of 256 share a float32 scale of the second order. A weight then takes 4.127 bits instead of 4.5 at
/// blocks of 64.
///
/// The components are those of bitsandbytes' 4-bit layers, and codes are the same bits where they are
/// chosen for unquantized scales, as it does; by default they are chosen for the scales that a reader
/// will see, which it reads as well and which errs a little less.
public struct NF4: Codec, Hashable {
  /// Numbers that share a scale.
  public var blockSize: Int
  /// Whether the scales are quantized too.
  public var isDoubleQuantized: Bool
  /// Whether codes are chosen for the scales as stored rather than before they are quantized; the two
  /// differ with double quantization only.
  public var fitsStoredScales: Bool

  /// Weights that may share a scale: those bitsandbytes offers.
  public static let supportedBlockSizes = [64, 128, 256, 512, 1024, 2048, 4096]
  /// Scales that share a scale of the second order.
  public static let scaleBlockSize = 256

  /// The sixteen levels, ascending.
  public static var levels: [Float] {
    withUnsafeBytes(of: pare_nf4_levels) { Array($0.bindMemory(to: Float.self)) }
  }

  /// - Throws: `CodecError.unsupportedSetting`.
  public init(
    blockSize: Int = 64, isDoubleQuantized: Bool = true, fitsStoredScales: Bool = true
  ) throws(CodecError) {
    guard Self.supportedBlockSizes.contains(blockSize) else {
      throw .unsupportedSetting(
        "NF4 blocks of \(blockSize) are not supported; choose a power of two from 64 to 4096.")
    }
    self.init(
      checkedBlockSize: blockSize, isDoubleQuantized: isDoubleQuantized,
      fitsStoredScales: fitsStoredScales)
  }

  private init(checkedBlockSize: Int, isDoubleQuantized: Bool, fitsStoredScales: Bool) {
    blockSize = checkedBlockSize
    self.isDoubleQuantized = isDoubleQuantized
    self.fitsStoredScales = fitsStoredScales
  }

  /// As QLoRA has it: blocks of 64, scales quantized.
  public static let qlora = NF4(
    checkedBlockSize: 64, isDoubleQuantized: true, fitsStoredScales: true)

  /// Scales of a matrix of this many numbers.
  public func blockCount(_ count: Int) -> Int { (count + blockSize - 1) / blockSize }

  /// Bytes of a matrix of this size, scales included, without the constant tables and remarks that a
  /// file keeps with it.
  public func storedBytes(outputs: Int, inputs: Int) -> Int {
    let blocks = blockCount(outputs * inputs)
    let scales =
      isDoubleQuantized
      ? blocks + (blocks + Self.scaleBlockSize - 1) / Self.scaleBlockSize * 4 : blocks * 4
    return (outputs * inputs + 1) / 2 + scales
  }

  public func halfStep(at value: Float, row: Int, column: Int, in weight: NF4Weight) -> Float? {
    let scale = weight.scale(at: row * weight.inputs + column)
    guard scale != 0 else { return value == 0 ? 0 : nil }
    let steps = Double(value) / Double(scale)
    let levels = Self.levels
    guard abs(steps) <= 1, let above = levels.dropFirst().firstIndex(where: { Double($0) >= steps })
    else { return nil }
    return Float((Double(levels[above]) - Double(levels[above - 1])) / 2 * abs(Double(scale)))
  }

  /// Names as bitsandbytes serializes them.
  enum Suffix {
    static let codes = "weight"
    static let scales = "weight.absmax"
    static let levels = "weight.quant_map"
    static let scaleScales = "weight.nested_absmax"
    static let scaleLevels = "weight.nested_quant_map"
    static let state = "weight.quant_state.bitsandbytes__nf4"
  }
}
