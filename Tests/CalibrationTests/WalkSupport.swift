import Calibration
import Checkpoints
import Codecs
import Foundation
import Models
import Quantization
import Synchronization
import Tensors
import TestSupport

/// Every small architecture with a golden file.
let goldenModels: [String] = {
  let root = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures").path
  let names = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
  return names.filter { !$0.hasPrefix(".") }.sorted().map { "\(root)/\($0)" }
}()

func samples(_ model: LanguageModel, count: Int = 3, length: Int = 9) -> CalibrationSet {
  var random = Xoshiro256(seed: 11)
  let vocabulary = model.configuration.vocabularySize
  return CalibrationSet(
    samples: (0..<count).map { number in
      let tokens = (0..<length + number).map { _ in Int(random.uniform() * Double(vocabulary)) }
      return .init(tokens: tokens, segments: number == 1 ? [0..<4, 4..<length + 1] : nil)
    }, origin: "a test")
}

/// Rounds to nearest, and keeps the statistics it was given.
final class StatisticsRecorder: Sendable {
  let statistics = Mutex<[InputStatistics]>([])

  struct Method: WeightMethod {
    let recorder: StatisticsRecorder
    let codec: AffineGroups
    var needs: StatisticsNeeds { [.magnitudes, .secondMoment, .crossMoment] }

    func compress(_ weight: Tensor, _ statistics: InputStatistics) throws(CompressionError)
      -> CompressedWeight
    {
      recorder.statistics.withLock { $0.append(statistics) }
      return try RoundToNearest(codec: codec).compress(weight)
    }
  }
}

/// A matrix that keeps what it multiplies.
struct Spy: Weight {
  let base: any Weight
  let seen: Mutexed

  final class Mutexed: Sendable {
    let inputs = Mutex<[Tensor]>([])
  }

  var outputs: Int { base.outputs }
  var inputs: Int { base.inputs }
  var storedBytes: Int { base.storedBytes }
  func multiply(_ x: Tensor) -> Tensor {
    seen.inputs.withLock { $0.append(x) }
    return base.multiply(x)
  }
  func dequantizeRows(_ range: Range<Int>, into target: UnsafeMutablePointer<Float>) {
    base.dequantizeRows(range, into: target)
  }
}

func codec(_ bits: Int = 4) throws -> AffineGroups {
  try AffineGroups(
    bits: bits, granularity: .channel, isSymmetric: false, scaleType: .float32)
}

/// Bytes of all files below a folder, by their path.
func bytes(below folder: String) throws -> [String: Data] {
  var files: [String: Data] = [:]
  let names = FileManager.default.enumerator(atPath: folder)
  while let name = names?.nextObject() as? String {
    if let data = FileManager.default.contents(atPath: "\(folder)/\(name)") { files[name] = data }
  }
  return files
}
