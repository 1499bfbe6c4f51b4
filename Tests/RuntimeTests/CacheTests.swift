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

private func model(_ name: String) throws -> LanguageModel {
  var model = try LanguageModel.load(goldens.appending(path: name).path)
  // Random models end texts at random; here all should go on.
  model.endTokens = []
  return model
}

@Test(arguments: names)
func textsContinuedTogetherAreThoseContinuedAlone(name: String) throws {
  let model = try model(name)
  let prompts = [[5, 9, 2], [7], [3, 3, 8, 1, 4, 4], [11, 6], [2, 10, 12], [9, 9]]
  let settings = prompts.indices.map {
    Sampler.Settings(temperature: $0.isMultiple(of: 2) ? 0 : 0.9, topK: 20, seed: UInt64($0))
  }
  let together = try Generator(model: model).generate(
    prompts: prompts, settings: settings, maxTokens: 8)
  for (number, prompt) in prompts.enumerated() {
    var alone = Generator(model: model, settings: settings[number])
    #expect(together[number].ids == (try alone.generate(prompt: prompt, maxTokens: 8).ids))
  }
}

@Test func textsThatEndLeaveTheOthersGoing() throws {
  let model = try model("llama2")
  let results = try Generator(model: model).generate(
    prompts: [[4, 9, 3], [1, 2], [8]], settings: Array(repeating: .init(), count: 3), maxTokens: 6
  ) { number, _ in number != 1 }
  #expect(results.map(\.ids.count) == [6, 1, 6])
  #expect(results.map(\.stopReason) == [.maxTokens, .cancelled, .maxTokens])
}

@Test(arguments: names)
func aPrefixIsReusedWithoutAChange(name: String) throws {
  let model = try model(name)
  let (first, second) = ([5, 9, 2, 7, 1, 3], [5, 9, 2, 8, 8])
  let prefix = PrefixCache(model, plannedLength: 11)
  var generator = Generator(model: model)
  _ = try generator.generate(prompt: first, maxTokens: 5, prefix: prefix)
  let reused = try generator.generate(prompt: second, maxTokens: 6, prefix: prefix)
  let fresh = try generator.generate(prompt: second, maxTokens: 6)
  #expect(reused.ids == fresh.ids)
  #expect(reused.reusedTokens == 3)
  // The last token has to run in any case.
  #expect(prefix.reusable(of: Array(prefix.tokens), plannedLength: 11) == prefix.tokens.count - 1)
}

@Test func keysOfAnotherPlannedLengthAreNotReusedWhereFrequenciesDependOnIt() throws {
  let model = try model("llama-dynamic")
  let prefix = PrefixCache(model, plannedLength: 20)
  _ = try prefix.advance(to: [1, 2, 3, 4], plannedLength: 20)
  #expect(prefix.reusable(of: [1, 2, 3, 4, 5], plannedLength: 20) == 4)
  #expect(prefix.reusable(of: [1, 2, 3, 4, 5], plannedLength: 60) == 0)
}

@Test func aPromptCacheContinuesAcrossStarts() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/prompt.cache"
    let llama = try model("llama3")
    let prompt = [5, 9, 2, 7, 1, 3]
    let absent = try PromptCache.open(path, model: llama, plannedLength: 12)
    #expect(absent.note == nil && absent.prefix.tokens.isEmpty)
    var generator = Generator(model: llama)
    let first = try generator.generate(prompt: prompt, maxTokens: 5, prefix: absent.prefix)
    try PromptCache.save(absent.prefix, tokens: prompt.count, model: llama, to: path)

    let found = try PromptCache.open(path, model: llama, plannedLength: 12)
    #expect(found.note == nil && found.prefix.tokens == prompt)
    let again = try generator.generate(prompt: prompt, maxTokens: 5, prefix: found.prefix)
    #expect(again.ids == first.ids)
    #expect(again.reusedTokens == 5)
    let other = try PromptCache.open(path, model: llama, plannedLength: 12)
    let longer = try generator.generate(
      prompt: [5, 9, 2, 4, 4], maxTokens: 5, prefix: other.prefix)
    #expect(longer.reusedTokens == 3)
    #expect(longer.ids == (try generator.generate(prompt: [5, 9, 2, 4, 4], maxTokens: 5).ids))
  }
}

@Test func aPromptCacheOfAnotherModelOrADamagedOneIsMadeAnew() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/prompt.cache"
    let llama = try model("llama3")
    let prefix = PrefixCache(llama, plannedLength: 8)
    _ = try prefix.advance(to: [1, 2, 3], plannedLength: 8)
    try PromptCache.save(prefix, tokens: 3, model: llama, to: path)

    let foreign = try PromptCache.open(path, model: model("llama2"), plannedLength: 8)
    #expect(foreign.note?.contains("another model") == true)
    #expect(foreign.prefix.tokens.isEmpty)

    var bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
    bytes[bytes.count - 5] ^= 1
    try Data(bytes).write(to: URL(filePath: path))
    let damaged = try PromptCache.open(path, model: llama, plannedLength: 8)
    #expect(damaged.note?.contains("damaged") == true)
    #expect(damaged.prefix.tokens.isEmpty)

    for content in [Data(bytes.prefix(bytes.count / 2)), Data("a diary".utf8), Data()] {
      try content.write(to: URL(filePath: path))
      #expect(throws: PromptCacheError.self) {
        try PromptCache.open(path, model: llama, plannedLength: 8)
      }
      #expect(try Data(contentsOf: URL(filePath: path)) == content)
    }
  }
}
