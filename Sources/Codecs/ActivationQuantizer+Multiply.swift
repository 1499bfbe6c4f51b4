import CKernels
public import Tensors

extension ActivationQuantizer {
  /// Activations rounded and widened again, with the straight-through backward rule: rounding is the
  /// identity inside the grid's range and a constant outside (Bengio et al. 2013, arXiv:1308.3432).
  ///
  /// - Parameter x: float32 `[tokens, columns]`.
  public func rounded(_ x: Tensor) -> Tensor {
    let (low, high) = (Float(scheme.lowestCode), Float(scheme.highestCode))
    let columns = x.columns
    let plain = x.detached
    let source = Unshared(plain.floats)
    let result = Tensor(shape: x.shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(x.rows, of: Self.piece(columns)) { tokens in
        for token in tokens {
          let at = token * columns
          let grid = grid(of: source.value + at, columns)
          pare_round_to_grid(
            source.value + at, columns, grid.scale, grid.zero, low, high, target.value + at)
        }
      }
    }
    return result.recorded(from: x) { [place = x.place] dy in
      guard let fixed else { return place.receive(dy) }
      // A token's own range holds all of it; only a stored one clips.
      place.receive(
        Tensor(shape: plain.shape) { target in
          guard let base = target.baseAddress else { return }
          pare_grid_gradient(
            plain.floats, dy.floats, plain.count, fixed.scale, fixed.zero, low, high, base)
        })
    }
  }

  /// `x̂ · Wᵀ`, where x̂ is `x` rounded. A packed matrix takes the codes of symmetric grids as they
  /// are and sums products of integers; every other form multiplies the rounded activations.
  ///
  /// - Parameter x: float32 `[tokens, inputs]`.
  /// - Returns: float32 `[tokens, outputs]`.
  public func multiply(_ x: Tensor, by weight: any Weight) -> Tensor {
    guard let packed = weight as? PackedWeight else { return weight.multiply(rounded(x)) }
    guard scheme.isSymmetric, x.node == nil else { return packed.multiplyExactly(rounded(x)) }
    return packed.multiply(
      QuantizedActivations(
        x, scales: scales(x), codes: scheme.lowestCode...scheme.highestCode))
  }

  /// Scales of all tokens, for a symmetric grid.
  func scales(_ x: Tensor) -> [Float] {
    let columns = x.columns
    let source = Unshared(x.floats)
    return [Float](unsafeUninitializedCapacity: x.rows) { target, count in
      count = x.rows
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(x.rows, of: Self.piece(columns)) { tokens in
        for token in tokens {
          target.value[token] = grid(of: source.value + token * columns, columns).scale
        }
      }
    }
  }

  /// Tokens that repay a fork.
  private static func piece(_ columns: Int) -> Int { max(1, 16_384 / max(columns, 1)) }
}

extension PackedWeight {
  /// `x · Wᵀ` of activations in float32: slower than from their codes, for those that have none of
  /// eight bits around zero.
  func multiplyExactly(_ x: Tensor) -> Tensor {
    recordingInput(x, tiledProduct(x.detached, outputs: outputs) { dequantizeRows($0, into: $1) })
  }
}
