#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The learning rate's factor over a training, as the schedules of the transformers library have it.
/// Steps count from 0, so that the first step of a warm-up has factor 0.
public struct Schedule: Sendable, Equatable {
  public enum Shape: Sendable, Equatable {
    case constant
    /// Down to `minimum` at the end.
    case linear(minimum: Double = 0)
    /// Half a cosine down to `minimum` at the end (Loshchilov and Hutter 2017, arXiv:1608.03983).
    case cosine(minimum: Double = 0)
    /// Warm-up, a stable stretch, and a decay over the last `decayShare` of all steps (Hu et al. 2024,
    /// arXiv:2404.06395). The warm-up begins at `minimum`.
    case warmupStableDecay(decayShare: Double = 0.1, decay: Decay = .linear, minimum: Double = 0)
  }

  /// How a decay goes down with the share p of it that has passed.
  public enum Decay: Sendable, Equatable {
    /// 1 - p
    case linear
    /// 1 - √p (Hägele et al. 2024, arXiv:2405.18392)
    case oneMinusSquareRoot
  }

  public var shape: Shape
  /// Steps from 0 up to the full rate.
  public var warmupSteps: Int

  public init(_ shape: Shape = .constant, warmupSteps: Int = 0) {
    self.shape = shape
    self.warmupSteps = warmupSteps
  }

  /// - Throws: `badSetting` for a number outside its range, or warm-up and decay that do not fit.
  public func validate(total: Int) throws(TrainingError) {
    guard warmupSteps >= 0, warmupSteps <= total else {
      throw .badSetting(
        "the number of warm-up steps", value: "\(warmupSteps)",
        expected: "from 0 to the number of steps, \(total)")
    }
    let minimum: Double
    switch shape {
    case .constant: return
    case .linear(let m), .cosine(let m): minimum = m
    case .warmupStableDecay(let share, _, let m):
      minimum = m
      guard share >= 0, share <= 1, warmupSteps + decaySteps(share, total) <= total else {
        throw .badSetting(
          "the share of the decay", value: "\(share)",
          expected: "from 0 to 1 and leave room for \(warmupSteps) warm-up steps")
      }
    }
    guard minimum >= 0, minimum <= 1 else {
      throw .badSetting(
        "the learning rate's minimum", value: "\(minimum)", expected: "a share from 0 to 1")
    }
  }

  /// - Parameters:
  ///   - step: from 0; beyond the end the factor stays what it ends with.
  ///   - total: steps of the whole training.
  public func factor(step: Int, total: Int) -> Double {
    if step < warmupSteps {
      let rising = Double(step) / Double(max(1, warmupSteps))
      guard case .warmupStableDecay(_, _, let minimum) = shape else { return rising }
      return raised(rising, minimum)
    }
    let passed = min(1, Double(step - warmupSteps) / Double(max(1, total - warmupSteps)))
    switch shape {
    case .constant: return 1
    case .linear(let minimum): return raised(1 - passed, minimum)
    case .cosine(let minimum): return raised(0.5 * (1 + cos(Double.pi * passed)), minimum)
    case .warmupStableDecay(let share, let decay, let minimum):
      let length = decaySteps(share, total)
      let start = total - length
      guard step >= start else { return 1 }
      guard step < total else { return minimum }
      let passed = Double(step - start) / Double(max(1, length))
      return switch decay {
      case .linear: raised(1 - passed, minimum)
      case .oneMinusSquareRoot: raised(1 - passed.squareRoot(), minimum)
      }
    }
  }

  private func decaySteps(_ share: Double, _ total: Int) -> Int {
    Int((min(max(share, 0), 1) * Double(total)).rounded())
  }

  private func raised(_ factor: Double, _ minimum: Double) -> Double {
    factor * (1 - minimum) + minimum
  }
}
