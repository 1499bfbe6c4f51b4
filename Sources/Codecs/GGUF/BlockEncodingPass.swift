import CKernels
import Tensors

/// The walk over a matrix's rows behind `GGUFBlocks.encode`: tiles of rows spread over the pool; each
/// row is widened, encoded, opened again and compared while it is in cache.
struct BlockEncodingPass {
  let type: GGUFType
  /// `[outputs, inputs]`.
  let source: Tensor
  let importance: [Float]?
  /// When not nil, its scales are kept and only codes are chosen.
  var grid: BlockQuantizedWeight?

  private var outputs: Int { source.shape[0] }
  private var inputs: Int { source.shape[1] }
  /// Weights of a tile: the slowest search takes a few milliseconds for them.
  private static let tileWeights = 1 << 16

  func run() throws(CodecError) -> (weight: BlockQuantizedWeight, error: EncodingError) {
    let (outputs, inputs) = (outputs, inputs)
    let rowBytes = type.rowBytes(inputs: inputs)
    let blocks = Storage(byteCount: outputs * rowBytes)
    var error = EncodingError(
      squaredError: 0, squaredWeight: 0, largestError: 0, count: outputs * inputs)
    if inputs > 0 {
      let tileRows = max(1, Self.tileWeights / inputs)
      let tiles = Parallel.map((outputs + tileRows - 1) / tileRows) { tile in
        encodeRows(
          tile * tileRows..<min((tile + 1) * tileRows, outputs), into: blocks.base,
          rowBytes: rowBytes)
      }
      // In order, so that neither the sums nor the first fault depend on threads.
      for tile in tiles {
        if let fault = tile.fault { throw fault }
        error.squaredError += tile.sums.squared_error
        error.squaredWeight += tile.sums.squared_weight
        error.largestError = max(error.largestError, tile.sums.largest_error)
      }
    }
    let weight = BlockQuantizedWeight(
      type: type, outputs: outputs, inputs: inputs,
      blocks: Tensor(dtype: .uint8, shape: [outputs, rowBytes], storage: blocks))
    return (weight, error)
  }

  private struct Tile: Sendable {
    var sums = pare_block_error()
    var fault: CodecError?
  }

  private func encodeRows(
    _ rows: Range<Int>, into blocks: UnsafeMutableRawPointer, rowBytes: Int
  ) -> Tile {
    withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * inputs) { scratch in
      var tile = Tile()
      guard let row = scratch.baseAddress else { return tile }
      let opened = row + inputs
      for index in rows {
        source.widen(index * inputs..<(index + 1) * inputs, into: row)
        let target = blocks + index * rowBytes
        var at = 0
        switch encodeRow(index, row, into: target, fault: &at) {
        case PARE_BLOCK_OK: break
        case PARE_BLOCK_NOT_FINITE:
          tile.fault = .notFinite(row: index, column: at)
          return tile
        default:
          tile.fault = .blockScaleOverflow(row: index, column: at, type: type)
          return tile
        }
        pare_block_decode(type.kernelType, target, inputs, opened)
        pare_block_compare(row, opened, inputs, &tile.sums)
      }
      return tile
    }
  }

  private func encodeRow(
    _ index: Int, _ row: UnsafePointer<Float>, into target: UnsafeMutableRawPointer,
    fault: inout Int
  ) -> pare_block_status {
    if let grid {
      target.copyMemory(
        from: grid.blocks.rawPointer + index * grid.rowBytes, byteCount: grid.rowBytes)
      return pare_block_recode(type.kernelType, row, inputs, target, &fault)
    }
    guard let importance else {
      return pare_block_encode(type.kernelType, row, inputs, nil, target, &fault)
    }
    return pare_block_encode(type.kernelType, row, inputs, importance, target, &fault)
  }
}
