import Evaluation
import Foundation
import Models
import TestSupport
import Testing
import Text
import Tokenizers

/// What transformers measured (Scripts/parity_perplexity.py).
struct MeasuredPerplexity: Sendable, CustomStringConvertible {
  var model: String
  var window, stride, tokens: Int
  var bos: Bool
  var perplexity: Double
  var description: String { "\(model), window \(window)" }

  static let all: [MeasuredPerplexity] = {
    let path = SharedFiles.packageRoot.appending(path: "Tests/Golden/perplexity.json")
    guard let data = try? Data(contentsOf: path),
      let rows = try? JSON.parse([UInt8](data), name: "perplexity.json").array
    else { return [] }
    return rows.map { row in
      MeasuredPerplexity(
        model: row["model"]?.string ?? "", window: row["window"]?.int ?? 0,
        stride: row["stride"]?.int ?? 0, tokens: row["tokens"]?.int ?? 0,
        bos: row["bos"]?.bool ?? false, perplexity: row["perplexity"]?.double ?? 0)
    }
  }()
}

private let text = "corpora/tinystories/valid.txt"

@Test(
  .enabled(if: longTestsAreOn, "long: set PARE_LONG_TESTS=1"),
  .enabled(
    if: SharedFiles.exists(text) && SharedFiles.exists("models/stories260K"), "needs ../shared"),
  arguments: MeasuredPerplexity.all)
func perplexityIsThatOfTransformers(measured: MeasuredPerplexity) throws {
  let model = try LanguageModel.load(SharedFiles.path(measured.model))
  let tokenizer = try Tokenizer(path: SharedFiles.path("\(measured.model)/tokenizer.json"))
  let bytes = [UInt8](try Data(contentsOf: URL(filePath: SharedFiles.path(text))))
  let result = try Perplexity.measure(
    model, documents: [tokenizer.encode(bytes, addSpecialTokens: false)], textBytes: bytes.count,
    textName: text,
    protocol: EvaluationProtocol(
      window: measured.window, stride: measured.stride,
      beginToken: measured.bos ? model.configuration.beginToken : nil))
  #expect(result.tokens == measured.tokens)
  #expect(abs(result.perplexity / measured.perplexity - 1) < 1e-4)
}

@Test func theParityFiguresAreThere() { #expect(MeasuredPerplexity.all.count >= 4) }
