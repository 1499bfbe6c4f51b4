import Calibration
import Checkpoints
import Codecs
import Models
import Quantization
import Runtime
import Tensors

extension Compression {
  /// What a run will take, from short timings on this machine now.
  public struct Estimate: Sendable {
    public var seconds: Double
    /// The program, one tensor as it is read and its packed form.
    public var residentBytes: Int
  }

  /// The program itself with its buffers.
  private static let baseBytes = 48 << 20

  /// Times each method of the plan on a small random matrix, and hashing, which touches every byte
  /// of the input once and of the output twice (when written and when read back).
  public func estimate() throws -> Estimate {
    var seconds =
      Self.secondsToHashOneByte() * Double(plan.bytesBefore + 2 * plan.bytesAfter)
    var rates: [(AffineGroups, QuantizeStage.Clipping, Double)] = []
    for row in plan.rows {
      guard case .quantize(let codec, let stage) = row.action else { continue }
      let rate: Double
      if let known = rates.first(where: { $0.0 == codec && $0.1 == stage.clipping }) {
        rate = known.2
      } else {
        rate = try Self.secondsPerWeight(codec, stage)
        rates.append((codec, stage.clipping, rate))
      }
      seconds += rate * Double(row.tensor.count)
    }
    let walk = walkWork()
    return Estimate(
      seconds: seconds + walk.multiplyAdds / Self.multiplyAddsPerSecond(),
      residentBytes: Self.baseBytes + plan.workingBytes + walk.bytes)
  }

  /// What passing samples through the model takes: products with every matrix, sums of products of
  /// inputs, factors of those, and for methods that learn three times the product for each text of
  /// each step. Activations count as if none were spilled.
  private func walkWork() -> (multiplyAdds: Double, bytes: Int) {
    guard plan.needsWalk, plan.recipe.needsCalibration else { return (0, 0) }
    let settings = plan.recipe.calibration.resolved(
      for: source.configuration, seed: plan.recipe.seed)
    let tokens = Double(settings.samples * settings.length)
    let treatment = plan.treatment
    let passes = treatment.scalings.isEmpty ? 1.0 : 2.0
    var work = 0.0
    var widest = 0
    for block in source.configuration.blocks {
      let weights = block.linears.reduce(0) { $0 + $1.outputs * $1.inputs }
      work += passes * tokens * Double(weights)
      for method in treatment.blockMethods {
        work += 3 * method.tokens(of: settings.length, allTokens: tokens) * Double(weights)
      }
      for linear in block.linears {
        let n = Double(linear.inputs)
        widest = max(widest, linear.inputs)
        guard let needs = treatment.method(linear)?.needs, needs.contains(.secondMoment) else {
          continue
        }
        // Matrices of one input share the first two.
        let isFirst = linear.role != .key && linear.role != .value && linear.role != .up
        work +=
          (isFirst ? tokens * n * n / 2 + n * n * n / 3 : 0) + Double(linear.outputs) * n * n / 2
      }
    }
    let activations = Int(tokens) * 4 * (4 * source.configuration.hiddenSize + widest)
    let limit = walkSettings.memoryLimit ?? .max
    return (work, min(activations + 16 * widest * widest, limit))
  }

  private static func multiplyAddsPerSecond() -> Double {
    let (m, n) = (512, 1024)
    let a = Tensor([Float](repeating: 0.5, count: m * n), shape: [m, n])
    let b = Tensor([Float](repeating: 0.5, count: n * n), shape: [n, n])
    return Double(m * n * n) / seconds { _ = Tensor.matmul(a, b) }
  }

  private static func secondsPerWeight(_ codec: AffineGroups, _ stage: QuantizeStage) throws
    -> Double
  {
    var random = Xoshiro256(seed: 0)
    let sample = Tensor(
      (0..<(128 * 2048)).map { _ in Float(random.uniform()) - 0.5 }, shape: [128, 2048])
    let method = stage.dataFreeMethod(codec, role: .up)
    return try seconds { _ = try method.compress(sample) } / Double(sample.count)
  }

  private static func secondsToHashOneByte() -> Double {
    let bytes = [UInt8](repeating: 1, count: 1 << 22)
    return seconds { bytes.withUnsafeBytes { _ = SHA256.digest($0) } } / Double(bytes.count)
  }

  /// The shorter of two tries: the first warms caches and threads.
  private static func seconds(_ body: () throws -> Void) rethrows -> Double {
    let clock = ContinuousClock()
    return min(try clock.measure(body).inSeconds, try clock.measure(body).inSeconds)
  }
}
