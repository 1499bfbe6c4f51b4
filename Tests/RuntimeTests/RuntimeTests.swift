import Checkpoints
import Foundation
import Models
import Runtime
import Tensors
import TestSupport
import Testing

private let goldens = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures")
private let names =
  ((try? FileManager.default.contentsOfDirectory(atPath: goldens.path)) ?? []).sorted()

@Test(arguments: names)
func greedyTokensAreThoseOfTransformers(name: String) throws {
  let folder = goldens.appending(path: name).path
  let file = try Checkpoint.open("\(folder)/golden.safetensors")
  guard file.contains("greedy") else { return }
  func ids(_ name: String) throws -> [Int] {
    try file.tensor(name).bytes.bindMemory(to: Int32.self).map(Int.init)
  }
  var generator = Generator(model: try LanguageModel.load(folder))
  let expected = try ids("greedy")
  let result = try generator.generate(prompt: ids("tokens_0"), maxTokens: expected.count)
  #expect(result.ids == expected)
  #expect(result.stopReason == .maxTokens)
}

private func draw(_ logits: [Float], _ settings: Sampler.Settings, count: Int) -> [Int] {
  var sampler = Sampler(settings)
  return (0..<count).map { _ in logits.withUnsafeBufferPointer { sampler.next($0) } }
}

@Test func temperatureZeroTakesTheFirstOfTheLargest() {
  #expect(draw([1, 5, 5, 2], .init(), count: 3) == [1, 1, 1])
}

@Test func samplingFollowsTheProbabilities() {
  // Probabilities 0.1, 0.2, 0.3, 0.4.
  let logits = [0.1, 0.2, 0.3, 0.4].map { Float(log($0)) }
  let ids = draw(logits, .init(temperature: 1, seed: 3), count: 20_000)
  for (id, expected) in [0.1, 0.2, 0.3, 0.4].enumerated() {
    let share = Double(ids.count { $0 == id }) / 20_000
    // Five standard deviations of a binomial share.
    #expect(abs(share - expected) < 5 * (expected * (1 - expected) / 20_000).squareRoot())
  }
}

@Test func filtersKeepWhatTheyPromise() {
  let logits = [0.1, 0.2, 0.3, 0.4].map { Float(log($0)) }
  func kept(_ settings: Sampler.Settings) -> Set<Int> {
    Set(draw(logits, settings, count: 2000))
  }
  #expect(kept(.init(temperature: 1, topK: 2)) == [2, 3])
  #expect(kept(.init(temperature: 1, topP: 0.69)) == [2, 3])
  #expect(kept(.init(temperature: 1, topP: 0.71)) == [1, 2, 3])
  #expect(kept(.init(temperature: 1, minP: 0.6)) == [2, 3])
  #expect(kept(.init(temperature: 1, topK: 1, topP: 0.01, minP: 1)) == [3])
  #expect(kept(.init(temperature: 1)) == [0, 1, 2, 3])
}

@Test func theSeedDecidesTheSample() {
  let logits = (0..<50).map { Float($0 % 7) }
  let settings = Sampler.Settings(temperature: 1.3, seed: 9)
  #expect(draw(logits, settings, count: 50) == draw(logits, settings, count: 50))
  var other = settings
  other.seed = 10
  #expect(draw(logits, settings, count: 50) != draw(logits, other, count: 50))
}

@Test func generationStopsAtTheContextsEnd() throws {
  var generator = Generator(
    model: try LanguageModel.load(goldens.appending(path: "gpt2").path))
  let prompt = Array(repeating: 5, count: 60)
  let result = try generator.generate(prompt: prompt, maxTokens: 100)
  #expect(result.stopReason == .context)
  // Position 64 does not exist: four tokens are fed back, the fifth is the last to come out.
  #expect(result.ids.count == 5)
  #expect(throws: ModelError.self) {
    try generator.generate(prompt: Array(repeating: 5, count: 64), maxTokens: 1)
  }
}

@Test func anyOfSeveralEndTokensStops() throws {
  var model = try LanguageModel.load(goldens.appending(path: "llama2").path)
  var free = Generator(model: model)
  let ids = try free.generate(prompt: [4, 9, 3], maxTokens: 6).ids
  model.endTokens = [60_000, ids[2]]
  var bound = Generator(model: model)
  let result = try bound.generate(prompt: [4, 9, 3], maxTokens: 6)
  #expect(result.stopReason == .endToken)
  #expect(result.ids == Array(ids.prefix { $0 != ids[2] }))
}
