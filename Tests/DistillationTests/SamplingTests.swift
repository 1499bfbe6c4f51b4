import Distillation
import Foundation
import Models
import Runtime
import Tensors
import TestSupport
import Testing
import Text
import Training

struct SamplingTests {
  private var settings: ContinuationSettings {
    var settings = ContinuationSettings()
    settings.maxNewTokens = 6
    return settings
  }

  @Test func samplesAreThoseOfTheRuntimesGenerator() throws {
    try withTemporaryDirectory { folder in
      let model = try PolicyModel(vocabulary: 29, layers: 2).load(in: folder)
      var settings = settings
      (settings.topK, settings.topP) = (12, 0.9)
      let prompts = [[0, 4, 9], [0, 7], [3, 3, 3, 8, 1]]
      let texts = try ContinuationSampler(model, settings).continuations(
        of: prompts, seeds: [11, 12, 13])
      let expected = try Generator(model: model).generate(
        prompts: prompts,
        settings: [11, 12, 13].map {
          Sampler.Settings(temperature: 0.9, topK: 12, topP: 0.9, seed: $0)
        }, maxTokens: 6)
      for (text, (prompt, result)) in zip(texts, zip(prompts, expected)) {
        #expect(text.tokens == prompt + result.ids)
        #expect(text.counts == prompt.map { _ in false } + result.ids.map { _ in true })
      }
    }
  }

