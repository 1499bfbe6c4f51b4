import CKernels

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The columns that a row of a matrix sees; in a square one of tokens, those before it.
package enum RowSpan: Sendable, Equatable {
  case all
  /// Row i sees columns j ≤ i; with a window, those with i − window < j.
  case causal(window: Int? = nil)

  package func columns(of row: Int, width: Int) -> Range<Int> {
    switch self {
    case .all: return 0..<width
    case .causal(let window):
      let end = min(row + 1, width)
      return min(max(0, window.map { row + 1 - $0 } ?? 0), end)..<end
    }
  }
}

/// Weighted sums over rows of what two matrices differ by: tensors of one element, recorded. The
/// other matrix is constant. The derivative is computed along with the value, which reads the same
/// numbers.
extension Tensor {
  /// - Parameters:
  ///   - weights: a factor on each row; rows of weight 0 are not looked at.
  ///   - kernel: `(row, x, weight, dx or nil)` to the row's value without its weight; writes
  ///     weight times its derivative to dx, which starts as zeros.
  private func rowLoss(
    weights: [Float],
    _ kernel:
      @Sendable (
        _ row: Int, _ x: UnsafePointer<Float>, _ weight: Float, _ dx: UnsafeMutablePointer<Float>?
      ) -> Double
  ) -> Tensor {
    precondition(weights.count == rows, "\(weights.count) weights of \(rows) rows")
    let (source, width) = (Unshared(floats), columns)
    let derivative = node == nil ? nil : Tensor.zeros(shape)
    let target = Unshared(derivative.map { UnsafeMutablePointer(mutating: $0.floats) })
    let size = max(1, Self.pieceSize / max(width, 1))
    let sums = Parallel.map((rows + size - 1) / size) { piece in
      var sum = 0.0
      for row in piece * size..<min((piece + 1) * size, rows) where weights[row] != 0 {
        let value = kernel(
          row, source.value + row * width, weights[row], target.value.map { $0 + row * width })
        sum += Double(weights[row]) * value
      }
      return sum
    }
    let result = Tensor([Float(sums.reduce(0, +))], shape: [1])
    guard let derivative else { return result }
    return result.recorded(from: self) { [place] gradient in
      place.receive(derivative.scaled(by: gradient.floats[0]))
    }
  }

  /// Σ wᵢ · mean over seen j of (xᵢⱼ − yᵢⱼ)².
  package func squaredError(to other: Tensor, weights: [Float], seeing span: RowSpan = .all)
    -> Tensor
  {
    precondition(shape == other.shape, "\(shape) − \(other.shape)")
    let (y, width) = (Unshared(other.floats), columns)
    return rowLoss(weights: weights) { row, x, weight, dx in
      let seen = span.columns(of: row, width: width)
      let y = y.value + row * width
      let factor = 2 * weight / Float(seen.count)
      var sum = 0.0
      for j in seen {
        let difference = x[j] - y[j]
        sum += Double(difference) * Double(difference)
        if let dx { dx[j] = factor * difference }
      }
      return sum / Double(seen.count)
    }
  }

  /// Σ wᵢ · (1 − cos(xᵢ, yᵢ)); a row of zeros has cosine 0 with everything.
  package func cosineError(to other: Tensor, weights: [Float]) -> Tensor {
    precondition(shape == other.shape, "\(shape), \(other.shape)")
    let (y, width) = (Unshared(other.floats), columns)
    return rowLoss(weights: weights) { row, x, weight, dx in
      let y = y.value + row * width
      var (xx, xy, yy) = (0.0, 0.0, 0.0)
      for j in 0..<width {
        let (a, b) = (Double(x[j]), Double(y[j]))
        xx += a * a
        xy += a * b
        yy += b * b
      }
      guard xx > 0, yy > 0 else { return 1 }
      let norms = (xx * yy).squareRoot()
      let cosine = xy / norms
      if let dx {
        let (along, across) = (Float(cosine / xx) * weight, Float(1 / norms) * weight)
        for j in 0..<width { dx[j] = along * x[j] - across * y[j] }
      }
      return 1 - cosine
    }
  }

  /// Σ wᵢ · mean over j ≠ i of the Huber loss of xᵢⱼ − yᵢⱼ: half the square within ±δ, linear
  /// beyond.
  package func huberError(to other: Tensor, weights: [Float], delta: Float = 1) -> Tensor {
    precondition(shape == other.shape && rows == columns && rows > 1, "\(shape), \(other.shape)")
    let (y, width) = (Unshared(other.floats), columns)
    return rowLoss(weights: weights) { row, x, weight, dx in
      let y = y.value + row * width
      let factor = weight / Float(width - 1)
      var sum = 0.0
      for j in 0..<width where j != row {
        let difference = x[j] - y[j]
        let size = abs(difference)
        sum +=
          size <= delta
          ? 0.5 * Double(difference) * Double(difference)
          : Double(delta) * (Double(size) - 0.5 * Double(delta))
        if let dx { dx[j] = factor * min(max(difference, -delta), delta) }
      }
      return sum / Double(width - 1)
    }
  }

  /// Σ wᵢ · KL(softmax(yᵢ) ‖ softmax(xᵢ)) over the columns that a row sees, nats.
  package func softmaxDivergence(
    from other: Tensor, weights: [Float], seeing span: RowSpan = .all
  ) -> Tensor {
    precondition(shape == other.shape, "\(shape), \(other.shape)")
    let (y, width) = (Unshared(other.floats), columns)
    return rowLoss(weights: weights) { row, x, weight, dx in
      let seen = span.columns(of: row, width: width)
      let (x, y) = (x + seen.lowerBound, y.value + row * width + seen.lowerBound)
      let logSum = pare_log_sum_exp(x, seen.count)
      let otherLogSum = pare_log_sum_exp(y, seen.count)
      let shift = logSum - otherLogSum
      return withUnsafeTemporaryAllocation(of: Float.self, capacity: seen.count) { p in
        guard let p = p.baseAddress else { return 0 }
        _ = pare_exp_shifted(y, Float(otherLogSum), p, seen.count)
        var sum = 0.0
        for j in 0..<seen.count { sum += Double(p[j]) * (Double(y[j]) - Double(x[j]) + shift) }
        if let dx = dx.map({ $0 + seen.lowerBound }) {
          _ = pare_exp_shifted(x, Float(logSum), dx, seen.count)
          for j in 0..<seen.count { dx[j] = weight * (dx[j] - p[j]) }
        }
        return sum
      }
    }
  }

  /// Σ wᵢ · KL(yᵢ ‖ xᵢ) of rows that are distributions already, nats.
  package func divergence(
    from other: Tensor, weights: [Float], seeing span: RowSpan = .all
  ) -> Tensor {
    precondition(shape == other.shape, "\(shape), \(other.shape)")
    let (y, width) = (Unshared(other.floats), columns)
    return rowLoss(weights: weights) { row, x, weight, dx in
      let y = y.value + row * width
      var sum = 0.0
      for j in span.columns(of: row, width: width) where y[j] > 0 {
        // What a softmax rounded to nothing still is a probability.
        let p = max(x[j], .leastNormalMagnitude)
        sum += Double(y[j]) * (log(Double(y[j])) - log(Double(p)))
        if let dx { dx[j] = -weight * y[j] / p }
      }
      return sum
    }
  }
}
