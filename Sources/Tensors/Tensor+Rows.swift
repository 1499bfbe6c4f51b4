import CKernels

/// Operations that treat every row alike, and their backward rules.
extension Tensor {
  /// Rows that one piece of parallel work covers; by the width alone, so that sums over rows do not
  /// depend on the number of threads.
  private var rowsPerPiece: Int { max(1, Self.pieceSize / max(columns, 1)) }

  /// Applies a kernel to each row.
  private func mappedRows(
    _ kernel:
      @Sendable (_ source: UnsafePointer<Float>, _ target: UnsafeMutablePointer<Float>) ->
      Void
  ) -> Tensor {
    let columns = columns
    let source = Unshared(floats)
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(rows, of: rowsPerPiece) { range in
        for row in range { kernel(source.value + row * columns, target.value + row * columns) }
      }
    }
  }

  /// Adds to a vector's gradient what every row contributes: pieces of rows add to memory of their
  /// own, which is then summed in order.
  ///
  /// - Parameters:
  ///   - vectors: each `[columns]`.
  ///   - kernel: `(row, [vectors.count, columns] to add to)`
  private func sumRows(
    into vectors: [GradientPlace],
    _ kernel: @Sendable (_ row: Int, _ sums: UnsafeMutablePointer<Float>) -> Void
  ) {
    let width = columns * vectors.count
    let pieces = (rows + rowsPerPiece - 1) / rowsPerPiece
    let partial = Tensor.zeros([max(pieces, 1), width])
    let base = Unshared(UnsafeMutablePointer(mutating: partial.floats))
    let size = rowsPerPiece
    Parallel.ranges(rows, of: size) { range in
      for row in range { kernel(row, base.value + range.lowerBound / size * width) }
    }
    for (index, vector) in vectors.enumerated() {
      vector.accumulate { target in
        for piece in 0..<pieces {
          pare_accumulate(1, partial.floats + piece * width + index * columns, target, columns)
        }
      }
    }
  }

  /// Adds a vector `[columns]` to every row.
  public func adding(bias: Tensor) -> Tensor {
    precondition(bias.count == columns, "\(shape) + \(bias.shape)")
    let (addend, width) = (Unshared(bias.floats), columns)
    let sum = mappedRows { pare_add($0, addend.value, $1, width) }
    return sum.recorded(from: self, bias) { [x = place, bias = bias.place] gradient in
      x.receive(gradient)
      guard bias.isWanted else { return }
      let arriving = Unshared(gradient.floats)
      gradient.sumRows(into: [bias]) { row, sums in
        pare_accumulate(1, arriving.value + row * width, sums, width)
      }
    }
  }

  /// x / √(mean x² + ε) · (offset + weight) over the last dimension (Zhang and Sennrich 2019).
  public func rmsNormalized(weight: Tensor?, epsilon: Float, offset: Float = 0) -> Tensor {
    precondition(weight.map { $0.count == columns } ?? true)
    let (factors, width) = (Unshared(weight?.floats), columns)
    let result = mappedRows { pare_rms_norm($0, factors.value, offset, epsilon, $1, width) }
    return result.recorded(from: [self] + (weight.map { [$0] } ?? [])) { [x = self] gradient in
      x.receiveFromNorm(gradient, vectors: [weight?.place]) { x, dy, dx, sums in
        pare_rms_norm_gradient(x, weight?.floats, offset, epsilon, dy, dx, sums[0], width)
      }
    }
  }

  /// (x − mean) / √(variance + ε) · weight + bias over the last dimension (Ba et al. 2016).
  public func layerNormalized(weight: Tensor?, bias: Tensor?, epsilon: Float) -> Tensor {
    precondition(weight.map { $0.count == columns } ?? true)
    precondition(bias.map { $0.count == columns } ?? true)
    let (factors, addends, width) = (Unshared(weight?.floats), Unshared(bias?.floats), columns)
    let result = mappedRows {
      pare_layer_norm($0, factors.value, addends.value, epsilon, $1, width)
    }
    return result.recorded(from: [self] + [weight, bias].compactMap { $0 }) {
      [x = self, bias = bias?.place] gradient in
      x.receiveFromNorm(gradient, vectors: [weight?.place, bias]) { x, dy, dx, sums in
        pare_layer_norm_gradient(x, weight?.floats, epsilon, dy, dx, sums[0], sums[1], width)
      }
    }
  }

  /// The gradients of a normalization of `self`: of its input, row by row, and of its vectors, summed
  /// over rows.
  ///
  /// - Parameter kernel: `(x, dy, dx, a place to add to for each vector that wants one)`
  private func receiveFromNorm(
    _ gradient: Tensor, vectors: [GradientPlace?],
    _ kernel:
      @Sendable (
        UnsafePointer<Float>, UnsafePointer<Float>, UnsafeMutablePointer<Float>,
        [UnsafeMutablePointer<Float>?]
      ) -> Void
  ) {
    let (width, input, arriving) = (columns, Unshared(floats), Unshared(gradient.floats))
    let result = Tensor(dtype: .float32, shape: shape, storage: Storage(byteCount: byteCount))
    let target = Unshared(UnsafeMutablePointer(mutating: result.floats))
    let wanted = vectors.map { $0?.isWanted ?? false }
    gradient.sumRows(into: vectors.compactMap { $0 }.filter(\.isWanted)) { row, sums in
      var next = sums
      let places = wanted.map { isWanted -> UnsafeMutablePointer<Float>? in
        guard isWanted else { return nil }
        defer { next += width }
        return next
      }
      kernel(
        input.value + row * width, arriving.value + row * width, target.value + row * width,
        places)
    }
    place.receive(result)
  }

  /// log Σ eˣ of every row, in double.
  public func logSumExpRows() -> [Double] {
    let (source, columns) = (Unshared(floats), columns)
    return Parallel.map(rows) { pare_log_sum_exp(source.value + $0 * columns, columns) }
  }

  /// Index of every row's largest value, the lowest of equals.
  public func argmaxRows() -> [Int] {
    (0..<rows).map { pare_argmax(floats + $0 * columns, columns) }
  }
}
