import Evaluation
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Text

/// What sacrebleu and rouge-score give (Scripts/fixtures/generation_metrics.py).
private let golden: JSON = {
  let path = SharedFiles.packageRoot.appending(path: "Tests/Golden/generation/metrics.json")
  return (try? JSON.parse([UInt8](Data(contentsOf: path)), name: "metrics.json")) ?? .null
}()

private let samples: [(sample: GenerationQuality.Sample, expected: JSON)] =
  (golden["samples"]?.array ?? []).map { json in
    (
      GenerationQuality.Sample(
        prediction: json["prediction"]?.string ?? "",
        references: (json["references"]?.array ?? []).compactMap(\.string)), json
    )
  }

private func numbers(_ json: JSON?) -> [Double] { json?.array?.compactMap(\.double) ?? [] }

private func areClose(_ a: [Double], _ b: [Double]) -> Bool {
  a.count == b.count && zip(a, b).allSatisfy { abs($0 - $1) <= 1e-10 * max(1, abs($1)) }
}

private func expectSame(_ score: BLEU, _ json: JSON?, _ comment: Comment) {
  #expect(areClose([score.score], [json?["score"]?.double ?? -1]), comment)
  #expect(areClose(score.precisions, numbers(json?["precisions"])), comment)
  #expect(areClose([score.brevityPenalty], [json?["brevity_penalty"]?.double ?? -1]), comment)
  #expect(score.counts.matches == json?["matches"]?.array?.compactMap(\.int), comment)
  #expect(score.counts.totals == json?["totals"]?.array?.compactMap(\.int), comment)
  #expect(score.counts.predictedLength == json?["predicted_length"]?.int, comment)
  #expect(score.counts.referenceLength == json?["reference_length"]?.int, comment)
}

@Test func theGoldenScoresAreThere() { #expect(samples.count >= 60) }

@Test func wordsAreThoseOfSacreBLEU() {
  for (sample, json) in samples {
    let words = WordTokenization.mteval13a(sample.prediction)
    #expect(words == json["words"]?.array?.compactMap(\.bytes), "\(sample.prediction)")
  }
}

@Test(arguments: [false, true])
func sentenceBLEUIsThatOfSacreBLEU(lowercased: Bool) {
  for (sample, json) in samples {
    expectSame(
      BLEU(
        sentence: sample.prediction, references: sample.references, lowercased: lowercased),
      json[lowercased ? "bleu_lowercased" : "bleu"], "\(sample.prediction)")
  }
}

@Test(arguments: [false, true])
func rougeIsThatOfRougeScore(stemmed: Bool) {
  for (sample, json) in samples {
    let rouge = ROUGE(sample.prediction, references: sample.references, stemmed: stemmed)
    let expected = json[stemmed ? "rouge_stemmed" : "rouge"]
    for (name, score) in [
      ("rouge1", rouge.rouge1), ("rouge2", rouge.rouge2), ("rougeL", rouge.rougeL),
    ] {
      #expect(
        areClose([score.precision, score.recall, score.f1], numbers(expected?[name])),
        "\(name) of \(sample.prediction)")
    }
  }
}

@Test(arguments: [false, true])
func corpusScoresAreThoseOfSacreBLEU(lowercased: Bool) throws {
  let corpora = golden["corpora"]?.array ?? []
  #expect(corpora.count >= 5)
  for corpus in corpora {
    let chosen = (corpus["samples"]?.array ?? []).compactMap(\.int).map { samples[$0].sample }
    let quality = try GenerationQuality.measure(
      chosen, settings: .init(lowercased: lowercased))
    expectSame(
      quality.bleu, corpus[lowercased ? "bleu_lowercased" : "bleu"],
      "\(corpus["name"]?.string ?? "")")
    #expect(areClose(quality.distinct.ratios, numbers(corpus["distinct"]?["ratios"])))
    #expect(quality.distinct.words == corpus["distinct"]?["words"]?.int)
    #expect(quality.bleuStandardError.isFinite)
  }
}

@Test func stemsAreThoseOfNLTK() {
  let stems = golden["stems"]?.array ?? []
  #expect(stems.count > 150)
  for pair in stems.compactMap(\.array) {
    let (word, stem) = (pair[0].bytes ?? [], pair[1].bytes ?? [])
    #expect(
      PorterStemmer.stem(word) == stem, "\(String(decoding: word, as: UTF8.self))")
  }
}

/// Subsequences of the shorter list, tried from the longest on.
@Test func theLongestCommonSubsequenceIsThatOfTryingAll() {
  var random = Xoshiro256(seed: 5)
  for _ in 0..<200 {
    let a = (0..<Int.random(in: 0...8, using: &random)).map { _ in
      Int.random(in: 0..<3, using: &random)
    }
    let b = (0..<Int.random(in: 0...12, using: &random)).map { _ in
      Int.random(in: 0..<3, using: &random)
    }
    var best = 0
    for mask in 0..<(1 << a.count) {
      let part = a.indices.filter { mask >> $0 & 1 == 1 }.map { a[$0] }
      var rest = b[...]
      let isContained = part.allSatisfy { element in
        guard let place = rest.firstIndex(of: element) else { return false }
        rest = rest[(place + 1)...]
        return true
      }
      if isContained { best = max(best, part.count) }
    }
    #expect(ROUGE.longestCommonSubsequence(a, b) == best)
    #expect(ROUGE.longestCommonSubsequence(b, a) == best)
  }
}

@Test func theJackknifeErrorIsThatOfLeavingOutTexts() {
  let texts = samples.filter { $0.sample.references.count == 1 }.suffix(12).map(\.sample)
  let counts = texts.map { BLEU.Counts($0.prediction, references: $0.references) }
  let scores = texts.indices.map { left in
    var sum = BLEU.Counts()
    for (index, count) in counts.enumerated() where index != left { sum += count }
    return BLEU(sum).score
  }
  let mean = scores.reduce(0, +) / 12
  let variance = scores.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } * 11 / 12
  #expect(abs(BLEU.standardError(counts) - variance.squareRoot()) < 1e-12)
  #expect(BLEU.standardError(Array(counts.prefix(1))) == 0)
}

@Test func textsWithoutReferencesAreRefused() {
  #expect(throws: EvaluationError.self) { try GenerationQuality.measure([]) }
  #expect(throws: EvaluationError.self) {
    try GenerationQuality.measure([.init(prediction: "a", references: [])])
  }
}

@Test func protocolsNameWhatChangesTheScores() throws {
  let one = GenerationQuality.Sample(prediction: "a", references: ["a"])
  let two = GenerationQuality.Sample(prediction: "a", references: ["a", "b"])
  let names = [
    try GenerationQuality.measure([one]), try GenerationQuality.measure([two]),
    try GenerationQuality.measure([one, two]),
    try GenerationQuality.measure([one], settings: .init(stemmed: true)),
    try GenerationQuality.measure([one], settings: .init(lowercased: true)),
  ].map(\.protocolNames)
  #expect(Set(names).count == names.count)
}
