import CKernels

/// The nonlinearity of a feed-forward layer.
public enum Activation: Sendable, Equatable {
  case silu, gelu, geluTanh, relu

  var kernel: pare_activation {
    switch self {
    case .silu: PARE_SILU
    case .gelu: PARE_GELU
    case .geluTanh: PARE_GELU_TANH
    case .relu: PARE_RELU
    }
  }
}

extension Tensor {
  /// Applies a kernel to equal pieces of this tensor and the result, on all threads.
  private func mapped(
    _ kernel:
      @Sendable (
        _ source: UnsafePointer<Float>, _ target: UnsafeMutablePointer<Float>,
        _ offset: Int, _ count: Int
      ) -> Void
  ) -> Tensor {
    let source = Unshared(floats)
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(count, of: Self.pieceSize) { range in
        kernel(
          source.value + range.lowerBound, target.value + range.lowerBound, range.lowerBound,
          range.count)
      }
    }
  }

  /// Elementwise sum of tensors of one shape.
  public static func + (a: Tensor, b: Tensor) -> Tensor {
    precondition(a.shape == b.shape, "\(a.shape) + \(b.shape)")
    let other = Unshared(b.floats)
    return a.mapped { pare_add($0, other.value + $2, $1, $3) }
  }

  public func multiplied(elementwise other: Tensor) -> Tensor {
    precondition(shape == other.shape, "\(shape) · \(other.shape)")
    let other = Unshared(other.floats)
    return mapped { pare_multiply($0, other.value + $2, $1, $3) }
  }

  public func scaled(by factor: Float) -> Tensor { mapped { pare_scale($0, factor, $1, $3) } }

  /// cap · tanh(x / cap), which keeps scores within ±cap (Gemma 2).
  public func softCapped(_ cap: Float) -> Tensor { mapped { pare_soft_cap($0, cap, $1, $3) } }

  public func activated(_ activation: Activation) -> Tensor {
    let kernel = activation.kernel
    return mapped { pare_activate(kernel, $0, $1, $3) }
  }

  /// activation(gate) · up (Shazeer 2020, arXiv:2002.05202).
  public static func gated(_ gate: Tensor, _ up: Tensor, _ activation: Activation) -> Tensor {
    precondition(gate.shape == up.shape, "\(gate.shape) · \(up.shape)")
    let kernel = activation.kernel
    let up = Unshared(up.floats)
    return gate.mapped { source, target, offset, count in
      pare_activate(kernel, source, target, count)
      pare_multiply(target, up.value + offset, target, count)
    }
  }

  /// Applies a kernel to each row.
  private func mappedRows(
    _ kernel:
      @Sendable (_ source: UnsafePointer<Float>, _ target: UnsafeMutablePointer<Float>) ->
      Void
  ) -> Tensor {
    let (columns, rows) = (columns, rows)
    let source = Unshared(floats)
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(rows, of: max(1, Self.pieceSize / max(columns, 1))) { range in
        for row in range { kernel(source.value + row * columns, target.value + row * columns) }
      }
    }
  }

  /// Adds a vector `[columns]` to every row.
  public func adding(bias: Tensor) -> Tensor {
    precondition(bias.count == columns, "\(shape) + \(bias.shape)")
    let (bias, width) = (Unshared(bias.floats), columns)
    return mappedRows { pare_add($0, bias.value, $1, width) }
  }

  /// x / √(mean x² + ε) · (offset + weight) over the last dimension (Zhang and Sennrich 2019).
  public func rmsNormalized(weight: Tensor?, epsilon: Float, offset: Float = 0) -> Tensor {
    precondition(weight.map { $0.count == columns } ?? true)
    let (weight, width) = (Unshared(weight?.floats), columns)
    return mappedRows { pare_rms_norm($0, weight.value, offset, epsilon, $1, width) }
  }

  /// (x − mean) / √(variance + ε) · weight + bias over the last dimension (Ba et al. 2016).
  public func layerNormalized(weight: Tensor?, bias: Tensor?, epsilon: Float) -> Tensor {
    precondition(weight.map { $0.count == columns } ?? true)
    precondition(bias.map { $0.count == columns } ?? true)
    let (weight, bias, width) = (Unshared(weight?.floats), Unshared(bias?.floats), columns)
    return mappedRows { pare_layer_norm($0, weight.value, bias.value, epsilon, $1, width) }
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
