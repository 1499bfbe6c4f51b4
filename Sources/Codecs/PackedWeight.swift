import CKernels
public import Tensors

/// A quantized matrix in the form it is multiplied in: the codes and scales of its stored form, rows
/// interleaved so that a processor's byte dot products run down all of them at once.
///
/// Activations are rounded to 8 bits, each 32 columns of a token with a scale of their own, and
/// products of codes are summed exactly as integers. What a token gives is the same bits for every
/// instruction set, thread count and number of tokens beside it. The layouts are described in
/// `CKernels/include/packed.h`.
public struct PackedWeight: Weight {
  public let outputs: Int
  public let inputs: Int
  /// Of the form that was packed.
  public let storedBytes: Int
  /// Bytes of memory held; within 3 % of `storedBytes` for large matrices, except that TQ1_0 takes the
  /// 2 bits of TQ2_0.
  public var residentBytes: Int { storage.byteCount }

  private let storage: Storage
  /// Its `data` points into `storage`.
  let layout: Unshared<pare_packed>

  private init(layout: pare_packed, storage: Storage, storedBytes: Int) {
    var layout = layout
    layout.data = UnsafePointer(storage.base.assumingMemoryBound(to: UInt8.self))
    self.layout = Unshared(layout)
    self.storage = storage
    self.storedBytes = storedBytes
    outputs = layout.rows
    inputs = layout.columns
  }

  /// Packs the blocks of a GGUF tensor, giving their file pages back on the way.
  /// - Returns: nil for types without a packed form (F32, F16, BF16) and empty matrices.
  public init?(packing weight: BlockQuantizedWeight) {
    let type = weight.type.kernelType
    let layout = pare_packed_blocks_layout(type, weight.outputs, weight.inputs)
    guard layout.form != PARE_PACKED_NONE else { return nil }
    let storage = Self.pack(layout, rowBytes: weight.rowBytes) { layout, group, target in
      pare_pack_blocks(
        &layout, type, weight.blocks.rawPointer, weight.rowBytes, group, target)
    } giveBack: { rows in
      weight.blocks.rows(rows).giveBack()
    }
    weight.giveBack()
    self.init(layout: layout, storage: storage, storedBytes: weight.storedBytes)
  }

  /// Packs affine groups, giving the file pages of their codes back on the way.
  /// - Returns: nil where columns are not a multiple of 32, or groups neither 16 columns nor a
  ///   multiple of 32, or their columns no neighbours.
  public init?(packing weight: GroupQuantizedWeight) {
    let view = Unshared(weight.kernelView)
    let layout = Self.layout(of: weight)
    guard layout.form != PARE_PACKED_NONE else { return nil }
    let codes = weight.codes
    let storage = Self.pack(layout, rowBytes: view.value.code_stride) { layout, group, target in
      var source = view.value
      withUnsafeTemporaryAllocation(
        of: Float.self, capacity: Int(PARE_PACKED_ROWS) * weight.inputs
      ) { scratch in
        pare_pack_affine(&layout, &source, group, scratch.baseAddress, target)
      }
    } giveBack: { rows in
      codes.rows(rows).giveBack()
    }
    weight.giveBack()
    self.init(layout: layout, storage: storage, storedBytes: weight.storedBytes)
  }

  /// What a cache keeps: bytes `[groups, stride]`.
  package var data: Tensor {
    let groups = withUnsafePointer(to: layout.value) { pare_packed_groups($0) }
    return Tensor(dtype: .uint8, shape: [groups, layout.value.stride], storage: storage)
  }

  /// Takes packed bytes that an earlier start made of the same stored matrix; nothing is copied.
  /// - Returns: nil where the matrix has no packed form or `data` is not of its size.
  package init?(of weight: any StoredWeight, data: Tensor) {
    let layout: pare_packed
    switch weight {
    case let blocks as BlockQuantizedWeight:
      layout = pare_packed_blocks_layout(blocks.type.kernelType, blocks.outputs, blocks.inputs)
    case let groups as GroupQuantizedWeight:
      layout = Self.layout(of: groups)
    default: return nil
    }
    let groups = withUnsafePointer(to: layout) { pare_packed_groups($0) }
    guard layout.form != PARE_PACKED_NONE, data.dtype == .uint8,
      data.shape == [groups, layout.stride], data.byteOffset == 0
    else { return nil }
    self.init(layout: layout, storage: data.storage, storedBytes: weight.storedBytes)
  }

  private static func layout(of weight: GroupQuantizedWeight) -> pare_packed {
    // Rows of activations would have to be reordered before each product.
    guard weight.columnGroups == nil else {
      var none = pare_packed()
      none.form = PARE_PACKED_NONE
      return none
    }
    let view = weight.kernelView
    return pare_packed_affine_layout(
      weight.outputs, weight.inputs, view.group, view.bits, view.scale_type,
      view.zeros == nil ? 0 : 1)
  }

  /// Packs every row group by `body(layout, group, target)`, about a megabyte of rows at a time.
  private static func pack(
    _ layout: pare_packed, rowBytes: Int,
    _ body: @Sendable (inout pare_packed, Int, UnsafeMutablePointer<UInt8>) -> Void,
    giveBack: @Sendable (Range<Int>) -> Void
  ) -> Storage {
    let shared = Unshared(layout)
    let groups = withUnsafePointer(to: layout) { pare_packed_groups($0) }
    let storage = Storage(matrixByteCount: groups * layout.stride)
    let target = Unshared(storage.base.assumingMemoryBound(to: UInt8.self))
    let groupRows = Int(PARE_PACKED_ROWS)
    Parallel.ranges(groups, of: max(1, (1 << 20) / max(rowBytes * groupRows, 1))) { range in
      var layout = shared.value
      for group in range { body(&layout, group, target.value + group * layout.stride) }
      giveBack((range.lowerBound * groupRows)..<min(range.upperBound * groupRows, layout.rows))
    }
    return storage
  }

  public func rows(at ids: [Int]) -> Tensor {
    Tensor(shape: [ids.count, inputs]) { target in
      guard let base = target.baseAddress else { return }
      for (position, id) in ids.enumerated() {
        precondition(id >= 0 && id < outputs, "row \(id) of \(outputs)")
        dequantizeRows(id..<id + 1, into: base + position * inputs)
      }
    }
  }

  /// The values the stored form decodes to, bit for bit.
  public func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= outputs)
    var layout = layout.value
    for row in range {
      pare_packed_decode_row(&layout, row, target + (row - range.lowerBound) * inputs)
    }
  }
}
