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

  /// `x · Wᵀ`. Few rows are bound by opening the codes, which each row of the matrix undergoes once
  /// for all tokens; many are bound by arithmetic, so tiles are opened for sgemm.
  public func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    return recordingInput(x, product(x))
  }

  private func product(_ x: Tensor) -> Tensor {
    guard x.rows <= Tensor.fewRows else {
      return tiledProduct(x, outputs: outputs) { dequantizeRows($0, into: $1) }
    }
    let (tokens, inputs, outputs) = (x.rows, inputs, outputs)
    let input = Unshared(x.floats)
    return Tensor(shape: [tokens, outputs]) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(outputs, of: 32) { rows in
        withUnsafeTemporaryAllocation(of: Float.self, capacity: max(inputs, 1)) { scratch in
          guard let row = scratch.baseAddress else { return }
          for output in rows {
            dequantizeRows(output..<output + 1, into: row)
            for token in 0..<tokens {
              target.value[token * outputs + output] =
                pare_dot_f32(row, input.value + token * inputs, inputs)
            }
          }
        }
      }
    }
  }

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
