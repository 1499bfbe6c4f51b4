import CKernels

/// Multiplication of every run of `size` neighbouring channels by Sylvester's Hadamard matrix,
/// divided by √size: symmetric, orthogonal, its own inverse.
public struct BlockHadamard: Sendable, Hashable {
  /// A power of two.
  public let size: Int

  public init(size: Int) {
    precondition(size > 0 && size & (size - 1) == 0)
    self.size = size
  }

  /// - Parameter x: float32, whose columns are a whole number of runs.
  /// - Returns: the same shape, with its backward rule.
  public func callAsFunction(_ x: Tensor) -> Tensor {
    precondition(x.columns % size == 0)
    let result = Tensor(shape: x.shape) { target in
      guard let base = target.baseAddress else { return }
      base.initialize(from: x.floats, count: x.count)
      apply(base, count: x.count)
    }
    return result.recorded(from: x) { [self, place = x.place] in place.receive(self($0)) }
  }

  /// In place, to `count / size` runs.
  package func apply(_ x: UnsafeMutablePointer<Float>, count: Int) {
    let (size, target) = (size, Unshared(x))
    let scale = Float(1 / Double(size).squareRoot())
    Parallel.ranges(count / size, of: max(1, (1 << 14) / size)) { range in
      for run in range {
        let line = target.value + run * size
        pare_hadamard(line, size, 1)
        pare_scale(line, scale, line, size)
      }
    }
  }
}
