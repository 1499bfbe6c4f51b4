import CKernels
public import Tensors

/// An exponential moving average of parameters (Polyak and Juditsky 1992, as in Tarvainen and Valpola
/// 2017, arXiv:1703.01780), in float32.
///
/// Starts at the parameters' first values, which the decay min(decay, (1 + t) / (10 + t)) after t
/// updates makes it forget early.
public final class WeightAverage {
  public let decay: Double
  private let parameters: [Parameter]
  private let averages: [Tensor]
  private let count = Tensor(dtype: .int64, shape: [1]) { $0.storeBytes(of: 0, as: Int64.self) }

  /// - Throws: `badSetting` unless 0 ≤ decay < 1.
  public init(of parameters: [Parameter], decay: Double) throws(TrainingError) {
    try require("the weight average's decay", decay, .belowOne)
    self.decay = decay
    self.parameters = parameters
    averages = parameters.map { Self.copy($0.tensor) }
  }

  /// Updates so far.
  public var updates: Int { Int(count.rawPointer.load(as: Int64.self)) }

  /// Takes the parameters' present values in: once after each optimizer step.
  public func update() {
    let t = Double(updates)
    let rest = Float(1 - min(decay, (1 + t) / (10 + t)))
    for (parameter, average) in zip(parameters, averages) {
      let source = Unshared(parameter.tensor.detached)
      let target = Unshared(UnsafeMutablePointer(mutating: average.floats))
      let strip = StoredNumbers.stripLength
      Parallel.ranges(parameter.count, of: StoredNumbers.pieceSize) { piece in
        withUnsafeTemporaryAllocation(of: Float.self, capacity: strip) { scratch in
          guard let base = scratch.baseAddress else { return }
          for start in stride(from: piece.lowerBound, to: piece.upperBound, by: strip) {
            let range = start..<min(start + strip, piece.upperBound)
            source.value.widen(range, into: base)
            pare_average(rest, base, target.value + start, range.count)
          }
        }
      }
    }
    UnsafeMutableRawPointer(mutating: count.rawPointer)
      .storeBytes(of: Int64(updates + 1), as: Int64.self)
  }

  /// The averages by their parameters' names: a model's weights. Live, as `Optimizer.state` is.
  public var weights: [(name: String, tensor: Tensor)] {
    zip(parameters, averages).map { ($0.name, $1) }
  }

  /// For a checkpoint: `ema.updates` and `ema.average.NAME`.
  public var state: [(name: String, tensor: Tensor)] {
    [("ema.updates", count)] + weights.map { ("ema.average.\($0.name)", $0.tensor) }
  }

  /// Puts a saved state in place of the present one, or changes nothing and throws.
  public func restore(from saved: [String: Tensor]) throws(TrainingError) {
    try Training.restore(state, from: saved, prefix: "ema.")
  }

  /// Runs `body` while the parameters hold the averages, rounded where they are bfloat16; afterwards
  /// they hold what they held before, bit for bit.
  public func withAverages<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
    let before = parameters.map { parameter in
      Tensor(dtype: parameter.tensor.dtype, shape: parameter.shape) {
        $0.copyMemory(from: parameter.tensor.bytes)
      }
    }
    defer {
      for (parameter, values) in zip(parameters, before) { parameter.assign(values) }
    }
    for (parameter, average) in zip(parameters, averages) { parameter.assign(average) }
    return try body()
  }

  /// Bytes of an average.
  public static func stateBytes(for parameters: [Parameter]) -> Int {
    parameters.reduce(8) { $0 + 4 * $1.count }
  }

  private static func copy(_ tensor: Tensor) -> Tensor {
    Tensor(shape: tensor.shape) { target in
      guard let base = target.baseAddress else { return }
      tensor.widen(0..<tensor.count, into: base)
    }
  }
}
