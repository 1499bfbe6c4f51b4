import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// xʸ of positive numbers.
func power(_ base: Float, _ exponent: Float) -> Float { powf(base, exponent) }

extension Tensor {
  /// `‖a - b‖²` of float32 tensors, rows summed in order.
  func squaredDistance(to other: Tensor) -> Double {
    precondition(shape == other.shape)
    let (a, b, columns) = (Unshared(floats), Unshared(other.floats), columns)
    return withExtendedLifetime((self, other)) {
      Parallel.map(rows) { row in
        var sum = 0.0
        for index in row * columns..<(row + 1) * columns {
          let difference = Double(a.value[index] - b.value[index])
          sum += difference * difference
        }
        return sum
      }.reduce(0, +)
    }
  }
}
