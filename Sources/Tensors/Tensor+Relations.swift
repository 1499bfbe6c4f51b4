import CKernels

/// Operations on rows that are compared with each other, and their backward rules.
extension Tensor {
  /// A result of this tensor's shape, filled row by row on all threads.
  private func filledRows(
    _ shape: [Int], _ fill: @Sendable (_ row: Int, _ target: UnsafeMutablePointer<Float>) -> Void
  ) -> Tensor {
    let width = shape.last ?? 1
    let result = Tensor.zeros(shape)
    let target = Unshared(UnsafeMutablePointer(mutating: result.floats))
    Parallel.ranges(shape.dropLast().reduce(1, *), of: max(1, Self.pieceSize / max(width, 1))) {
      for row in $0 { fill(row, target.value + row * width) }
    }
    return result
  }

  /// Softmax of each row over the columns that it sees; the others are 0.
  package func softmaxRows(seeing span: RowSpan = .all) -> Tensor {
    let (source, width) = (Unshared(floats), columns)
    let result = filledRows(shape) { row, target in
      let seen = span.columns(of: row, width: width)
      let x = source.value + row * width + seen.lowerBound
      let logSum = pare_log_sum_exp(x, seen.count)
      _ = pare_exp_shifted(x, Float(logSum), target + seen.lowerBound, seen.count)
    }
    return result.recorded(from: self) { [place] gradient in
      let (p, arriving) = (Unshared(result.floats), Unshared(gradient.floats))
      place.receive(
        result.filledRows(result.shape) { row, target in
          let (p, dp) = (p.value + row * width, arriving.value + row * width)
          let mean = pare_dot_f32(p, dp, width)
          for j in 0..<width { target[j] = p[j] * (dp[j] - mean) }
        })
    }
  }

  /// Each row over its Euclidean length; rows of zeros stay, and pass no gradient on.
  package func unitRows() -> Tensor {
    let (source, width) = (Unshared(floats), columns)
    let lengths = Parallel.map(rows) { row in
      let x = source.value + row * width
      var sum = 0.0
      for j in 0..<width { sum += Double(x[j]) * Double(x[j]) }
      return Float(sum.squareRoot())
    }
    let result = filledRows(shape) { row, target in
      guard lengths[row] > 0 else { return }
      pare_scale(source.value + row * width, 1 / lengths[row], target, width)
    }
    return result.recorded(from: self) { [place] gradient in
      let (unit, arriving) = (Unshared(result.floats), Unshared(gradient.floats))
      place.receive(
        result.filledRows(result.shape) { row, target in
          guard lengths[row] > 0 else { return }
          let (u, du) = (unit.value + row * width, arriving.value + row * width)
          let along = pare_dot_f32(u, du, width)
          for j in 0..<width { target[j] = (du[j] - along * u[j]) / lengths[row] }
        })
    }
  }

  /// Euclidean distances between all pairs of rows, `[rows, rows]`. Computed from differences,
  /// since products of rows would lose close ones. Where two rows agree no gradient passes.
  package func pairwiseDistances() -> Tensor {
    let (x, rows, width) = (Unshared(floats), rows, columns)
    let result = filledRows([rows, rows]) { row, target in
      let a = x.value + row * width
      for other in 0..<rows where other != row {
        let b = x.value + other * width
        var sum = 0.0
        for j in 0..<width {
          let difference = Double(a[j]) - Double(b[j])
          sum += difference * difference
        }
        target[other] = Float(sum.squareRoot())
      }
    }
    return result.recorded(from: self) { [x = self] gradient in
      let (distances, arriving) = (Unshared(result.floats), Unshared(gradient.floats))
      let base = Unshared(x.floats)
      x.place.receive(
        x.filledRows(x.shape) { row, target in
          let a = base.value + row * width
          for other in 0..<rows where distances.value[row * rows + other] > 0 {
            let both = arriving.value[row * rows + other] + arriving.value[other * rows + row]
            let factor = both / distances.value[row * rows + other]
            let b = base.value + other * width
            for j in 0..<width { target[j] += factor * (a[j] - b[j]) }
          }
        })
    }
  }

  /// x · n / Σ x: everything in units of its mean over `count` of the elements, those that can
  /// differ from 0. What is 0 everywhere stays so.
  package func dividedByMean(over count: Int) -> Tensor {
    var sum = 0.0
    for i in 0..<self.count { sum += Double(floats[i]) }
    guard sum > 0 else { return self.detached }
    let factor = Float(Double(count) / sum)
    let result = detached.scaled(by: factor)
    return result.recorded(from: self) { [place] gradient in
      // dx = n/Σx · (dy − Σ(dy ∘ y)/n)
      var product = 0.0
      for i in 0..<result.count {
        product += Double(gradient.floats[i]) * Double(result.floats[i])
      }
      let mean = Float(product / Double(count))
      place.receive(
        Tensor(shape: gradient.shape) { target in
          for i in target.indices {
            target.initializeElement(at: i, to: factor * (gradient.floats[i] - mean))
          }
        })
    }
  }
}
