import CKernels
public import Tensors

extension NF4 {
  public func encode(_ weight: Tensor) throws(CodecError) -> NF4Weight {
    let exact = try scales(of: weight)
    guard isDoubleQuantized else { return encode(weight, scales: .plain(exact), fitting: exact) }
    let quantized = Self.quantized(exact)
    let outline = NF4Weight(
      codec: self, outputs: weight.shape[0], inputs: weight.shape[1], sourceType: weight.dtype,
      codes: Tensor(dtype: .uint8, shape: [(weight.count + 1) / 2, 1]) { _ in }, scales: quantized)
    return encode(
      weight, scales: quantized, fitting: fitsStoredScales ? outline.widenedScales : exact)
  }

  public func encode(_ weight: Tensor, onGridOf grid: NF4Weight) throws(CodecError) -> NF4Weight {
    precondition(grid.codec == self && weight.shape == [grid.outputs, grid.inputs])
    _ = try scales(of: weight)
    let encoded = encode(weight, scales: grid.scales, fitting: grid.widenedScales)
    return NF4Weight(
      codec: self, outputs: grid.outputs, inputs: grid.inputs, sourceType: grid.sourceType,
      codes: encoded.codes, scales: grid.scales)
  }

  /// Numbers that are read and rounded together, whole blocks of every size.
  private static let pieceSize = 1 << 16

  /// The largest magnitude of each block.
  private func scales(of weight: Tensor) throws(CodecError) -> Tensor {
    guard weight.shape.count == 2, weight.dtype.isFloatingPoint else {
      throw .unsupportedShape(shape: weight.shape, dtype: weight.dtype)
    }
    let (count, blockSize) = (weight.count, blockSize)
    let result = Tensor.zeros([blockCount(count)])
    let target = Unshared(UnsafeMutablePointer(mutating: result.floats))
    let pieces = (count + Self.pieceSize - 1) / Self.pieceSize
    let faults = Parallel.map(pieces) { piece -> Int? in
      Self.withValues(of: weight, piece: piece) { range, values in
        let bad = pare_nf4_scales(
          values, range.count, blockSize, target.value + range.lowerBound / blockSize)
        return bad < range.count ? range.lowerBound + bad : nil
      }
    }
    if let bad = faults.lazy.compactMap({ $0 }).first {
      throw .notFinite(row: bad / weight.shape[1], column: bad % weight.shape[1])
    }
    return result
  }

  private func encode(
    _ weight: Tensor, scales: NF4Weight.Scales, fitting grid: Tensor
  ) -> NF4Weight {
    let (count, blockSize) = (weight.count, blockSize)
    let grid = Unshared(grid.floats)
    let codes = Tensor(dtype: .uint8, shape: [(count + 1) / 2, 1]) { bytes in
      guard let base = bytes.bindMemory(to: UInt8.self).baseAddress else { return }
      let target = Unshared(base)
      Parallel.forEach((count + Self.pieceSize - 1) / Self.pieceSize) { piece in
        Self.withValues(of: weight, piece: piece) { range, values in
          pare_nf4_encode(
            values, range.count, blockSize, grid.value + range.lowerBound / blockSize,
            target.value + range.lowerBound / 2)
        }
      }
    }
    return NF4Weight(
      codec: self, outputs: weight.shape[0], inputs: weight.shape[1], sourceType: weight.dtype,
      codes: codes, scales: scales)
  }

  private static func withValues<R>(
    of weight: Tensor, piece: Int, _ body: (Range<Int>, UnsafePointer<Float>) -> R
  ) -> R {
    let range = (piece * pieceSize)..<min((piece + 1) * pieceSize, weight.count)
    let values = Tensor(shape: [range.count]) { target in
      if let base = target.baseAddress { weight.widen(range, into: base) }
    }
    return withExtendedLifetime(values) { body(range, values.floats) }
  }

  /// Scales less their mean, in 8-bit dynamic codes under a scale for each 256.
  private static func quantized(_ scales: Tensor) -> NF4Weight.Scales {
    let values = scales.array
    let sum = values.reduce(0.0) { $0 + Double($1) }
    let offset = Float(sum / Double(max(values.count, 1)))
    let levels = dynamicLevels
    let blocks = (values.count + scaleBlockSize - 1) / scaleBlockSize
    var scaleScales = [Float](repeating: 0, count: blocks)
    let codes = Tensor(dtype: .uint8, shape: [values.count]) { bytes in
      for block in 0..<blocks {
        let range = (block * scaleBlockSize)..<min((block + 1) * scaleBlockSize, values.count)
        let largest = range.reduce(Float(0)) { max($0, abs(values[$1] - offset)) }
        scaleScales[block] = largest
        for index in range {
          let steps = largest == 0 ? 0 : (values[index] - offset) / largest
          bytes[index] = UInt8(nearest(to: steps, in: levels))
        }
      }
    }
    return .quantized(
      codes: codes, levels: Tensor(levels, shape: [levels.count]),
      scales: Tensor(scaleScales, shape: [blocks]), offset: offset)
  }

  /// Index of the value nearest to `value` in an ascending list, the lower of two equally near.
  private static func nearest(to value: Float, in levels: [Float]) -> Int {
    var (low, high) = (0, levels.count - 1)
    while low < high {
      let middle = (low + high) / 2
      if Double(value) > (Double(levels[middle]) + Double(levels[middle + 1])) / 2 {
        low = middle + 1
      } else {
        high = middle
      }
    }
    return low
  }

  /// The 256 values of the 8-bit dynamic code (Dettmers 2016, arXiv:1511.04561, section 2.2): seven
  /// decades, each finer than the one below by half, with both signs; 0; and 1. Computed in float32 in
  /// the order that gives the same bits as PyTorch.
  static let dynamicLevels: [Float] = {
    var levels: [Float] = [0, 1]
    let decades: [Float] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]
    for (finer, decade) in decades.enumerated() {
      let steps = 1 << finer
      let first: Float = 0.1
      let width = (1 - first) / Float(steps)
      // Counted from the nearer end.
      let ends = (0...steps).map { step in
        step < (steps + 1) / 2
          ? first.addingProduct(width, Float(step))
          : (1 as Float).addingProduct(-width, Float(steps - step))
      }
      for step in 0..<steps {
        let value = decade * ((ends[step] + ends[step + 1]) / 2)
        levels += [value, -value]
      }
    }
    return levels.sorted()
  }()
}
