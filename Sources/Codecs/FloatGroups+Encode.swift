import CKernels
public import Tensors

/// How a group's scale is chosen.
package enum FloatScaleChoice: Sendable {
  /// So that the largest magnitude just fits.
  case range
  /// The one of several near that which errs least in squares; the range's own among equals.
  case search
  /// Those of a weight.
  case given(FloatGroupsWeight)
}

extension FloatGroups {
  public func encode(_ weight: Tensor) throws(CodecError) -> FloatGroupsWeight {
    try encode(weight, choosing: .range).weight
  }

  public func encode(_ weight: Tensor, onGridOf grid: FloatGroupsWeight)
    throws(CodecError) -> FloatGroupsWeight
  {
    precondition(grid.codec == self && weight.shape == [grid.outputs, grid.inputs])
    return try encode(weight, choosing: .given(grid)).weight
  }

  /// Tiles of rows are read, rounded and packed side by side; errors are summed row by row in order,
  /// so the result does not depend on the number of threads.
  package func encode(_ weight: Tensor, choosing choice: FloatScaleChoice)
    throws(CodecError) -> (weight: FloatGroupsWeight, error: EncodingError)
  {
    guard weight.shape.count == 2, weight.dtype.isFloatingPoint else {
      throw .unsupportedShape(shape: weight.shape, dtype: weight.dtype)
    }
    if case .group(let size) = granularity, weight.shape[1] % size != 0 {
      throw .groupDoesNotDivide(inputs: weight.shape[1], groupSize: size)
    }
    return try FloatEncodingPass(codec: self, source: weight).run(choosing: choice)
  }
}

/// The walk over a matrix's rows behind `FloatGroups.encode`.
private struct FloatEncodingPass {
  let codec: FloatGroups
  /// `[outputs, inputs]`.
  let source: Tensor

  var outputs: Int { source.shape[0] }
  var inputs: Int { source.shape[1] }
  var groupSize: Int { codec.groupSize(inputs: inputs) }
  var groups: Int { codec.groupCount(inputs: inputs) }
  var isWhole: Bool { codec.granularity == .tensor }

  func run(choosing choice: FloatScaleChoice)
    throws(CodecError) -> (weight: FloatGroupsWeight, error: EncodingError)
  {
    let largest = try largestMagnitudes()
    let global = globalScale(largest.max() ?? 0, choice)
    // As stored: E4M3 values and powers of two are numbers here too.
    var scales: [Float]
    switch choice {
    case .given(let weight): scales = storedScales(of: weight)
    case .range:
      scales =
        isWhole
        ? [codec.scales(covering: largest.max() ?? 0, global: global, searching: false)[0]]
        : largest.map { codec.scales(covering: $0, global: global, searching: false)[0] }
    case .search:
      scales =
        isWhole
        ? [bestWholeScale(largest.max() ?? 0)] : bestScales(largest, global: global)
    }
    if let bad = scales.firstIndex(where: { !$0.isFinite }) {
      let (row, group) = isWhole ? (0, 0) : (bad / groups, bad % groups)
      throw .scaleOverflow(row: row, column: group * groupSize, scaleType: codec.scaleType)
    }
    return encode(scales, global: global)
  }

  /// Of each row and group.
  private func largestMagnitudes() throws(CodecError) -> [Float] {
    let (group, groups) = (groupSize, groups)
    var result = [Float](repeating: 0, count: outputs * groups)
    guard inputs > 0 else { return result }
    result.withUnsafeMutableBufferPointer { result in
      guard let base = result.baseAddress else { return }
      let target = Unshared(base)
      forEachTile { rows, values in
        for index in 0..<rows.count * groups {
          let (row, start) = (index / groups, index % groups * group)
          target.value[rows.lowerBound * groups + index] = pare_float_largest(
            values + row * inputs + start, min(group, inputs - start))
        }
      }
    }
    if let bad = result.firstIndex(where: { !$0.isFinite }) {
      let (row, first) = (bad / groups, bad % groups * group)
      let values = source.rows(row..<row + 1).widened()
      let column = (first..<inputs).first { !values.floats[$0].isFinite } ?? first
      throw .notFinite(row: row, column: column)
    }
    return result
  }

