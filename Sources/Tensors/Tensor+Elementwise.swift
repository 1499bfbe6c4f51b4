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
    let sum = a.mapped { pare_add($0, other.value + $2, $1, $3) }
    return sum.recorded(from: a, b) { [a = a.place, b = b.place] gradient in
      a.receive(gradient)
      b.receive(gradient)
    }
  }

  public func multiplied(elementwise other: Tensor) -> Tensor {
    precondition(shape == other.shape, "\(shape) · \(other.shape)")
    let factors = Unshared(other.floats)
    let product = mapped { pare_multiply($0, factors.value + $2, $1, $3) }
    return product.recorded(from: self, other) { [a = self, b = other] gradient in
      a.place.receive(gradient.multiplied(elementwise: b.plain))
      b.place.receive(gradient.multiplied(elementwise: a.plain))
    }
  }

  public func scaled(by factor: Float) -> Tensor {
    let product = mapped { pare_scale($0, factor, $1, $3) }
    return product.recorded(from: self) { [place] in place.receive($0.scaled(by: factor)) }
  }

  public static func - (a: Tensor, b: Tensor) -> Tensor { a + b.scaled(by: -1) }

  /// cap · tanh(x / cap), which keeps scores within ±cap (Gemma 2).
  public func softCapped(_ cap: Float) -> Tensor {
    let capped = mapped { pare_soft_cap($0, cap, $1, $3) }
    return capped.recorded(from: self) { [place] gradient in
      let arriving = Unshared(gradient.floats)
      place.receive(
        capped.mapped { pare_soft_cap_gradient($0, cap, arriving.value + $2, $1, $3) })
    }
  }

  public func activated(_ activation: Activation) -> Tensor {
    let kernel = activation.kernel
    let activated = mapped { pare_activate(kernel, $0, $1, $3) }
    return activated.recorded(from: self) { [x = self] gradient in
      let arriving = Unshared(gradient.floats)
      x.place.receive(
        x.mapped { pare_activate_gradient(kernel, $0, arriving.value + $2, $1, $3) })
    }
  }

  /// activation(gate) · up (Shazeer 2020, arXiv:2002.05202).
  public static func gated(_ gate: Tensor, _ up: Tensor, _ activation: Activation) -> Tensor {
    precondition(gate.shape == up.shape, "\(gate.shape) · \(up.shape)")
    let kernel = activation.kernel
    let factors = Unshared(up.floats)
    let gated = gate.mapped { source, target, offset, count in
      pare_activate(kernel, source, target, count)
      pare_multiply(target, factors.value + offset, target, count)
    }
    return gated.recorded(from: gate, up) { gradient in
      let (arriving, factors) = (Unshared(gradient.floats), Unshared(up.floats))
      let upGradient = Tensor(
        dtype: .float32, shape: up.shape, storage: Storage(byteCount: up.byteCount))
      let other = Unshared(UnsafeMutablePointer(mutating: upGradient.floats))
      let gateGradient = gate.mapped { source, target, offset, count in
        pare_gated_gradient(
          kernel, source, factors.value + offset, arriving.value + offset, target,
          other.value + offset, count)
      }
      gate.place.receive(gateGradient)
      up.place.receive(upGradient)
    }
  }
}
