package import CKernels
import Tensors

/// The walk over a matrix's rows behind `AffineGroups.encode`: tiles of rows spread over the pool,
/// each tile a call of the C quantizer that reads, rounds and packs.
struct EncodingPass {
  let codec: AffineGroups
  /// `[outputs, inputs]`.
  let source: Tensor

  private var outputs: Int { source.shape[0] }
  private var inputs: Int { source.shape[1] }
  private var groupSize: Int { codec.groupSize(inputs: inputs) }
  private var groups: Int { codec.groupCount(inputs: inputs) }
  /// About a megabyte of source: enough work for a claim, little enough to stay in cache.
  private var tileRows: Int { max(1, 524_288 / max(inputs, 1)) }
  private var tiles: Int { (outputs + tileRows - 1) / tileRows }

  func quantize(choosing choice: GridChoice)
    throws(CodecError) -> (weight: GroupQuantizedWeight, error: EncodingError)
  {
    let isPacked = codec.layout == .packed
    let words = (inputs * codec.bits + 31) / 32
    let rowBytes = isPacked ? words * 4 : inputs
    let codes = Storage(byteCount: outputs * rowBytes)
    let scaleBytes = codec.scaleType.byteCount
    let scales = Storage(byteCount: outputs * groups * scaleBytes)
    let zeros = Storage(byteCount: outputs * groups)
    let sums = Storage(byteCount: outputs * 20)
    let squaredError = sums.base.assumingMemoryBound(to: Double.self)
    let squaredWeight = squaredError + outputs
    let largestError = UnsafeMutableRawPointer(squaredWeight + outputs)
      .assumingMemoryBound(to: Float.self)

    try forEachTile { [groups] tile, rows, scratch, fault in
      var job = tile
      (job.candidates, job.grid) = (Int32(choice.candidates.count), choice.candidates.grid)
      job.packed = isPacked ? 1 : 0
      job.codes = codes.base + rows.lowerBound * rowBytes
      job.code_stride = rowBytes
      job.scales = scales.base + rows.lowerBound * groups * scaleBytes
      job.zeros = zeros.base.assumingMemoryBound(to: Int8.self) + rows.lowerBound * groups
      job.squared_error = squaredError + rows.lowerBound
      job.squared_weight = squaredWeight + rows.lowerBound
      job.largest_error = largestError + rows.lowerBound
      guard case .given(let grids) = choice else {
        return pare_affine_quantize_rows(&job, 0, rows.count, scratch, &fault)
      }
      let first = rows.lowerBound * grids.perRow
      return grids.scales.withUnsafeBufferPointer { scales in
        grids.zeros.withUnsafeBufferPointer { zeros in
          job.given_scales = scales.baseAddress.map { $0 + first }
          job.given_zeros = zeros.baseAddress.map { $0 + first }
          job.given_stride = grids.perRow
          return pare_affine_quantize_rows(&job, 0, rows.count, scratch, &fault)
        }
      }
    }

    var error = EncodingError(
      squaredError: 0, squaredWeight: 0, largestError: 0, count: outputs * inputs)
    for row in 0..<outputs {
      error.squaredError += squaredError[row]
      error.squaredWeight += squaredWeight[row]
      error.largestError = max(error.largestError, largestError[row])
    }
    let codeTensor =
      isPacked
      ? Tensor(dtype: .int32, shape: [outputs, words], storage: codes)
      : Tensor(dtype: .int8, shape: [outputs, inputs], storage: codes)
    let scaleTensor: Tensor
    let zeroTensor: Tensor?
    if case .given(let grids) = choice {
      scaleTensor = storedScales(grids)
      zeroTensor = storedZeros(grids)
    } else {
      scaleTensor = Tensor(
        dtype: codec.scaleType, shape: codec.scaleShape(outputs: outputs, inputs: inputs),
        storage: scales)
      let zeroPoints = UnsafeBufferPointer(
        start: zeros.base.assumingMemoryBound(to: Int8.self), count: outputs * groups)
      zeroTensor = codec.isSymmetric ? nil : storedZeros(Array(zeroPoints))
    }
    let weight = GroupQuantizedWeight(
      codec: codec, outputs: outputs, inputs: inputs, codes: codeTensor, scales: scaleTensor,
      zeroPoints: zeroTensor)
    return (weight, error)
  }

