import CKernels
public import Tensors

/// A matrix kept as affine integer codes, multiplied straight from them: the expanded matrix never
/// exists, only tiles of it.
public struct GroupQuantizedWeight: StoredWeight {
  public let codec: AffineGroups
  public let outputs: Int
  public let inputs: Int
  /// Packed int32 `[outputs, words]` or int8 `[outputs, inputs]`, mapped or owned.
  package let codes: Tensor
  /// As stored: `codec.scaleShape`.
  package let scales: Tensor
  /// As stored; nil when symmetric.
  package let zeroPoints: Tensor?
  /// Whether 3-, 5- and 6-bit codes leave the top bits of each word empty, as older writers did.
  package let hasGaps: Bool
  /// Where groups are not neighbours: codes are then kept in its order, a group after the other.
  package let columnGroups: ColumnGroups?
  /// Zero points one byte each, `[outputs, groups]` or `[1]`: what the kernels read.
  private let zeros: Tensor?

  package init(
    codec: AffineGroups, outputs: Int, inputs: Int, codes: Tensor, scales: Tensor,
    zeroPoints: Tensor?, hasGaps: Bool = false, columnGroups: ColumnGroups? = nil
  ) {
    self.codec = codec
    self.outputs = outputs
    self.inputs = inputs
    self.codes = codes
    self.scales = scales
    self.zeroPoints = zeroPoints
    self.hasGaps = hasGaps
    self.columnGroups = columnGroups
    guard let zeroPoints, zeroPoints.dtype == .int32 else {
      zeros = zeroPoints
      return
    }
    let groups = codec.groupCount(inputs: inputs)
    zeros = Tensor(dtype: .int8, shape: [outputs, groups]) { bytes in
      guard let base = bytes.bindMemory(to: Int8.self).baseAddress else { return }
      pare_affine_unpack_zeros(
        zeroPoints.rawPointer, outputs, groups, Int32(codec.bits), base)
    }
  }

  public func encoded() -> [(suffix: String, tensor: Tensor)] {
    var components: [(suffix: String, tensor: Tensor)] = []
    let codes = codesInColumnOrder
    switch codec.layout {
    case .packed:
      let shape = Tensor(dtype: .int64, shape: [2]) { bytes in
        bytes.storeBytes(of: Int64(outputs).littleEndian, toByteOffset: 0, as: Int64.self)
        bytes.storeBytes(of: Int64(inputs).littleEndian, toByteOffset: 8, as: Int64.self)
      }
      components = [
        (AffineGroups.Suffix.packed, codes), (AffineGroups.Suffix.scale, scales),
        (AffineGroups.Suffix.shape, shape),
      ]
    case .int8:
      components = [(AffineGroups.Suffix.weight, codes), (AffineGroups.Suffix.scale, scales)]
    }
    if let zeroPoints { components.append((AffineGroups.Suffix.zeroPoint, zeroPoints)) }
    if let columnGroups {
      components.append(
        (
          AffineGroups.Suffix.groupIndex, Tensor(columnGroups.index)
        ))
    }
    return components
  }

  public var storedBytes: Int {
    codes.byteCount + scales.byteCount + (zeroPoints?.byteCount ?? 0)
      + (codec.layout == .packed ? 16 : 0) + (columnGroups == nil ? 0 : inputs * 4)
  }

  public func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    return recordingInput(x, packedProduct(x))
  }

  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    guard !range.isEmpty, inputs > 0 else { return }
    var source = kernelView
    pare_affine_decode_rows(&source, range.lowerBound, range.upperBound, target)
    if let columnGroups { Self.restore(columnGroups.order, range.count, target) }
  }

  public func giveBack() {
    codes.giveBack()
    scales.giveBack()
  }

  /// The integer code of every weight, `[outputs, inputs]` in row order.
  package var integerCodes: [Int8] {
    var view = kernelView
    view.scales = nil
    let one: Float = 1
    var values = [Float](repeating: 0, count: outputs * inputs)
    withUnsafePointer(to: one) { one in
      view.scales = UnsafeRawPointer(one)
      view.scale_type = PARE_AFFINE_F32
      view.scale_stride = 0
      view.zeros = nil
      pare_affine_decode_rows(&view, 0, outputs, &values)
    }
    if let columnGroups {
      values.withUnsafeMutableBufferPointer { values in
        guard let base = values.baseAddress else { return }
        Self.restore(columnGroups.order, outputs, base)
      }
    }
    return values.map { Int8($0) }
  }

  /// The grids widened, for encoding on them again.
  package var grids: AffineGrids {
    var widened = [Float](repeating: 0, count: scales.count)
    pare_affine_load(scales.rawPointer, scales.count, codec.scaleType.affineType, &widened)
    let zeros = self.zeros.map { zeros in zeros.bytes.map { Int8(bitPattern: $0) } }
    return AffineGrids(
      scales: widened, zeros: zeros ?? [Int8](repeating: 0, count: scales.count),
      perRow: codec.granularity == .tensor ? 0 : codec.groupCount(inputs: inputs))
  }

  /// What the C kernels read; valid while this weight is.
  var kernelView: pare_affine_codes {
    var view = pare_affine_codes()
    view.columns = inputs
    view.group = codec.groupSize(inputs: inputs)
    view.bits = Int32(codec.bits)
    view.packed = codec.layout == .packed ? 1 : 0
    view.dense = hasGaps ? 0 : 1
    view.codes = codes.rawPointer
    view.code_stride = codes.columns * codes.dtype.byteCount
    view.scales = scales.rawPointer
    view.scale_type = codec.scaleType.affineType
    view.zeros = zeros?.rawPointer.assumingMemoryBound(to: Int8.self)
    view.scale_stride = codec.granularity == .tensor ? 0 : codec.groupCount(inputs: inputs)
    return view
  }
}

extension AffineGroups {
  public func halfStep(at value: Float, row: Int, column: Int, in weight: GroupQuantizedWeight)
    -> Float?
  {
    let grids = weight.grids
    let group =
      weight.columnGroups.map { Int($0.index[column]) } ?? column / groupSize(inputs: weight.inputs)
    let at = grids.perRow == 0 ? 0 : row * grids.perRow + group
    let steps = Double(value) / Double(grids.scales[at]) + Double(grids.zeros[at])
    guard steps >= Double(lowestCode), steps <= Double(highestCode) else { return nil }
    return abs(grids.scales[at]) / 2
  }
}
