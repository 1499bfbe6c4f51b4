import Checkpoints
import Evaluation
import Foundation
import Models
import Tensors
import TestSupport
import Testing

private let stories = "models/stories260K"
private let other = "models/babyllama-tok361"

private func ids(_ count: Int) -> [Int] { (0..<count).map { 3 + $0 * 37 % 400 } }

/// Perplexity from whole rows of logits in Double, without chunks or caches.
private func nlls(_ model: LanguageModel, _ document: [Int], window: Int) throws -> [Double] {
  var result: [Double] = []
  for start in stride(from: 0, to: document.count, by: window) {
    let tokens = Array(document[start..<min(start + window, document.count)])
    if tokens.count < 2 { continue }
    try model.forEachLogits(of: tokens) { first, logits in
      for row in 0..<logits.rows where first + row + 1 < tokens.count {
        let values = (0..<logits.columns).map { Double(logits.floats[row * logits.columns + $0]) }
        let sum = log(values.reduce(0) { $0 + exp($1) })
        result.append(sum - values[tokens[first + row + 1]])
      }
    }
  }
  return result
}

@Test(.enabled(if: SharedFiles.exists(stories), "needs ../shared/models/stories260K"))
func perplexityIsTheMeanOverScoredTokens() throws {
  let model = try LanguageModel.load(SharedFiles.path(stories))
  let document = ids(150)
  let result = try Perplexity.measure(
    model, documents: [document], textBytes: 600, textName: "ids",
    protocol: EvaluationProtocol(window: 64))
  let expected = try nlls(model, document, window: 64)
  #expect(result.tokens == expected.count)
  for (a, b) in zip(result.tokenNLLs, expected) { #expect(abs(a - b) < 1e-4) }
  #expect(abs(result.perplexity - exp(result.nll)) < 1e-9)
  #expect(abs(result.bitsPerByte - result.nll / log(2) * 150 / 600) < 1e-9)
}

@Test(.enabled(if: SharedFiles.exists(stories), "needs ../shared/models/stories260K"))
func aCachedBaselineGivesTheSameDivergence() throws {
  let model = try LanguageModel.load(SharedFiles.path(stories))
  var altered = model
  altered.blocks.swapAt(1, 2)
  let documents = [ids(90)]
  let evaluation = try EvaluationProtocol(window: 32, stride: 16)
  func measure(_ baseline: BaselineLogits) throws -> Divergence {
    try Divergence.measure(
      altered, baseline: baseline, documents: documents, textName: "ids", protocol: evaluation)
  }
  try withTemporaryDirectory { folder in
    func cached(_ documents: [[Int]]) throws -> BaselineLogits {
      try BaselineLogits(
        model: model, cachedIn: folder, documents: documents, textName: "ids",
        protocol: evaluation)
    }
    let direct = try measure(BaselineLogits(model: model))
    let first = try measure(cached(documents))
    let second = try measure(cached(documents))
    #expect(direct.klMean > 0.01)
    #expect(direct.tokenKLs == first.tokenKLs)
    #expect(first.tokenKLs == second.tokenKLs)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 1)
    _ = try cached([ids(91)])
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder).count == 2)
  }
}

@Test(.enabled(if: SharedFiles.exists(stories), "needs ../shared/models/stories260K"))
func aTextWithNothingToScoreIsRefused() throws {
  let model = try LanguageModel.load(SharedFiles.path(stories))
  for documents in [[[]], [[5]], []] as [[[Int]]] {
    #expect(throws: EvaluationError.self) {
      try Perplexity.measure(
        model, documents: documents, textBytes: 1, textName: "empty.txt",
        protocol: EvaluationProtocol(window: 16))
    }
  }
  #expect {
    try Perplexity.measure(
      model, documents: [[1, 2, 100_000]], textBytes: 1, textName: "ids",
      protocol: EvaluationProtocol(window: 16))
  } throws: {
    "\($0)".contains("100000")
  }
  #expect {
    try Perplexity.measure(
      model, documents: [ids(20)], textBytes: 1, textName: "ids",
      protocol: EvaluationProtocol(window: 100_000))
  } throws: {
    "\($0)".contains("512")
  }
}

@Test(
  .enabled(
    if: SharedFiles.exists(stories) && SharedFiles.exists(other), "needs ../shared/models"))
func modelsOfDifferentVocabulariesAreNotCompared() throws {
  let a = try LanguageModel.load(SharedFiles.path(stories))
  let b = try LanguageModel.load(SharedFiles.path(other))
  #expect {
    try Divergence.measure(
      a, baseline: BaselineLogits(model: b), documents: [[1, 2, 3]], textName: "ids",
      protocol: EvaluationProtocol(window: 16))
  } throws: {
    "\($0)".contains("512") && "\($0)".contains("361")
  }
}
