import Calibration
import Codecs
import Foundation
import Models
import Quantization
import Tensors
import TestSupport
import Testing

private func walk(
  _ model: LanguageModel, _ folder: String, _ treatment: BlockTreatment,
  change: (inout BlockWalk.Settings) -> Void = { _ in }
) throws -> BlockWalk {
  var settings = BlockWalk.Settings(folder: "\(folder)/work", identity: "a test")
  change(&settings)
  return try BlockWalk(
    model, samples(model), treatment: treatment, settings: settings, storedType: { _ in .float32 })
}

/// Inputs of every matrix in a plain pass of all samples, in the order of computation.
private func spied(_ model: LanguageModel) throws -> [[Tensor]] {
  var spies: [Spy.Mutexed] = []
  var watched = model
  for index in watched.blocks.indices {
    watched.blocks[index].updateLinears { linear in
      let seen = Spy.Mutexed()
      spies.append(seen)
      linear.weight = Spy(base: linear.weight, seen: seen)
    }
  }
  for sample in samples(model).samples {
    _ = try watched.hidden(tokens: sample.tokens, segments: sample.segments)
  }
  return spies.map { $0.inputs.withLock { $0 } }
}

/// The claim of true-sequential calibration: a matrix's statistics are of inputs that all compressed
/// matrices before it gave, and the cross moment's other side is of the untouched model. Spies in a
/// plain pass say what those are.
@Test(arguments: goldenModels)
func statisticsAreThoseOfThePartlyCompressedModel(path: String) throws {
  try withTemporaryDirectory { folder in
    let model = try LanguageModel.load(path)
    let recorder = StatisticsRecorder()
    let grid = try codec(3)
    var treatment = BlockTreatment()
    treatment.method = { _ in StatisticsRecorder.Method(recorder: recorder, codec: grid) }
    let files = try walk(model, folder, treatment).run()
    var compressed = model
    for (index, file) in files.enumerated() {
      compressed.blocks[index] = try file.block(replacing: model.blocks[index])
    }
    let found = recorder.statistics.withLock { $0 }
    // A matrix's inputs depend on those before it only, so the finished model shows them all.
    let (new, old) = (try spied(compressed), try spied(model))
    try #require(found.count == new.count)
    for (number, statistics) in found.enumerated() {
      let (x, other) = (Tensor.stacked(new[number]), Tensor.stacked(old[number]))
      let sum = InputStatisticsSum(
        inputs: x.columns, needs: [.magnitudes, .secondMoment, .crossMoment])
      sum.add(x, original: other)
      let expected = sum.finish()
      #expect(statistics.tokens == expected.tokens)
      for (a, b) in [
        (statistics.secondMoment, expected.secondMoment),
        (statistics.crossMoment, expected.crossMoment),
      ] {
        let (a, b) = (try #require(a), try #require(b))
        let size = (0..<b.count).reduce(Float(1e-6)) { max($0, abs(b.floats[$1])) }
        for index in 0..<a.count {
          #expect(abs(a.floats[index] - b.floats[index]) < 2e-5 * size)
        }
      }
    }
  }
}

private struct RandomFactors: ChannelScaling {
  var needs: StatisticsNeeds { [.magnitudes] }

  func factors(
    of consumers: [(weight: Tensor, codec: AffineGroups?)], _ statistics: InputStatistics,
    units: [Int]?
  ) throws(CompressionError) -> [Float]? {
    var random = Xoshiro256(seed: UInt64(statistics.inputs))
    let factors = (0..<statistics.inputs).map { _ in Float(0.25 + 4 * random.uniform()) }
    return units.map { units in units.map { factors[$0] } } ?? factors
  }
}

@Test(arguments: goldenModels)
func factorsBetweenChannelsChangeNoLogit(path: String) throws {
  try withTemporaryDirectory { folder in
    let model = try LanguageModel.load(path)
    let grid = try codec()
    var treatment = BlockTreatment()
    treatment.scalings = [RandomFactors(), RandomFactors()]
    treatment.codec = { _ in grid }
    let files = try walk(model, folder, treatment).run()
    var scaled = model
    var moved = 0
    for (index, file) in files.enumerated() {
      scaled.blocks[index] = try file.block(replacing: model.blocks[index])
      moved += file.tensors.names.count
    }
    // OLMo 2 has no norm before its branches; only values and up can pass a factor on.
    #expect(moved > 0)
    let sample = samples(model).samples[0]
    let expected = model.logits(try model.hidden(tokens: sample.tokens, segments: sample.segments))
    let actual = scaled.logits(try scaled.hidden(tokens: sample.tokens, segments: sample.segments))
    let spread = (0..<expected.count).reduce(Float(0)) { max($0, abs(expected.floats[$1])) }
    for index in 0..<expected.count {
      #expect(abs(actual.floats[index] - expected.floats[index]) < 2e-4 * spread)
    }
  }
}

private func treatment() throws -> BlockTreatment {
  let grid = try codec(4)
  var treatment = BlockTreatment()
  treatment.scalings = [AWQ()]
  treatment.codec = { _ in grid }
  treatment.method = { _ in ActivationAwareClipping(codec: grid) }
  return treatment
}

@Test func neitherMemoryNorThreadsChangeAByte() throws {
  try withTemporaryDirectory { folder in
    let model = try LanguageModel.load(goldenModels.first { $0.hasSuffix("llama3") } ?? "")
    let threads = Parallel.threads
    defer { Parallel.threads = threads }
    var results: [[String: Data]] = []
    for (number, (count, isLimited)) in [(1, false), (3, false), (2, true)].enumerated() {
      Parallel.threads = count
      let place = "\(folder)/\(number)"
      try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
      // The least that is accepted leaves nothing for activations.
      let least = try walk(model, place, try treatment())
      let limit = isLimited ? model.blocks.map(least.workingBytes).max() : nil
      _ = try walk(model, place, try treatment()) { $0.memoryLimit = limit }.run()
      results.append(try withoutSeconds("\(place)/work"))
    }
    #expect(results[0] == results[1])
    #expect(results[0] == results[2])
  }
}

/// The files of finished blocks but for what differs from run to run.
private func withoutSeconds(_ folder: String) throws -> [String: Data] {
  try bytes(below: folder).filter { !$0.key.hasSuffix("block.json") }
}

private struct Stop: Error {}

@Test func aWalkThatIsStoppedAnywhereEndsInTheSameBytes() throws {
  try withTemporaryDirectory { folder in
    let model = try LanguageModel.load(goldenModels.first { $0.hasSuffix("llama3") } ?? "")
    for name in ["whole", "stopped"] {
      try FileManager.default.createDirectory(
        atPath: "\(folder)/\(name)", withIntermediateDirectories: true)
    }
    var steps = 0
    _ = try walk(model, "\(folder)/whole", try treatment()).run { _ in steps += 1 }
    var random = Xoshiro256(seed: 5)
    var isDone = false
    var stops = 0
    while !isDone {
      var left = 1 + Int(random.uniform() * Double(steps))
      do {
        _ = try walk(model, "\(folder)/stopped", try treatment()) { $0.resumes = true }.run { _ in
          left -= 1
          if left == 0, stops < 20 { throw Stop() }
        }
        isDone = true
      } catch is Stop {
        stops += 1
      }
    }
    #expect(stops > 0)
    #expect(try withoutSeconds("\(folder)/whole/work") == withoutSeconds("\(folder)/stopped/work"))
  }
}

@Test func aWalkGoesOnlyOnWithItsOwnSettings() throws {
  try withTemporaryDirectory { folder in
    let model = try LanguageModel.load(goldenModels.first { $0.hasSuffix("llama3") } ?? "")
    _ = try walk(model, folder, try treatment()).run()
    #expect(throws: CalibrationError.runExists(folder: "\(folder)/work")) {
      try walk(model, folder, try treatment()).run()
    }
    #expect(throws: CalibrationError.differentRun(folder: "\(folder)/work")) {
      try walk(model, folder, try treatment()) {
        $0.resumes = true
        $0.identity = "another"
      }.run()
    }
    #expect(throws: CalibrationError.self) {
      try walk(model, folder, try treatment()) { $0.memoryLimit = 1000 }
    }
  }
}
