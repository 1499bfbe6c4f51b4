import CKernels
import Codecs
import Tensors

extension AffineGroups {
  /// Rounds to the grids of given ranges, with the straight-through rule on the way back.
  ///
  /// Roundings (of codes, of scales to their stored type, of zero points) are taken as adding a
  /// constant; clamping stops a gradient. With `steps = source / scale`:
  ///
  ///     inside the grid    d source = dy         d offset = dy · scale    d scale = dy · (q − zero − steps)
  ///     beyond its ends    d source = d offset = 0    d scale = dy · (q − zero)    d zero = −dy · scale
  ///     symmetric          scale = 2 max(upper, −lower) / (high − low)
  ///     asymmetric         scale = (upper − lower) / (high − low),  zero = low − lower / scale
  ///
  /// - Returns: the rounded numbers `[outputs, inputs]`, and their grids.
  func fakeQuantized(_ source: Tensor, lower: Tensor, upper: Tensor, offsets: Tensor?)
    -> (values: Tensor, grids: AffineGrids)
  {
    let shape = scaleShape(outputs: source.rows, inputs: source.columns)
    precondition(lower.shape == shape && upper.shape == shape, "\(lower.shape), not \(shape)")
    precondition(source.dtype == .float32 && offsets.map { $0.shape == source.shape } ?? true)
    let grids = grids(lower, upper, inputs: source.columns)
    let zeros = grids.zeros.map(Float.init)
    let (rows, columns) = (source.rows, source.columns)
    let kernel = kernel(columns)
    let values = Tensor(shape: source.shape) { target in
      guard let base = target.baseAddress else { return }
      let pointers = Unshared((source.floats, offsets?.floats, base))
      grids.scales.withUnsafeBufferPointer { scales in
        zeros.withUnsafeBufferPointer { zeros in
          let grid = Unshared((scales.baseAddress, zeros.baseAddress))
          Parallel.ranges(rows, of: rowsPerPiece(columns)) { range in
            let (w, v, y) = pointers.value
            var kernel = kernel
            for row in range {
              let (at, group) = (row * columns, row * grids.perRow)
              pare_fake_quantize_row(
                &kernel, grid.value.0.map { $0 + group }, grid.value.1.map { $0 + group }, w + at,
                v.map { $0 + at }, y + at)
            }
          }
        }
      }
    }
    let recorded = values.recorded(
      from: [source, lower, upper] + (offsets.map { [$0] } ?? [])
    ) { dy in
      let ends = passBack(dy, source, offsets, grids: grids, zeros: zeros)
      guard lower.place.isWanted || upper.place.isWanted else { return }
      let (dLower, dUpper) = endGradients(ends.scale, ends.zero, lower, upper, grids)
      lower.place.receive(dLower)
      upper.place.receive(dUpper)
    }
    return (recorded, grids)
  }

  private func kernel(_ columns: Int) -> pare_fake_quantization {
    pare_fake_quantization(
      columns: columns, group: groupSize(inputs: columns), bits: Int32(bits))
  }

  private func grids(_ lower: Tensor, _ upper: Tensor, inputs: Int) -> AffineGrids {
    let type =
      switch scaleType {
      case .float16: PARE_AFFINE_F16
      case .bfloat16: PARE_AFFINE_BF16
      default: PARE_AFFINE_F32
      }
    var zeros = [Int8](repeating: 0, count: lower.count)
    let scales = (0..<lower.count).map { index in
      pare_affine_grid(
        lower.floats[index], upper.floats[index], Int32(bits), isSymmetric ? 1 : 0, type,
        &zeros[index])
    }
    return AffineGrids(
      scales: scales, zeros: zeros,
      perRow: granularity == .tensor ? 0 : groupCount(inputs: inputs))
  }

  /// Gradients of matrix and offsets go on their way; those of scales and zero points are returned.
  private func passBack(
    _ dy: Tensor, _ source: Tensor, _ offsets: Tensor?, grids: AffineGrids, zeros: [Float]
  ) -> (scale: [Float], zero: [Float]) {
    let (rows, columns) = (source.rows, source.columns)
    let count = groupCount(inputs: columns)
    func matrix(_ isWanted: Bool) -> Tensor? {
      isWanted
        ? Tensor(dtype: .float32, shape: source.shape, storage: Storage(byteCount: dy.byteCount))
        : nil
    }
    let dSource = matrix(source.place.isWanted)
    let dOffsets = matrix(offsets?.place.isWanted ?? false)
    let sums = Tensor.zeros([2, rows, count])
    func mutable(_ tensor: Tensor?) -> UnsafeMutablePointer<Float>? {
      tensor.map { UnsafeMutablePointer(mutating: $0.floats) }
    }
    let kernel = kernel(columns)
    let pointers = Unshared((source.floats, offsets?.floats, dy.floats))
    let targets = Unshared(
      (mutable(dSource), mutable(dOffsets), UnsafeMutablePointer(mutating: sums.floats)))
    grids.scales.withUnsafeBufferPointer { scales in
      zeros.withUnsafeBufferPointer { zeros in
        let grid = Unshared((scales.baseAddress, zeros.baseAddress))
        Parallel.ranges(rows, of: rowsPerPiece(columns)) { range in
          let (w, v, dy) = pointers.value
          let (dw, dv, ends) = targets.value
          var kernel = kernel
          for row in range {
            let (at, group) = (row * columns, row * grids.perRow)
            pare_fake_quantize_row_gradient(
              &kernel, grid.value.0.map { $0 + group }, grid.value.1.map { $0 + group }, w + at,
              v.map { $0 + at }, dy + at, dw.map { $0 + at }, dv.map { $0 + at },
              ends + row * count, ends + (rows + row) * count)
          }
        }
      }
    }
    if let dSource { source.place.receive(dSource) }
    if let dOffsets { offsets?.place.receive(dOffsets) }
    guard granularity == .tensor else {
      let all = sums.array
      return (Array(all[..<(rows * count)]), Array(all[(rows * count)...]))
    }
    func total(_ part: Int) -> Float {
      Float((0..<rows).reduce(0.0) { $0 + Double(sums.floats[part * rows + $1]) })
    }
    return ([total(0)], [total(1)])
  }

  private func endGradients(
    _ dScales: [Float], _ dZeros: [Float], _ lower: Tensor, _ upper: Tensor, _ grids: AffineGrids
  ) -> (lower: Tensor, upper: Tensor) {
    let span = Float(highestCode - lowestCode)
    var (dLower, dUpper) = (dScales, dScales)
    for index in dScales.indices {
      let (low, high) = (lower.floats[index], upper.floats[index])
      let (scale, dScale, dZero) = (grids.scales[index], dScales[index], dZeros[index])
      (dLower[index], dUpper[index]) = (0, 0)
      // A group of zeros has a scale by convention, whatever its ends do.
      guard low < 0 || high > 0 else { continue }
      if isSymmetric {
        if -low > high {
          dLower[index] = -2 * dScale / span
        } else {
          dUpper[index] = 2 * dScale / span
        }
      } else {
        let zero = (Float(lowestCode) - low / scale).rounded(.toNearestOrEven)
        let isInside = zero >= Float(lowestCode) && zero <= Float(highestCode)
        let passed = isInside ? dZero : 0
        let total = dScale + passed * low / (scale * scale)
        dLower[index] = -total / span - passed / scale
        dUpper[index] = total / span
      }
    }
    return (Tensor(dLower, shape: lower.shape), Tensor(dUpper, shape: upper.shape))
  }
}