  /// G, which maps the largest scale of the matrix to the largest E4M3 number.
  private func globalScale(_ largest: Float, _ choice: FloatScaleChoice) -> Float? {
    guard codec.format == .nvfp4 else { return nil }
    if case .given(let weight) = choice { return weight.globalScale?.array.first ?? 1 }
    // A product with the reciprocal, as PyTorch divides a number by a tensor: an ulp apart at times.
    let global = 448 * 6 * (1 / max(largest, Float.leastNormalMagnitude))
    return global.isFinite ? global : 1
  }

  private func bestScales(_ largest: [Float], global: Float?) -> [Float] {
    let (group, groups) = (groupSize, groups)
    var result = largest
    guard inputs > 0 else { return result }
    result.withUnsafeMutableBufferPointer { result in
      guard let base = result.baseAddress else { return }
      let target = Unshared(base)
      forEachTile { rows, values in
        for index in 0..<rows.count * groups {
          let (row, start) = (index / groups, index % groups * group)
          let at = rows.lowerBound * groups + index
          let candidates = codec.scales(covering: largest[at], global: global, searching: true)
          var least = Double.infinity
          target.value[at] = candidates[0]
          for scale in candidates where scale.isFinite {
            let error = pare_float_error(
              codec.kind, values + row * inputs + start, min(group, inputs - start),
              scale / (global ?? 1), nil, nil)
            if error < least { (least, target.value[at]) = (error, scale) }
          }
        }
      }
    }
    return result
  }

  /// The one scale of a matrix: every candidate's errors are summed in one pass.
  private func bestWholeScale(_ largest: Float) -> Float {
    let candidates = codec.scales(covering: largest, global: nil, searching: true)
    let count = candidates.count
    var errors = [Double](repeating: 0, count: outputs * count)
    errors.withUnsafeMutableBufferPointer { errors in
      guard let base = errors.baseAddress, inputs > 0 else { return }
      let target = Unshared(base)
      forEachTile { rows, values in
        for row in rows {
          for (index, scale) in candidates.enumerated() {
            target.value[row * count + index] = pare_float_error(
              codec.kind, values + (row - rows.lowerBound) * inputs, inputs, scale, nil, nil)
          }
        }
      }
    }
    var (best, least) = (0, Double.infinity)
    for index in 0..<count {
      let error = (0..<outputs).reduce(0.0) { $0 + errors[$1 * count + index] }
      if error < least { (best, least) = (index, error) }
    }
    return candidates[best]
  }

  private func encode(_ scales: [Float], global: Float?)
    -> (weight: FloatGroupsWeight, error: EncodingError)
  {
    let (group, groups, isWhole) = (groupSize, groups, isWhole)
    let rowBytes = pare_float_bytes(codec.kind, inputs)
    let codes = Storage(byteCount: outputs * rowBytes)
    let target = Unshared(codes.base.assumingMemoryBound(to: UInt8.self))
    var sums = [EncodingError](
      repeating: EncodingError(squaredError: 0, squaredWeight: 0, largestError: 0, count: 0),
      count: outputs)
    sums.withUnsafeMutableBufferPointer { sums in
      guard let base = sums.baseAddress, inputs > 0 else { return }
      let sums = Unshared(base)
      forEachTile { rows, values in
        for index in 0..<rows.count * groups {
          let (row, start) = (rows.lowerBound + index / groups, index % groups * group)
          let count = min(group, inputs - start)
          let scale = scales[isWhole ? 0 : row * groups + index % groups] / (global ?? 1)
          let part = values + index / groups * inputs + start
          pare_float_encode(
            codec.kind, part, count, scale,
            target.value + row * rowBytes + pare_float_bytes(codec.kind, start))
          var squares = 0.0
          var largest: Float = 0
          sums.value[row].squaredError += pare_float_error(
            codec.kind, part, count, scale, &squares, &largest)
          sums.value[row].squaredWeight += squares
          sums.value[row].largestError = max(sums.value[row].largestError, largest)
        }
      }
    }
    var error = EncodingError(
      squaredError: 0, squaredWeight: 0, largestError: 0, count: outputs * inputs)
    for row in sums {
      error.squaredError += row.squaredError
      error.squaredWeight += row.squaredWeight
      error.largestError = max(error.largestError, row.largestError)
    }
    let isBytes = codec.format == .float8
    let weight = FloatGroupsWeight(
      codec: codec, outputs: outputs, inputs: inputs,
      codes: Tensor(
        dtype: isBytes ? .float8e4m3 : .uint8, shape: [outputs, isBytes ? inputs : inputs / 2],
        storage: codes),
      scales: codec.stored(scales, shape: codec.scaleShape(outputs: outputs, inputs: inputs)),
      globalScale: global.map { Tensor([$0], shape: [1]) })
    return (weight, error)
  }

