#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Rotary position embedding (Su et al. 2021) with the published ways to stretch its context.
public struct RotaryConfiguration: Sendable, Equatable {
  public enum Scaling: Sendable, Equatable {
    case none
    /// Positions divided by a factor (Chen et al. 2023).
    case linear(factor: Double)
    /// The base grows with the length once it passes the trained context.
    case dynamic(factor: Double, trainedContext: Int)
    /// Low frequencies divided, high ones kept, a ramp between (Llama 3.1).
    case llama3(factor: Double, low: Double, high: Double, trainedContext: Int)
    /// NTK by parts with attention temperature (Peng et al. 2023).
    case yarn(
      factor: Double, betaFast: Double, betaSlow: Double, trainedContext: Int,
      attentionFactor: Double, truncate: Bool)
    /// One divisor per frequency, short or long by the length in use (Ding et al. 2024).
    case long(short: [Double], long: [Double], trainedContext: Int, attentionFactor: Double)
  }

  public var theta: Double
  /// Leading dimensions of each head that rotate.
  public var dimensions: Int
  public var scaling = Scaling.none

  /// Factor on the rotated vectors' cosines and sines.
  public var attentionFactor: Float {
    switch scaling {
    case .yarn(_, _, _, _, let attentionFactor, _), .long(_, _, _, let attentionFactor):
      Float(attentionFactor)
    default: 1
    }
  }

  /// Radians per position of each rotated pair, `[dimensions / 2]`, for a text of `length` tokens.
  public func inverseFrequencies(length: Int) -> [Float] {
    let pairs = dimensions / 2
    func plain(_ base: Double) -> [Double] {
      (0..<pairs).map { 1 / pow(base, Double(2 * $0) / Double(dimensions)) }
    }
    switch scaling {
    case .none:
      return plain(theta).map(Float.init)
    case .linear(let factor):
      return plain(theta).map { Float($0 / factor) }
    case .dynamic(let factor, let trained):
      let length = Double(max(length, trained)), trained = Double(trained)
      let stretch = factor * length / trained - (factor - 1)
      let d = Double(dimensions)
      return plain(theta * pow(stretch, d / (d - 2))).map(Float.init)
    case .llama3(let factor, let low, let high, let trained):
      let longWave = Double(trained) / low, shortWave = Double(trained) / high
      return plain(theta).map { frequency in
        let wave = 2 * Double.pi / frequency
        if wave < shortWave { return Float(frequency) }
        if wave > longWave { return Float(frequency / factor) }
        let smooth = (Double(trained) / wave - low) / (high - low)
        return Float((1 - smooth) * frequency / factor + smooth * frequency)
      }
    case .yarn(let factor, let betaFast, let betaSlow, let trained, _, let truncate):
      // The dimension whose wave turns `rotations` times within the trained context.
      func correction(_ rotations: Double) -> Double {
        Double(dimensions) * log(Double(trained) / (rotations * 2 * Double.pi)) / (2 * log(theta))
      }
      var low = correction(betaFast), high = correction(betaSlow)
      if truncate { (low, high) = (low.rounded(.down), high.rounded(.up)) }
      low = max(low, 0)
      high = min(high, Double(dimensions - 1))
      if low == high { high += 0.001 }
      return plain(theta).enumerated().map { index, frequency in
        let ramp = min(max((Double(index) - low) / (high - low), 0), 1)
        return Float(frequency / factor * ramp + frequency * (1 - ramp))
      }
    case .long(let short, let long, let trained, _):
      let divisors = length > trained ? long : short
      return zip(plain(theta), divisors).map { Float($0 / $1) }
    }
  }

  /// Whether the frequencies depend on how long the text is, so that it must be known beforehand.
  public var dependsOnLength: Bool {
    switch scaling {
    case .dynamic, .long: true
    default: false
    }
  }
}
