import CKernels
import Calibration
import Codecs
import Tensors

/// Some rows on their way through all columns.
struct GPTQTile {
  let pass: GPTQPass
  let rows: Range<Int>
  /// Of the whole matrix: int8 `[outputs, inputs]`, `[outputs, groups]` and `[outputs, groups]`.
  let codes: UnsafeMutablePointer<Int8>
  let scales: UnsafeMutablePointer<Float>
  let zeros: UnsafeMutablePointer<Int8>

  private static let lanes = Int(PARE_GPTQ_LANES)

  private var inputs: Int { pass.inputs }
  private var groups: Int { pass.groups }
  private var slabs: Int { (rows.count + Self.lanes - 1) / Self.lanes }

  /// - Parameter weights: float32, the rows as they were.
  /// - Returns: ‖e‖² of each row.
  func solve(_ weights: Tensor) throws(CompressionError) -> [Double] {
    var losses = [Double](repeating: 0, count: slabs * Self.lanes)
    let scratch = Scratch(
      rows: rows.count, slabs: slabs, inputs: inputs, groups: groups,
      block: min(pass.method.blockSize, inputs))
    let work = scratch.work
    pass.solver.start(of: weights.floats, rows.count, into: work)
    let order = pass.method.order
    if order != .group { try fitOriginal(work, scratch) }
    if order != .none { permute(work) }
    if order == .group { try fitOriginal(work, scratch) }

    let upper = pass.solver.upper.floats
    var start = 0
    while start < inputs {
      let end = blockEnd(from: start)
      let count = end - start
      pare_gptq_gather(work + start, inputs, rows.count, count, scratch.lanes)
      try roundBlock(start..<end, upper + start * inputs + start, scratch)
      pare_gptq_add_squares(scratch.lanes, slabs, count, &losses)
      pass.columns.withUnsafeBufferPointer { columns in
        guard let columns = columns.baseAddress else { return }
        pare_gptq_scatter_codes(
          scratch.codes, rows.count, count, columns + start, codes + rows.lowerBound * inputs,
          inputs)
      }
      if end < inputs {
        pare_gptq_columns(scratch.lanes, slabs, count, scratch.errors)
        TiledProduct.multiply(
          rows.count, inputs - end, count, scratch.errors, slabs * Self.lanes, true,
          upper + start * inputs + end, inputs, false, into: work + end, inputs, scale: -1,
          adding: true)
      }
      start = end
    }
    return losses
  }

  /// Where a block ends: a group that is fitted when reached must not begin in a block and go on
  /// beyond it, since columns beyond lack the errors of the block.
  private func blockEnd(from start: Int) -> Int {
    let end = min(start + pass.method.blockSize, inputs)
    guard pass.fitsWhenReached, end < inputs else { return end }
    let lastGroup = end / pass.groupSize * pass.groupSize
    return lastGroup > start ? lastGroup : end
  }

  private func roundBlock(
    _ block: Range<Int>, _ factor: UnsafePointer<Float>, _ scratch: Scratch
  ) throws(CompressionError) {
    var first = block.lowerBound
    while first < block.upperBound {
      var last = block.upperBound
      if pass.fitsWhenReached {
        let groupEnd = min((first / pass.groupSize + 1) * pass.groupSize, inputs)
        last = min(last, groupEnd)
        if first % pass.groupSize == 0 { try fit(first..<groupEnd, block, scratch) }
      }
      pass.columnGroups.withUnsafeBufferPointer { columnGroups in
        var job = pare_gptq_block()
        job.slabs = slabs
        job.columns = block.count
        job.weights = scratch.lanes
        job.factor = factor
        job.factor_stride = inputs
        job.scales = UnsafePointer(scratch.scaleLanes)
        job.zeros = UnsafePointer(scratch.zeroLanes)
        job.groups = groups
        job.column_groups = columnGroups.baseAddress.map { $0 + block.lowerBound }
        job.bits = Int32(pass.method.codec.bits)
        job.codes = scratch.codes
        pare_gptq_round(&job, first - block.lowerBound, last - block.lowerBound)
      }
      first = last
    }
  }

  /// The grid of a group whose columns are up to date: those of the block in lanes, those beyond in
  /// rows.
  private func fit(_ group: Range<Int>, _ block: Range<Int>, _ scratch: Scratch)
    throws(CompressionError)
  {
    let inside = group.clamped(to: block)
    let values = scratch.group(columns: group.count)
    pare_gptq_scatter(
      scratch.lanes, rows.count, block.count, inside.lowerBound - block.lowerBound,
      inside.upperBound - block.lowerBound, values, group.count)
    if inside.count < group.count {
      for row in 0..<rows.count {
        (values + row * group.count + inside.count).update(
          from: scratch.work + row * inputs + inside.upperBound,
          count: group.count - inside.count)
      }
    }
    let index = group.lowerBound / pass.groupSize
    try chooseGrids(of: values, columns: group.count, from: index, scratch) { _ in
      // Errors that were carried here have grown past all bounds.
      .notPositiveDefinite(damping: pass.method.damping)
    }
  }

