package import Codecs
package import Tensors

/// A matrix that is stored as affine groups in the end and learns before: every product sees the
/// rounded numbers, every gradient passes the rounding as if it were the identity.
///
///     scale, zero   from lower … upper, as the codec makes a grid of a range
///     code          q = clamp(round(source / scale + zero + offset), low, high)
///     value         (q − zero) · scale
///
/// What learns is what has a place in a computation: the matrix itself (ZeroQuant), the ends of its
/// ranges (OmniQuant), offsets of the rounding (AutoRound). The whole matrix is rounded once, when
/// the weight is made; make a new one after each step.
package struct FakeQuantizedWeight: Weight {
  package let codec: AffineGroups
  /// Rounded, with the roundings' straight-through rule: float32 `[outputs, inputs]`.
  package private(set) var values: Tensor
  package let grids: AffineGrids
  /// Bits that each token of the input is rounded to, with the token's own scale; nil: none.
  package let activationBits: Int?

  /// - Parameters:
  ///   - source: float32 `[outputs, inputs]`.
  ///   - lower: of each range, ≤ 0, of the codec's `scaleShape`.
  ///   - upper: of each range, ≥ 0.
  ///   - offsets: added before rounding, in steps of the grid; the shape of `source`.
  package init(
    _ source: Tensor, codec: AffineGroups, lower: Tensor, upper: Tensor, offsets: Tensor? = nil,
    activationBits: Int? = nil
  ) {
    self.codec = codec
    self.activationBits = activationBits
    (values, grids) = codec.fakeQuantized(source, lower: lower, upper: upper, offsets: offsets)
  }

  package var outputs: Int { values.shape[0] }
  package var inputs: Int { values.shape[1] }
  package var storedBytes: Int { codec.storedBytes(outputs: outputs, inputs: inputs) }

  package func multiply(_ x: Tensor) -> Tensor {
    let x = activationBits.map { x.fakeQuantizedTokens(bits: $0) } ?? x
    return x.multiplied(byTransposeOf: values)
  }

  package func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    target.update(from: values.floats + range.lowerBound * inputs, count: range.count * inputs)
  }

  package var detached: any Weight { constant }

  /// The same numbers without a place in a computation; nothing learned stays in memory for it.
  package var constant: FakeQuantizedWeight { withValues(values.detached) }

  /// The same matrix whose gradient goes elsewhere.
  /// - Parameter values: the same numbers.
  package func withValues(_ values: Tensor) -> FakeQuantizedWeight {
    var copy = self
    copy.values = values
    return copy
  }

  /// The matrix as it is stored: exactly these codes on exactly these grids.
  package func settled() throws(CodecError) -> GroupQuantizedWeight {
    try codec.encode(values.detached, choosing: .given(grids)).weight
  }

  /// How far these numbers lie from others.
  package func error(against original: Tensor) -> EncodingError {
    precondition(original.shape == values.shape)
    let (rows, columns) = (outputs, inputs)
    let (old, new) = (Unshared(original.floats), Unshared(values.floats))
    let sums = Parallel.map(rows) { row in
      var (squared, size, largest) = (0.0, 0.0, Float(0))
      for index in row * columns..<(row + 1) * columns {
        let difference = new.value[index] - old.value[index]
        squared += Double(difference) * Double(difference)
        size += Double(old.value[index]) * Double(old.value[index])
        largest = max(largest, abs(difference))
      }
      return (squared, size, largest)
    }
    return sums.reduce(
      into: EncodingError(
        squaredError: 0, squaredWeight: 0, largestError: 0, count: rows * columns)
    ) { total, row in
      total.squaredError += row.0
      total.squaredWeight += row.1
      total.largestError = max(total.largestError, row.2)
    }
  }
}