  private func storedScales(of weight: FloatGroupsWeight) -> [Float] {
    let global = weight.globalScale?.array.first
    let count = weight.scales.count
    return (0..<count).map { index in
      guard global != nil else {
        return weight.scale(row: isWhole ? 0 : index / groups, group: index % groups)
      }
      return FloatGroups.e4m3Values[Int(weight.scales.bytes[index])]
    }
  }

  /// Calls the body with tiles of rows as float32, tiles in parallel.
  private func forEachTile(_ body: (Range<Int>, UnsafePointer<Float>) -> Void) {
    withoutActuallyEscaping(body) { body in
      let body = Unshared(body)
      let source = Unshared(source)
      Parallel.ranges(outputs, of: max(1, 65_536 / max(inputs, 1))) { rows in
        let values = source.value.rows(rows).widened()
        withExtendedLifetime(values) { body.value(rows, values.floats) }
      }
    }
  }
}

extension FloatGroups {
  /// Scales to try for a group, as stored, the one that just covers it first. Searching, those near
  /// it: a larger one puts the largest weight on 4 rather than 6 where that spaces the others better
  /// ("four over six", Cook et al. 2025, arXiv:2512.02010), a smaller one clips it.
  fileprivate func scales(covering largest: Float, global: Float?, searching: Bool) -> [Float] {
    switch format {
    case .float8:
      return (0..<(searching ? 10 : 1)).map { index in
        let wanted = largest / 448 * (1 - Float(index) / 20)
        var stored: Float = 0
        withUnsafeTemporaryAllocation(byteCount: 4, alignment: 4) { bytes in
          guard let base = bytes.baseAddress else { return }
          pare_affine_store([wanted], 1, scaleType.affineType, base)
          pare_affine_load(base, 1, scaleType.affineType, &stored)
        }
        return stored == 0 ? epsilon : stored
      }
    case .mxfp4:
      let exponent = Int(((largest.bitPattern + (1 << 21)) >> 23) & 0xff)
      let byte = max(exponent - 2, 0)
      let bytes = searching ? [byte, byte + 1, byte - 1].filter { (0...254).contains($0) } : [byte]
      return bytes.map { Float(sign: .plus, exponent: $0 - 127, significand: 1) }
    case .nvfp4:
      var code: UInt8 = 0
      pare_float_encode(PARE_FLOAT_E4M3, [(global ?? 1) * (largest / 6)], 1, 1, &code)
      guard code != 0 else { return [epsilon] }
      guard searching else { return [Self.e4m3Values[Int(code)]] }
      let others = (Int(code) - 6...Int(code) + 5).filter { $0 != Int(code) }
      return ([Int(code)] + others).filter { (1...0x7e).contains($0) }.map { Self.e4m3Values[$0] }
    }
  }

  /// What a scale of 0 becomes.
  private var epsilon: Float {
    switch scaleType {
    case .float32: 0x1p-23
    case .float16: 0x1p-10
    case .bfloat16: 0x1p-7
    default: 0.125
    }
  }

  /// A tensor of scales that are as stored already.
  fileprivate func stored(_ scales: [Float], shape: [Int]) -> Tensor {
    Tensor(dtype: scaleType, shape: shape) { bytes in
      guard let base = bytes.baseAddress, !scales.isEmpty else { return }
      switch format {
      case .float8: pare_affine_store(scales, scales.count, scaleType.affineType, base)
      case .mxfp4:
        for (index, scale) in scales.enumerated() { bytes[index] = UInt8(scale.exponent + 127) }
      case .nvfp4:
        pare_float_encode(
          PARE_FLOAT_E4M3, scales, scales.count, 1, base.assumingMemoryBound(to: UInt8.self))
      }
    }
  }
}