  @Test func aMixtureChoosesByTheMeanOfBothProbabilities() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(vocabulary: 17, seed: 1).load(in: folder)
      let teacher = try PolicyModel(vocabulary: 17, hidden: 16, seed: 2).load(in: folder)
      var settings = settings
      settings.temperature = 0
      for share in [0, 0.2, 0.5, 0.999] {
        let text = try ContinuationSampler(student, mixedWith: teacher, share: share, settings)
          .continuations(of: [[0, 4]], seeds: [1])[0].tokens
        for end in 2..<text.count {
          let q = logSoftmax(try student.allLogits(Array(text[..<end]))[end - 1])
          let p = logSoftmax(try teacher.allLogits(Array(text[..<end]))[end - 1])
          let mixed = zip(q, p).map { (1 - share) * exp($0) + share * exp($1) }
          #expect(mixed[text[end]] > (mixed.max() ?? 0) - 1e-6)
        }
      }
    }
  }

  /// Over 4000 draws each token's share is within five deviations of its probability.
  @Test func aMixtureDrawsTokensAsOftenAsItsProbabilitiesSay() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder)
      let teacher = try PolicyModel(seed: 2).load(in: folder)
      var settings = settings
      (settings.temperature, settings.maxNewTokens) = (1, 1)
      let count = 4000
      let texts = try ContinuationSampler(student, mixedWith: teacher, share: 0.3, settings)
        .continuations(
          of: (0..<count).map { _ in [0, 3] }, seeds: (0..<count).map { UInt64($0) })
      let q = logSoftmax(try student.allLogits([0, 3])[1])
      let p = logSoftmax(try teacher.allLogits([0, 3])[1])
      for token in 0..<5 {
        let expected = 0.7 * exp(q[token]) + 0.3 * exp(p[token])
        let found = Double(texts.count { $0.tokens[2] == token }) / Double(count)
        let deviation = (expected * (1 - expected) / Double(count)).squareRoot()
        #expect(abs(found - expected) < 5 * deviation + 1e-9)
      }
    }
  }

  @Test func samplesDoNotDependOnTheNumberOfThreads() throws {
    try withTemporaryDirectory { folder in
      let model = try PolicyModel(vocabulary: 29, layers: 2).load(in: folder)
      let teacher = try PolicyModel(vocabulary: 29, seed: 5).load(in: folder)
      let before = Parallel.threads
      defer { Parallel.threads = before }
      func texts(_ threads: Int) throws -> [TrainingExample] {
        Parallel.threads = threads
        return try ContinuationSampler(model, mixedWith: teacher, share: 0.3, settings)
          .continuations(of: [[0, 4], [0, 5], [0, 6]], seeds: [1, 2, 3])
      }
      #expect(try texts(1) == texts(4))
    }
  }

  @Test func theTokenThatEndsATextIsLearned() throws {
    try withTemporaryDirectory { folder in
      let model = try PolicyModel(vocabulary: 3, endToken: 1).load(in: folder)
      let texts = try ContinuationSampler(model, settings).continuations(
        of: (0..<20).map { _ in [0] }, seeds: (0..<20).map { UInt64($0) })
      #expect(texts.contains { $0.tokens.last == 1 && $0.tokens.count < 7 })
      for text in texts {
        #expect(!text.tokens.dropLast().contains(1))
        #expect(text.tokens.last == 1 || text.tokens.count == 7)
      }
    }
  }

  @Test func textsEndWithTheContextOfWhoReadsThem() throws {
    try withTemporaryDirectory { folder in
      let writer = try PolicyModel(context: 64).load(in: folder)
      let reader = try PolicyModel(context: 5).load(in: folder)
      let sampler = ContinuationSampler(writer, for: reader, settings)
      #expect(sampler.longestPrompt == 4)
      let texts = try sampler.continuations(of: [[0, 1, 2, 3], [0]], seeds: [1, 2])
      // The last token is predicted from five that fit.
      #expect(texts.map(\.tokens.count) == [6, 6])
      _ = try reader.hidden(
        tokens: TrainingBatch(texts).inputs, segments: TrainingBatch(texts).segments)
    }
  }

  @Test func promptsAreWhatComesBeforeTheFirstTokenThatCounts() {
    let instruction = TrainingExample(
      tokens: [0, 5, 6, 7, 8, 1], counts: [false, false, false, true, true, true])
    let text = TrainingExample(
      tokens: Array(10..<20), counts: [false] + [Bool](repeating: true, count: 9))
    let nothing = TrainingExample(tokens: [4, 4], counts: [false, false])
    let batch = TrainingBatch([instruction, nothing, text, text])
    var settings = ContinuationSettings()
    settings.prompts = 2
    settings.promptTokens = 3
    #expect(batch.prompts(settings) == [[0, 5, 6], [10, 11, 12]])
    settings.promptTokens = 8
    #expect(batch.prompts(settings)[1] == Array(10..<15))
    #expect(batch.prompts(settings, longest: 3) == [[0, 5, 6]])
    settings.prompts = nil
    #expect(batch.prompts(settings).count == 1)
  }

  @Test func badSettingsAreRefused() {
    func refusal(_ change: (inout ContinuationSettings) -> Void) -> String {
      var settings = ContinuationSettings()
      change(&settings)
      return sentence { try settings.validate() }
    }
    #expect(refusal { _ in } == "no error")
    #expect(refusal { $0.temperature = -1 }.hasPrefix("the temperature of samples is -1.0"))
    #expect(refusal { $0.topP = 0 }.hasPrefix("top-p of samples is 0.0"))
    #expect(refusal { $0.maxNewTokens = 0 }.hasPrefix("the number of new tokens is 0"))
  }

  @Test func aTeachersOutputsAreWrittenAsRecordsThatTrainingsRead() throws {
    try withTemporaryDirectory { folder in
      let teacher = try PolicyModel(vocabulary: LetterData.vocabulary, endToken: 1).load(in: folder)
      let outputs = try TeacherOutputs(teacher: teacher, settings: settings, seed: 4)
      let stream = try LetterData.stream(folder, rows: 2, length: 12)
      func collect() throws -> [TrainingExample] {
        var all: [TrainingExample] = []
        try outputs.forEach(in: stream, count: 5) {
          all += $0
          return true
        }
        return all
      }
      let all = try collect()
      #expect(all.count == 5)
      #expect(try all == collect())
      let tokenizer = try LetterData.tokenizer()
      let line = try TeacherOutputs.line(all[0], isInstruction: true, tokenizer)
      let record = try JSON.parse(Array(line.dropLast()), name: "line")
      let prompt = try tokenizer.decode(Array(all[0].prompt))
      #expect(record["prompt"]?.bytes == prompt)
      #expect(
        record["response"]?.bytes
          == (try tokenizer.decode(Array(all[0].tokens[all[0].prompt.count...]))))
    }
  }
}
