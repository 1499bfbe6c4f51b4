import Evaluation
import Foundation
import Models
import TestSupport
import Testing

private func teacher() throws -> LanguageModel {
  try LanguageModel.load(
    SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources/stories").path)
}

/// −log p of a continuation is what perplexity sums over the same tokens.
@Test func teacherLikelihoodIsThatOfPerplexity() throws {
  let model = try teacher()
  let text = (0..<60).map { 3 + ($0 * 37) % 1000 }
  let whole = try Perplexity.measure(
    model, documents: [text], textBytes: 1, textName: "text",
    protocol: EvaluationProtocol(window: 512))
  for length in [1, 2, 30, 59] {
    let result = try TeacherLikelihood.measure(
      teacher: model, [.init(prompt: Array(text[..<length]), tokens: Array(text[length...]))])
    let expected = whole.tokenNLLs[(length - 1)...].map { -$0 }
    #expect(result.tokens == expected.count)
    for (a, b) in zip(result.tokenLogProbabilities[0], expected) { #expect(abs(a - b) < 1e-4) }
    #expect(abs(result.mean - expected.reduce(0, +) / Double(expected.count)) < 1e-4)
  }
}

@Test func aFirstTokenWithoutPromptIsNotScored() throws {
  let model = try teacher()
  let result = try TeacherLikelihood.measure(
    teacher: model,
    [
      .init(prompt: [], tokens: [5, 6, 7]), .init(prompt: [5], tokens: [6, 7]),
      .init(prompt: [5], tokens: []), .init(prompt: [], tokens: []),
    ])
  #expect(result.tokenLogProbabilities.map(\.count) == [2, 2, 0, 0])
  #expect(result.tokenLogProbabilities[0] == result.tokenLogProbabilities[1])
  #expect(result.tokens == 4 && result.standardError == 0)
}

@Test func errorsTakeTextsAsIndependent() throws {
  let model = try teacher()
  let texts = (0..<5).map { number in
    TeacherLikelihood.Continuation(
      prompt: [1, 10 + number], tokens: (0...number).map { 20 + 3 * $0 + number })
  }
  let result = try TeacherLikelihood.measure(teacher: model, texts)
  let (sums, counts) = (
    result.tokenLogProbabilities.map { $0.reduce(0, +) },
    result.tokenLogProbabilities.map { Double($0.count) }
  )
  let ratio = sums.reduce(0, +) / counts.reduce(0, +)
  let residuals = zip(sums, counts).map { ($0 - ratio * $1) * ($0 - ratio * $1) }
  let expected = (residuals.reduce(0, +) / 4 / 5).squareRoot() / (counts.reduce(0, +) / 5)
  #expect(abs(result.mean - ratio) < 1e-12)
  #expect(abs(result.standardError - expected) < 1e-12)
}

@Test func textsThatCannotBeScoredAreRefused() throws {
  let model = try teacher()
  #expect(throws: EvaluationError.self) { try TeacherLikelihood.measure(teacher: model, []) }
  #expect(throws: EvaluationError.self) {
    try TeacherLikelihood.measure(
      teacher: model, [.init(prompt: [1], tokens: [Int](repeating: 5, count: 512))])
  }
  #expect(throws: ModelError.self) {
    try TeacherLikelihood.measure(teacher: model, [.init(prompt: [1], tokens: [2048])])
  }
}
