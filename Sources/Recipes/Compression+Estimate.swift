import Checkpoints
import Codecs
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
    return Estimate(seconds: seconds, residentBytes: Self.baseBytes + plan.workingBytes)
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
