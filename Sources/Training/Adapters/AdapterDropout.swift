import Tensors

/// Which inputs the adapters of one model leave out (Srivastava et al. 2014).
///
/// What is left out follows from the seed, the pass, the matrix and the row, so that a pass computed
/// again, or by another number of threads, leaves out the same.
///
/// `@unchecked Sendable`: `pass` is written between passes by the one thread that trains.
public final class AdapterDropout: @unchecked Sendable {
  /// Share of the inputs that is left out; the rest is scaled up to make up for it.
  public let rate: Float
  private let seed: UInt64
  /// Number of the forward pass in training, different for every batch; nil outside of training,
  /// where nothing is left out.
  public var pass: UInt64?

  public init(rate: Float, seed: UInt64) {
    precondition(rate >= 0 && rate < 1)
    self.rate = rate
    self.seed = seed
  }

  /// - Parameters:
  ///   - x: `[tokens, inputs]`
  ///   - matrix: number of the matrix that reads it.
  func callAsFunction(_ x: Tensor, matrix: Int) -> Tensor {
    guard let pass, rate > 0 else { return x }
    let (columns, rate) = (x.columns, rate)
    let kept = 1 / (1 - rate)
    // Distinct for all passes and matrices of a training, and mixed well by the generator's own seeding.
    let start = seed &+ pass &* 0xd134_2543_de82_ef95 &+ UInt64(matrix) &* 0x2545_f491_4f6c_dd1d
    let mask = Tensor(shape: x.shape) { target in
      guard let base = target.baseAddress else { return }
      let target = Unshared(base)
      Parallel.ranges(x.rows, of: 16) { rows in
        for row in rows {
          var random = Xoshiro256(seed: start &+ UInt64(row) &* 0x9e6c_63d0_876a_3f6b)
          for column in 0..<columns {
            target.value[row * columns + column] = Float(random.uniform()) < rate ? 0 : kept
          }
        }
      }
    }
    return x.multiplied(elementwise: mask)
  }
}
