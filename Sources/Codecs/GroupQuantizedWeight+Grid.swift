import CKernels
import Tensors

extension GroupQuantizedWeight: AffineWeight {
  package func openGrid() -> OpenGrid {
    let grids = grids
    let groups = codec.groupCount(inputs: inputs)
    let half = 1 << (codec.bits - 1)
    let isWhole = codec.granularity == .tensor
    var scales = scales
    if isWhole {
      let (one, width) = (self.scales, self.scales.dtype.byteCount)
      scales = Tensor(dtype: one.dtype, shape: [outputs, 1]) { target in
        for row in 0..<outputs {
          UnsafeMutableRawBufferPointer(rebasing: target[(row * width)...])
            .copyMemory(from: one.bytes)
        }
      }
    }
    let zeros = (0..<outputs * groups).map { UInt8(Int(grids.zeros[isWhole ? 0 : $0]) + half) }
    let groupSize: Int? = if case .group(let size) = codec.granularity { size } else { nil }
    return OpenGrid(
      bits: codec.bits, outputs: outputs, inputs: inputs, groupSize: groupSize, scales: scales,
      zeros: zeros, groupIndex: columnGroups?.index)
  }

  package func openCodes() -> [UInt8] {
    let half = Float(1 << (codec.bits - 1))
    let one: Float = 1
    let (outputs, inputs) = (outputs, inputs)
    return [UInt8](unsafeUninitializedCapacity: outputs * inputs) { target, initialized in
      initialized = outputs * inputs
      guard let base = target.baseAddress, initialized > 0 else { return }
      let target = Unshared(base)
      withUnsafePointer(to: one) { one in
        var view = kernelView
        view.scales = UnsafeRawPointer(one)
        view.scale_type = PARE_AFFINE_F32
        view.scale_stride = 0
        view.zeros = nil
        let units = Unshared(view)
        Parallel.ranges(outputs, of: max(1, (1 << 18) / inputs)) { rows in
          withUnsafeTemporaryAllocation(of: Float.self, capacity: inputs) { scratch in
            guard let values = scratch.baseAddress else { return }
            for row in rows {
              var view = units.value
              pare_affine_decode_rows(&view, row, row + 1, values)
              if let columnGroups { Self.restore(columnGroups.order, 1, values) }
              let codes = target.value + row * inputs
              for column in 0..<inputs { codes[column] = UInt8(values[column] + half) }
            }
          }
        }
      }
    }
  }

  /// The matrix of a grid and its codes, as compressed-tensors would store it.
  ///
  /// - Parameters:
  ///   - codes: unsigned, `[outputs, inputs]` in the order of columns.
  ///   - isSymmetric: whether zero points are left out; nil where they all are the middle.
  /// - Throws: `CodecError.unsupportedSetting` for bits and groups that have no kernels,
  ///   `.wrongValue` for a group index that names groups of unequal length.
  package init(
    _ grid: OpenGrid, codes: [UInt8], isSymmetric: Bool? = nil,
    layout: AffineGroups.Layout = .packed
  ) throws(CodecError) {
    precondition(codes.count == grid.outputs * grid.inputs)
    let isSymmetric = isSymmetric ?? grid.isSymmetric
    precondition(!isSymmetric || grid.isSymmetric)
    let codec = try AffineGroups(
      bits: grid.bits, granularity: grid.groupSize.map { .group($0) } ?? .channel,
      isSymmetric: isSymmetric, scaleType: grid.scales.dtype, layout: layout,
      allowsShortLastGroup: grid.groupSize.map { grid.inputs % $0 != 0 } ?? false)
    let groups = codec.groupCount(inputs: grid.inputs)
    let outputs = grid.outputs
    var zeroPoints: Tensor?
    if !isSymmetric {
      if layout == .int8 {
        let half = grid.middle
        zeroPoints = Tensor(dtype: .int8, shape: [outputs, groups]) { target in
          for (index, zero) in grid.zeros.enumerated() { target[index] = zero &- half }
        }
      } else {
        zeroPoints = grid.packedZeros
      }
    }
    let plain = GroupQuantizedWeight(
      codec: codec, outputs: outputs, inputs: grid.inputs,
      codes: Self.stored(codes, codec, outputs, grid.inputs),
      scales: grid.scales.reshaped([outputs, groups]), zeroPoints: zeroPoints)
    guard let index = grid.groupIndex else {
      self = plain
      return
    }
    self = plain.sorted(
      by: try ColumnGroups(
        index: index, groupSize: grid.groupLength, component: AffineGroups.Suffix.groupIndex))
  }
}