  /// All grids of the rows, from weights that no error has reached.
  private func fitOriginal(_ values: UnsafePointer<Float>, _ scratch: Scratch)
    throws(CompressionError)
  {
    if let whole = pass.wholeGrid {
      (scales + rows.lowerBound).update(repeating: whole.scales[0], count: rows.count)
      (zeros + rows.lowerBound).update(repeating: whole.zeros[0], count: rows.count)
      spread(0..<1, scratch)
    } else if !pass.fitsWhenReached {
      try chooseGrids(of: values, columns: inputs, from: 0, scratch) { fault in
        .notFinite(row: rows.lowerBound + fault.row, column: fault.column)
      }
    }
  }

  /// Grids of groups from `first` on, by the quantizer that rounds to nearest.
  private func chooseGrids(
    of values: UnsafePointer<Float>, columns: Int, from first: Int, _ scratch: Scratch,
    notFinite: (pare_affine_fault) -> CompressionError
  ) throws(CompressionError) {
    let codec = pass.method.codec
    let count = (columns + pass.groupSize - 1) / pass.groupSize
    let stored = Storage(byteCount: rows.count * count * 4)
    let points = Storage(byteCount: rows.count * count)
    let ignored = Storage(byteCount: rows.count * columns)
    let floats = Storage(byteCount: pare_affine_scratch_floats(columns, pass.groupSize) * 4)
    var job = pare_affine_job()
    job.source = UnsafeRawPointer(values)
    job.source_type = PARE_AFFINE_F32
    job.columns = columns
    job.group = pass.groupSize
    job.bits = Int32(codec.bits)
    job.symmetric = codec.isSymmetric ? 1 : 0
    job.scale_type = codec.scaleType.affineType
    (job.candidates, job.grid) = (Int32(pass.choice.candidates.count), pass.choice.candidates.grid)
    job.codes = ignored.base
    job.code_stride = columns
    job.scales = stored.base
    job.zeros = points.base.assumingMemoryBound(to: Int8.self)
    var fault = pare_affine_fault()
    let status = pare_affine_quantize_rows(
      &job, 0, rows.count, floats.base.assumingMemoryBound(to: Float.self), &fault)
    if status == PARE_AFFINE_NOT_FINITE { throw notFinite(fault) }
    guard status == PARE_AFFINE_OK else {
      throw .codec(
        .scaleOverflow(
          row: rows.lowerBound + fault.row, column: first * pass.groupSize + fault.column,
          scaleType: codec.scaleType))
    }
    for row in 0..<rows.count {
      let target = (rows.lowerBound + row) * groups + first
      pare_affine_load(
        stored.base + row * count * codec.scaleType.byteCount, count, codec.scaleType.affineType,
        scales + target)
      (zeros + target).update(
        from: points.base.assumingMemoryBound(to: Int8.self) + row * count, count: count)
    }
    spread(first..<first + count, scratch)
  }

  /// Grids in the kernel's lanes; rows that do not exist have scale 1.
  private func spread(_ range: Range<Int>, _ scratch: Scratch) {
    for row in 0..<slabs * Self.lanes {
      let (slab, lane) = (row / Self.lanes, row % Self.lanes)
      for group in range {
        let at = (slab * groups + group) * Self.lanes + lane
        let source = (rows.lowerBound + row) * groups + group
        scratch.scaleLanes[at] = row < rows.count ? scales[source] : 1
        scratch.zeroLanes[at] = row < rows.count ? Float(zeros[source]) : 0
      }
    }
  }

  /// Columns in the order they are rounded.
  private func permute(_ work: UnsafeMutablePointer<Float>) {
    let line = Storage(byteCount: inputs * 4)
    let copy = line.base.assumingMemoryBound(to: Float.self)
    pass.columns.withUnsafeBufferPointer { columns in
      for row in 0..<rows.count {
        let target = work + row * inputs
        copy.update(from: target, count: inputs)
        for place in 0..<inputs { target[place] = copy[Int(columns[place])] }
      }
    }
  }

  /// Memory that a tile works in.
  private final class Scratch {
    private let floats: Storage
    private let bytes: Storage
    private var groupValues: Storage?
    private let rows: Int
    /// `[rows, inputs]`, columns in solving order.
    let work: UnsafeMutablePointer<Float>
    /// A block's weights, then its errors.
    let lanes: UnsafeMutablePointer<Float>
    /// The errors by columns.
    let errors: UnsafeMutablePointer<Float>
    let scaleLanes: UnsafeMutablePointer<Float>
    let zeroLanes: UnsafeMutablePointer<Float>
    let codes: UnsafeMutablePointer<Int8>

    init(rows: Int, slabs: Int, inputs: Int, groups: Int, block: Int) {
      self.rows = rows
      let height = slabs * GPTQTile.lanes
      let size = rows * inputs + 2 * height * (block + groups) + 64
      floats = Storage(matrixByteCount: size * 4)
      bytes = Storage(byteCount: height * block)
      lanes = floats.base.assumingMemoryBound(to: Float.self)
      errors = lanes + height * block
      scaleLanes = errors + height * block
      zeroLanes = scaleLanes + height * groups
      work = zeroLanes + height * groups
      codes = bytes.base.assumingMemoryBound(to: Int8.self)
    }

    func group(columns: Int) -> UnsafeMutablePointer<Float> {
      let needed = rows * columns * 4
      if let groupValues, groupValues.byteCount >= needed {
        return groupValues.base.assumingMemoryBound(to: Float.self)
      }
      let storage = Storage(byteCount: needed)
      groupValues = storage
      return storage.base.assumingMemoryBound(to: Float.self)
    }
  }
}
