import Models
import Runtime
import Tensors
import TestSupport
import Testing

private func cached(_ type: KeyValueRows.ElementType, window: Int = 8) throws -> LanguageModel {
  var model = try LanguageModel.load(
    SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures/llama2").path)
  model.endTokens = []
  model.cacheType = type
  model.cacheWindow = window
  return model
}

private func tokens(_ count: Int) -> [Int] { (0..<count).map { ($0 * 7 + $0 / 5) % 31 + 1 } }

private func difference(_ a: [Float], _ b: [Float]) -> Float {
  let size = (b.reduce(0) { $0 + $1 * $1 } / Float(b.count)).squareRoot()
  let gap = zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / Float(b.count)
  return gap.squareRoot() / size
}

private func logits(_ model: LanguageModel, _ tokens: [Int], passes: [Int]) throws -> [Float] {
  let cache = model.cache(plannedLength: tokens.count)
  var (start, all): (Int, [Float]) = (0, [])
  for count in passes {
    let hidden = try model.hidden(Array(tokens[start..<(start + count)]), cache: cache)
    all += model.logits(hidden).array
    start += count
  }
  return all
}

@Test(arguments: KeyValueRows.ElementType.allCases)
func aTextGivesTheSameWithAnyCacheHoweverItIsCut(type: KeyValueRows.ElementType) throws {
  let model = try cached(type)
  let text = tokens(min(75, model.configuration.contextLength ?? 75))
  let whole = try logits(model, text, passes: [text.count])
  let singly = try logits(model, text, passes: Array(repeating: 1, count: text.count))
  // Each block rounds what the one before computed, so sums in another order may move a code.
  #expect(difference(singly, whole) < (type == .float32 ? 1e-5 : 0.02))
  let reference = try cached(.float32)
  let exact = try logits(reference, text, passes: [text.count])
  let bound: Float =
    switch type {
    case .float32: 0
    case .float16: 2e-3
    case .int8: 0.02
    case .fp8: 0.2
    case .int4: 0.2
    }
  #expect(difference(whole, exact) <= bound)
}

@Test(arguments: [KeyValueRows.ElementType.int8, .fp8, .int4])
func textsBesideOthersAndAfterOthersAreThoseAlone(type: KeyValueRows.ElementType) throws {
  let model = try cached(type)
  let limit = model.configuration.contextLength ?? 80
  let prompts = [tokens(min(40, limit - 8)), Array(tokens(30).dropFirst(4)), [3, 1]]
  let together = try Generator(model: model).generate(
    prompts: prompts, settings: prompts.map { _ in .init() }, maxTokens: 6)
  for (number, prompt) in prompts.enumerated() {
    var alone = Generator(model: model)
    #expect(together[number].ids == (try alone.generate(prompt: prompt, maxTokens: 6).ids))
  }
  // One prefix cache, texts that go back a little and far.
  let prefix = PrefixCache(model, plannedLength: limit)
  var generator = Generator(model: model)
  for length in [40, 46, 38, 12, 44, 45] where length < limit - 6 {
    let prompt = tokens(length)
    let reused = try generator.generate(prompt: prompt, maxTokens: 6, prefix: prefix)
    let fresh = try generator.generate(prompt: prompt, maxTokens: 6)
    #expect(reused.ids == fresh.ids, "\(length) tokens, \(reused.reusedTokens) reused")
  }
}
