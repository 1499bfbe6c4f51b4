import CKernels
package import Tensors

/// A matrix in integer codes whose groups add a number of their own, which need not be a multiple of
/// the scale: `W = code * scale + bias`, codes unsigned. What MLX writes is of this form; an integer
/// zero point is the special case that `GroupQuantizedWeight` is.
package struct BiasedGroupWeight: AffineWeight {
  package let outputs: Int
  package let inputs: Int
  package let groupSize: Int
  /// Every scale as stored, zero points absent: only its codes and scales are used.
  private let base: GroupQuantizedWeight
  /// `[outputs, groups]`, in the type of the scales.
  package let biases: Tensor

  package init(
    bits: Int, groupSize: Int, outputs: Int, inputs: Int, codes: Tensor, scales: Tensor,
    biases: Tensor
  ) throws(CodecError) {
    let codec = try AffineGroups(
      bits: bits, granularity: .group(groupSize), scaleType: scales.dtype)
    self.outputs = outputs
    self.inputs = inputs
    self.groupSize = groupSize
    self.biases = biases
    base = GroupQuantizedWeight(
      codec: codec, outputs: outputs, inputs: inputs, codes: codes, scales: scales,
      zeroPoints: nil)
  }

  package var bits: Int { base.codec.bits }
  package var storedBytes: Int { base.codes.byteCount + base.scales.byteCount + biases.byteCount }

  package func encoded() -> [(suffix: String, tensor: Tensor)] {
    let codes = base.codes
    return [
      (
        "weight",
        Tensor(
          dtype: .uint32, shape: codes.shape, storage: codes.storage, byteOffset: codes.byteOffset)
      ),
      ("scales", base.scales), ("biases", biases),
    ]
  }

  package func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    return recordingInput(
      x, tiledProduct(x, outputs: outputs) { dequantizeRows($0, into: $1) })
  }

  package func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    guard !range.isEmpty, inputs > 0 else { return }
    let one: Float = 1
    withUnsafePointer(to: one) { one in
      var view = base.kernelView
      view.scales = UnsafeRawPointer(one)
      view.scale_type = PARE_AFFINE_F32
      view.scale_stride = 0
      pare_affine_decode_rows(&view, range.lowerBound, range.upperBound, target)
    }
    let groups = inputs / groupSize
    let half = Float(1 << (bits - 1))
    let scales = base.scales.rows(range).widened()
    let biases = self.biases.rows(range).widened()
    for index in 0..<range.count * groups {
      let (scale, bias) = (scales.floats[index], biases.floats[index])
      let values = target + index * groupSize
      for column in 0..<groupSize { values[column] = (values[column] + half) * scale + bias }
    }
  }

  package func giveBack() {
    base.codes.giveBack()
    biases.giveBack()
  }

  // MARK: Integer zero points

  /// The zero point that a bias stands for, `-bias / scale`, where the bias is that integer times the
  /// scale rounded to the stored type; nil where it is none.
  private func zero(_ scale: Float, _ bias: Float) -> UInt8? {
    guard scale != 0 else { return bias == 0 ? UInt8(1 << (bits - 1)) : nil }
    let ratio = (-bias / scale).rounded(.toNearestOrEven)
    guard ratio >= 0, ratio <= Float((1 << bits) - 1) else { return nil }
    return UInt8(ratio)
  }

  package func openGrid() throws(CodecError) -> OpenGrid {
    let scales = base.scales.widened()
    let stored = biases.widened()
    var zeros = [UInt8](repeating: 0, count: scales.count)
    for index in zeros.indices {
      guard let zero = zero(scales.floats[index], stored.floats[index]) else {
        throw notAffine(index)
      }
      zeros[index] = zero
    }
    let products = Tensor(shape: stored.shape) { target in
      for index in target.indices { target[index] = -Float(zeros[index]) * scales.floats[index] }
    }
    let rounded = products.converted(to: biases.dtype).widened()
    for index in zeros.indices where rounded.floats[index] != stored.floats[index] {
      throw notAffine(index)
    }
    return OpenGrid(
      bits: bits, outputs: outputs, inputs: inputs, groupSize: groupSize, scales: base.scales,
      zeros: zeros)
  }

  private func notAffine(_ index: Int) -> CodecError {
    .notRepresentable(
      "the bias of row \(index / biases.columns), group \(index % biases.columns) is no integer "
        + "from 0 to \((1 << bits) - 1) times its scale, as a zero point must be")
  }

  package func openCodes() -> [UInt8] { base.openCodes() }

  /// The same matrix with zero points in place of biases, where that changes no value.
  func withIntegerZeros() -> GroupQuantizedWeight? {
    let scales = base.scales.widened()
    let stored = biases.widened()
    var zeros = [UInt8](repeating: 0, count: scales.count)
    for index in zeros.indices {
      guard let zero = zero(scales.floats[index], stored.floats[index]),
        Double(zero) * Double(scales.floats[index]) == -Double(stored.floats[index])
      else { return nil }
      zeros[index] = zero
    }
    return base.with(
      OpenGrid(
        bits: bits, outputs: outputs, inputs: inputs, groupSize: groupSize, scales: base.scales,
        zeros: zeros))
  }
}

extension GroupQuantizedWeight {
  /// The same codes, nothing copied, with the zero points of a grid.
  fileprivate func with(_ grid: OpenGrid) -> GroupQuantizedWeight {
    guard !grid.isSymmetric else { return self }
    var codec = codec
    codec.isSymmetric = false
    return GroupQuantizedWeight(
      codec: codec, outputs: outputs, inputs: inputs, codes: codes, scales: scales,
      zeroPoints: grid.packedZeros)
  }
}