  /// The one grid of a whole tensor: its range, or the best of the shrunken ranges, whose errors
  /// are all summed in one pass.
  func wholeTensorGrid(choosing choice: GridChoice) throws(CodecError) -> AffineGrids {
    let ends = Storage(byteCount: outputs * 8)
    let lows = ends.base.assumingMemoryBound(to: Float.self)
    let highs = lows + outputs
    try forEachTile { job, rows, scratch, fault in
      var job = job
      return pare_affine_range_rows(
        &job, 0, rows.count, scratch, lows + rows.lowerBound, highs + rows.lowerBound, &fault)
    }
    var low: Float = 0
    var high: Float = 0
    for row in 0..<outputs {
      low = min(low, lows[row])
      high = max(high, highs[row])
    }
    let (count, grid) = choice.candidates
    var scales: [Float] = []
    var zeros: [Int8] = []
    for candidate in 0..<count {
      let shrink = candidate == 0 ? 1 : 1 - Float(candidate) / grid
      var zero: Int8 = 0
      let scale = pare_affine_grid(
        low * shrink, high * shrink, Int32(codec.bits), codec.isSymmetric ? 1 : 0,
        codec.scaleType.affineType, &zero)
      guard scale.isFinite else {
        throw .scaleOverflow(row: 0, column: 0, scaleType: codec.scaleType)
      }
      if scales.last == scale, zeros.last == zero { continue }
      scales.append(scale)
      zeros.append(zero)
    }
    guard scales.count > 1 else { return AffineGrids(scales: scales, zeros: zeros, perRow: 0) }

    let candidates = scales.count
    let errors = Storage(byteCount: tiles * candidates * 8)
    let perTile = errors.base.assumingMemoryBound(to: Double.self)
    try forEachTile { [scales, zeros, tileRows] job, rows, scratch, fault in
      var job = job
      pare_affine_candidate_errors(
        &job, 0, rows.count, scratch, scales, zeros, candidates,
        perTile + rows.lowerBound / tileRows * candidates)
      return PARE_AFFINE_OK
    }
    var best = 0
    var least = Double.infinity
    for candidate in 0..<candidates {
      let error = (0..<tiles).reduce(0.0) { $0 + perTile[$1 * candidates + candidate] }
      if error < least { (best, least) = (candidate, error) }
    }
    return AffineGrids(scales: [scales[best]], zeros: [zeros[best]], perRow: 0)
  }

  /// Calls the body for each tile of rows, tiles in parallel. The job's source starts at the tile.
  private func forEachTile(
    _ body: (
      _ job: pare_affine_job, _ rows: Range<Int>, _ scratch: UnsafeMutablePointer<Float>,
      _ fault: inout pare_affine_fault
    ) -> pare_affine_status
  ) throws(CodecError) {
    guard inputs > 0, outputs > 0 else { return }
    let faults = TileFaults(count: tiles)
    let scratchFloats = max(pare_affine_scratch_floats(inputs, groupSize), inputs + 64)
    withoutActuallyEscaping(body) { body in
      let body = Unshared(body)
      Parallel.forEach(tiles) { tile in
        let rows = tile * tileRows..<min((tile + 1) * tileRows, outputs)
        var part = source.rows(rows)
        if ![.float32, .float16, .bfloat16].contains(part.dtype) { part = part.widened() }
        var job = pare_affine_job()
        job.source = part.rawPointer
        job.source_type = part.dtype.affineType
        job.columns = inputs
        job.group = groupSize
        job.bits = Int32(codec.bits)
        job.symmetric = codec.isSymmetric ? 1 : 0
        job.scale_type = codec.scaleType.affineType
        let scratch = Storage(byteCount: scratchFloats * 4)
        var fault = pare_affine_fault()
        let status = withExtendedLifetime(part) {
          body.value(job, rows, scratch.base.assumingMemoryBound(to: Float.self), &fault)
        }
        guard status != PARE_AFFINE_OK else { return }
        let row = rows.lowerBound + fault.row
        faults.record(
          status == PARE_AFFINE_NOT_FINITE
            ? .notFinite(row: row, column: fault.column)
            : .scaleOverflow(row: row, column: fault.column, scaleType: codec.scaleType),
          tile: tile)
      }
    }
    if let first = faults.first { throw first }
  }

  func storedScales(_ grids: AffineGrids) -> Tensor {
    let shape = codec.scaleShape(outputs: outputs, inputs: inputs)
    return Tensor(dtype: codec.scaleType, shape: shape) { bytes in
      guard let base = bytes.baseAddress else { return }
      grids.scales.withUnsafeBufferPointer { scales in
        guard let first = scales.baseAddress else { return }
        pare_affine_store(first, scales.count, codec.scaleType.affineType, base)
      }
    }
  }

  func storedZeros(_ grids: AffineGrids) -> Tensor? {
    codec.isSymmetric ? nil : storedZeros(grids.zeros)
  }

  private func storedZeros(_ zeros: [Int8]) -> Tensor {
    if codec.layout == .int8 || codec.granularity == .tensor {
      let shape = codec.scaleShape(outputs: outputs, inputs: inputs)
      return Tensor(dtype: .int8, shape: shape) { bytes in
        zeros.withUnsafeBytes { bytes.copyMemory(from: $0) }
      }
    }
    return Tensor(dtype: .int32, shape: [(outputs * codec.bits + 31) / 32, groups]) { bytes in
      let words = bytes.bindMemory(to: UInt32.self)
      guard let base = words.baseAddress else { return }
      pare_affine_pack_zeros(zeros, outputs, groups, Int32(codec.bits), base)
    }
  }
}

/// The first fault by tile order, whatever order tiles ran in.
///
/// `@unchecked Sendable`: each tile writes its own element.
private final class TileFaults: @unchecked Sendable {
  private let faults: UnsafeMutableBufferPointer<CodecError?>

  init(count: Int) {
    faults = .allocate(capacity: count)
    faults.initialize(repeating: nil)
  }

  func record(_ fault: CodecError, tile: Int) { faults[tile] = fault }
  var first: CodecError? { faults.lazy.compactMap { $0 }.first }

  deinit {
    faults.deinitialize()
    faults.deallocate()
  }
}

extension DType {
  /// The C quantizer's name of a type it reads or rounds scales to.
  package var affineType: pare_affine_type {
    switch self {
    case .float16: PARE_AFFINE_F16
    case .bfloat16: PARE_AFFINE_BF16
    default: PARE_AFFINE_F32
    }
  }
}
