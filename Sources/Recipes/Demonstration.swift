import Checkpoints
import Evaluation
import Foundation
import Models
import Runtime
public import Text
import Tokenizers

/// The default model at 8, 4, 3 and 2 bits: what it weighs, what that cost, how it speaks.
public struct Demonstration {
  public struct Row: Sendable {
    public var name: String
    public var bytes: Int
    public var bitsPerWeight: Double
    public var perplexity: Double
    public var perplexityStandardError: Double
    /// Against the original; nil for the original itself.
    public var klMean: Double?
    public var klStandardError: Double?
    public var sameTop: Double?
    public var tokensPerSecond: Double
    public var sample: String
  }

  /// Where the quantized models are kept; nil keeps none.
  public var keep: String?
  private let original: LanguageModel
  private let tokenizer: Tokenizer
  private let documents: [[Int]]
  private let textBytes: Int
  private let evaluation: EvaluationProtocol

  private static let bits = [8, 4, 3, 2]
  private static let groupSize = 64
  private static let prompt = "One day, a little"
  private static let sampleTokens = 48

  /// - Throws: `RecipeError.defaultModelMissing`; whatever reading the model throws.
  public init() throws {
    original = try LanguageModel.load(DefaultModel.modelPath())
    tokenizer = try Tokenizer(path: "\(original.checkpoint.folder)/tokenizer.json")
    let text = [UInt8](try Data(contentsOf: URL(filePath: DefaultModel.heldOutPath())))
    documents = [try tokenizer.encode(text, addSpecialTokens: false)]
    textBytes = text.count
    evaluation = try EvaluationProtocol(
      window: original.configuration.contextLength ?? 512,
      beginToken: original.configuration.beginToken)
  }

  public var introduction: String {
    let configuration = original.configuration
    return """
      The model that comes with Pare: \(configuration.modelType), \
      \(configuration.blocks.count) layers of \(configuration.hiddenSize), \
      vocabulary \(configuration.vocabularySize).
      Its block matrices are rounded to nearest, groups of \(Self.groupSize), with a clipping search.
      """
  }

  public var textDescription: String {
    "\(textBytes) bytes of held-out stories; \(evaluation.name)"
  }

  /// - Parameter onProgress: `(steps done, steps in all, what comes)`.
  public func run(_ onProgress: (Int, Int, String) throws -> Void) throws -> [Row] {
    let steps = 1 + Self.bits.count
    let folder = try OutputDirectory(
      keep ?? NSTemporaryDirectory() + "pare-demo-\(ProcessInfo.processInfo.processIdentifier)",
      overwrite: false)
    defer { folder.discard() }
    try onProgress(0, steps, "the original")
    var rows = [try originalRow()]
    for (index, bits) in Self.bits.enumerated() {
      try onProgress(1 + index, steps, "\(bits) bits")
      var stage = QuantizeStage()
      stage.bits = bits
      stage.granularity = .group(Self.groupSize)
      stage.isSymmetric = false
      stage.clipping = .mse
      let report = try Compression(
        Recipe(name: "demo", stages: [.quantize(stage)]), model: original.checkpoint.path
      ).run(output: "\(folder.path)/\(bits)-bits", overwrite: false)
      rows.append(try row(report, bits: bits))
    }
    try onProgress(steps, steps, "done")
    if keep != nil { try folder.finish() }
    return rows
  }

  private func originalRow() throws -> Row {
    let perplexity = try Perplexity.measure(
      original, documents: documents, textBytes: textBytes, textName: "held-out.txt",
      protocol: evaluation)
    let inspection = try Inspection(original.checkpoint.path)
    let (sample, speed) = try sample(original)
    return Row(
      name: "original", bytes: inspection.bytes, bitsPerWeight: inspection.bitsPerWeight,
      perplexity: perplexity.perplexity,
      perplexityStandardError: perplexity.perplexityStandardError, tokensPerSecond: speed,
      sample: sample)
  }

  private func row(_ report: Report, bits: Int) throws -> Row {
    let model = try LanguageModel.load(report.output)
    let divergence = try Divergence.measure(
      model, baseline: BaselineLogits(model: original), documents: documents,
      textName: "held-out.txt", protocol: evaluation)
    let (sample, speed) = try sample(model)
    return Row(
      name: "\(bits) bits", bytes: report.plan.bytesAfter,
      bitsPerWeight: report.plan.bitsPerWeight, perplexity: divergence.perplexity,
      perplexityStandardError: divergence.perplexityStandardError, klMean: divergence.klMean,
      klStandardError: divergence.klStandardError, sameTop: divergence.sameTop,
      tokensPerSecond: speed, sample: sample)
  }

  /// The most probable continuation, and how fast it came.
  private func sample(_ model: LanguageModel) throws -> (String, tokensPerSecond: Double) {
    let prompt =
      (model.configuration.beginToken.map { [$0] } ?? [])
      + (try tokenizer.encode(Self.prompt, addSpecialTokens: false))
    var generator = Generator(model: model)
    let result = try generator.generate(prompt: prompt, maxTokens: Self.sampleTokens)
    let text = String(decoding: try tokenizer.decode(prompt + result.ids), as: UTF8.self)
    return (text.split(whereSeparator: \.isNewline).joined(separator: " "), result.tokensPerSecond)
  }
}

extension Demonstration.Row {
  public var json: JSON {
    [
      "name": JSON(name), "bytes": JSON(bytes), "bits_per_weight": JSON(bitsPerWeight),
      "perplexity": JSON(perplexity),
      "perplexity_standard_error": JSON(perplexityStandardError),
      "kl_mean": klMean.map { JSON($0) } ?? .null,
      "kl_standard_error": klStandardError.map { JSON($0) } ?? .null,
      "same_top": sameTop.map { JSON($0) } ?? .null, "tokens_per_second": JSON(tokensPerSecond),
      "text": JSON(sample),
    ]
  }
}
