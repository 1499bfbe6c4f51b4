import CKernels
package import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What equivalent transformations compute of vectors and matrices, with backward rules.
extension Tensor {
  /// 1 / (1 + e⁻ˣ).
  package func sigmoid() -> Tensor {
    let values = array.map { Float(1 / (1 + exp(-Double($0)))) }
    let result = Tensor(values, shape: shape)
    return result.recorded(from: self) { [place] dy in
      place.receive(
        Tensor(zip(values, dy.array).map { $1 * $0 * (1 - $0) }, shape: place.shape))
    }
  }

  /// 1 / x.
  package func reciprocal() -> Tensor {
    let values = array.map { 1 / $0 }
    return Tensor(values, shape: shape).recorded(from: self) { [place] dy in
      place.receive(Tensor(zip(values, dy.array).map { -$1 * $0 * $0 }, shape: place.shape))
    }
  }

  /// A vector whose element i is `self[indices[i]]`, or `default` where there is no index.
  package func gathered(_ indices: [Int?], default: Float) -> Tensor {
    let values = array
    let result = Tensor(
      indices.map { $0.map { values[$0] } ?? `default` }, shape: [indices.count])
    return result.recorded(from: self) { [place] dy in
      place.accumulate { target in
        for (index, source) in indices.enumerated() {
          if let source { target[source] += dy.floats[index] }
        }
      }
    }
  }

  /// `diag(rows) · self · diag(columns)` of a matrix that does not learn; nil for factors of 1.
  ///
  ///     d rows = Σ over columns of dy ∘ W · columns        d columns = Σ over rows of dy ∘ rows · W
  package func rescaled(rows: Tensor?, columns: Tensor?) -> Tensor {
    guard rows != nil || columns != nil else { return self }
    let matrix = detached
    let scaled = matrix.rescaled(rows, columns)
    return scaled.recorded(from: [rows, columns].compactMap { $0 }) { dy in
      let products = dy.multiplied(elementwise: matrix)
      let (outputs, inputs) = (matrix.rows, matrix.columns)
      func ones(_ count: Int) -> Tensor {
        Tensor(shape: [1, count]) { $0.initialize(repeating: 1) }
      }
      if let rows {
        let factors = columns?.detached.reshaped([1, inputs]) ?? ones(inputs)
        rows.place.receive(.matmul(factors, transposing: products).reshaped([outputs]))
      }
      if let columns {
        let factors = rows?.detached.reshaped([1, outputs]) ?? ones(outputs)
        columns.place.receive(.matmul(factors, products).reshaped([inputs]))
      }
    }
  }

  private func rescaled(_ rowFactors: Tensor?, _ columnFactors: Tensor?) -> Tensor {
    let (source, columns) = (Unshared(floats), columns)
    let factors = Unshared((rowFactors?.floats, columnFactors?.floats))
    return Tensor(shape: shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(rows, of: max(1, (1 << 15) / max(columns, 1))) { range in
        let (rowFactors, columnFactors) = factors.value
        for row in range {
          let (from, to) = (source.value + row * columns, target.value + row * columns)
          let factor = rowFactors.map { $0[row] } ?? 1
          if let columnFactors {
            pare_multiply(from, columnFactors, to, columns)
            pare_scale(to, factor, to, columns)
          } else {
            pare_scale(from, factor, to, columns)
          }
        }
      }
    }
  }
}
