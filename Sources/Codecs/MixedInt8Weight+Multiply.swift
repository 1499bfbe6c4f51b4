import CKernels
public import Tensors

extension MixedInt8Weight {
  /// On the way back rounding the activations counts as the identity.
  public func multiply(_ x: Tensor) -> Tensor {
    precondition(x.columns == inputs, "\(x.columns) columns times a weight of \(inputs) inputs")
    return recordingInput(x, product(x.detached))
  }

  private func product(_ x: Tensor) -> Tensor {
    let columns = outlierColumns(x)
    guard !columns.isEmpty else { return regularProduct(x) }
    let regular = Tensor(shape: x.shape) { target in
      guard let base = target.baseAddress else { return }
      base.update(from: x.floats, count: x.count)
      for token in 0..<x.rows {
        for column in columns { base[token * inputs + column] = 0 }
      }
    }
    let large = Tensor(shape: [x.rows, columns.count]) { target in
      for token in 0..<x.rows {
        for (at, column) in columns.enumerated() {
          target[token * columns.count + at] = x.floats[token * inputs + column]
        }
      }
    }
    return regularProduct(regular) + large.multiplied(byTransposeOf: weights(of: columns))
  }

  /// The columns that are not rounded, rising.
  package func outlierColumns(_ x: Tensor) -> [Int] {
    switch outliers {
    case .columns(let columns, _): return columns
    case .above(let threshold):
      var isOutlier = [Bool](repeating: false, count: inputs)
      for token in 0..<x.rows {
        let row = x.floats + token * inputs
        for column in 0..<inputs where abs(row[column]) > threshold { isOutlier[column] = true }
      }
      return isOutlier.indices.filter { isOutlier[$0] }
    }
  }

  /// `[outputs, columns.count]`
  private func weights(of columns: [Int]) -> Tensor {
    if case .columns(_, let weights) = outliers { return weights }
    return Tensor(shape: [outputs, columns.count]) { target in
      guard let base = target.baseAddress else { return }
      if let packedCodes { return packedCodes.decode(columns: columns, into: base) }
      let scales = codes.scales.floats
      let bytes = codes.codes.bytes
      for row in 0..<outputs {
        for (at, column) in columns.enumerated() {
          let code = Int8(bitPattern: bytes[row * inputs + column])
          base[row * columns.count + at] = Float(code) * scales[row]
        }
      }
    }
  }

  /// Tokens rounded to bytes, times the codes.
  private func regularProduct(_ x: Tensor) -> Tensor {
    let scales = (0..<x.rows).map { token in
      var (lowest, highest): (Float, Float) = (0, 0)
      pare_range_with_zero(x.floats + token * inputs, inputs, &lowest, &highest)
      let largest = max(-lowest, highest)
      return largest > 0 ? largest / 127 : 1
    }
    if let packedCodes {
      return packedCodes.multiply(QuantizedActivations(x, scales: scales, codes: -127...127))
    }
    let rounded = Tensor(shape: x.shape) { target in
      guard let base = target.baseAddress else { return }
      for (token, scale) in scales.enumerated() {
        let at = token * inputs
        pare_round_to_grid(x.floats + at, inputs, scale, 0, -127, 127, base + at)
      }
    }
    return codes.multiply(rounded)
  }
}

extension PackedWeight {
  package func element(_ row: Int, _ column: Int) -> Float {
    precondition(row >= 0 && row < outputs && column >= 0 && column < inputs)
    var layout = layout.value
    return pare_packed_decode_at(&layout, row, column)
  }

  /// Some columns of all rows, `[outputs, columns.count]`.
  func decode(columns: [Int], into target: UnsafeMutablePointer<Float>) {
    let target = Unshared(target)
    Parallel.ranges(outputs, of: 256) { rows in
      var layout = layout.value
      for row in rows {
        for (at, column) in columns.enumerated() {
          target.value[row * columns.count + at] = pare_packed_decode_at(&layout, row, column)
        }
      }
    }
  }
}
