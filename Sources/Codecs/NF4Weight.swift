import CKernels
public import Tensors

/// A matrix kept as NormalFloat-4 codes, multiplied straight from them: only tiles of it are ever
/// expanded.
public struct NF4Weight: StoredWeight {
  /// The form it is kept in.
  public let codec: NF4
  public let outputs: Int
  public let inputs: Int
  /// Type of the matrix that was encoded, which readers of the file compute in.
  public let sourceType: DType
  /// Bytes `[(outputs · inputs + 1) / 2, 1]`, two codes each, the first in the high nibble.
  package let codes: Tensor
  package let scales: Scales

  package enum Scales: Sendable {
    /// float32, one for each block.
    case plain(Tensor)
    /// Bytes, one for each block; the 256 values they stand for; float32, one for each 256 blocks;
    /// and what is added to all.
    case quantized(codes: Tensor, levels: Tensor, scales: Tensor, offset: Float)

    var tensor: Tensor {
      switch self {
      case .plain(let scales): scales
      case .quantized(let codes, _, _, _): codes
      }
    }
  }

  package init(
    codec: NF4, outputs: Int, inputs: Int, sourceType: DType, codes: Tensor, scales: Scales
  ) {
    precondition(codes.byteCount == (outputs * inputs + 1) / 2)
    precondition(scales.tensor.count == codec.blockCount(outputs * inputs))
    self.codec = codec
    self.outputs = outputs
    self.inputs = inputs
    self.sourceType = sourceType
    self.codes = codes
    self.scales = scales
  }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    var components: [(suffix: String, tensor: Tensor)] = [
      (NF4.Suffix.codes, codes), (NF4.Suffix.scales, scales.tensor),
      (NF4.Suffix.levels, Tensor(NF4.levels, shape: [16])),
    ]
    if case .quantized(_, let levels, let scales, _) = scales {
      components.append((NF4.Suffix.scaleScales, scales))
      components.append((NF4.Suffix.scaleLevels, levels))
    }
    components.append((NF4.Suffix.state, NF4State(of: self).tensor))
    return components
  }

  public func multiply(_ x: Tensor) -> Tensor { recordingInput(x, openedProduct(x)) }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    var matrix = kernelView
    pare_nf4_decode(&matrix, range.lowerBound * inputs, range.count * inputs, target)
  }

  public func giveBack() {
    codes.giveBack()
    scales.tensor.giveBack()
  }

  /// The scale of a number by its place in row order.
  func scale(at index: Int) -> Float {
    var matrix = kernelView
    return pare_nf4_scale(&matrix, index / codec.blockSize)
  }

  /// Every block's scale as a reader sees it.
  var widenedScales: Tensor {
    if case .plain(let scales) = scales { return scales }
    let count = scales.tensor.count
    return Tensor(shape: [count]) { target in
      var matrix = kernelView
      for block in 0..<count { target[block] = pare_nf4_scale(&matrix, block) }
    }
  }

  /// What the C kernels read; valid while this weight is.
  var kernelView: pare_nf4 {
    var view = pare_nf4()
    view.block = codec.blockSize
    view.codes = codes.rawPointer.assumingMemoryBound(to: UInt8.self)
    switch scales {
    case .plain(let scales): view.scales = scales.rawPointer
    case .quantized(let codes, let levels, let scales, let offset):
      view.scale_codes = codes.rawPointer.assumingMemoryBound(to: UInt8.self)
      view.scale_levels = levels.rawPointer
      view.scale_scales = scales.rawPointer
      view.scale_block = NF4.scaleBlockSize
      view.offset = offset
    }
    return view
  }
}
