import Calibration
import Checkpoints
package import Models
import Text
import Tokenizers
import Training
import Yams

/// On what a model's activations are measured.
public struct CalibrationRequest: Sendable, Equatable {
  /// Text, JSONL or token ids; nil: the model writes its own.
  public var data: String?
  /// Field of JSONL records that holds the text or the messages.
  public var field: String?
  /// Whether `data` holds token ids, an array a line.
  public var areTokens = false
  /// Name of a chat template or a file that holds one; nil for the model's own.
  public var chatTemplate: String?
  /// Rows; nil: 128, or 32 of text that the model writes.
  public var samples: Int?
  /// Tokens of a row; nil: 2048, or 512 of text that the model writes, within the context.
  public var length: Int?
  /// Decides which rows; nil: the recipe's seed.
  public var seed: UInt64?
  /// Line of the recipe file where it begins.
  public var line: Int?

  public init(data: String? = nil) { self.data = data }

  init(_ node: Node) throws(RecipeError) {
    var fields = try Fields(node, "calibration")
    line = fields.line
    data = try fields.text("data")
    field = try fields.text("field")
    areTokens = try fields.flag("token_ids") ?? false
    chatTemplate = try fields.text("chat_template")
    samples = try fields.integer("samples")
    length = try fields.integer("length")
    seed = try fields.integer("seed").map { UInt64(clamping: $0) }
    try fields.finish()
    try validate()
  }

  package func validate() throws(RecipeError) {
    if let samples, samples < 1 {
      throw .badSetting("samples", value: String(samples), expected: "1 or more", line: line)
    }
    if let length, length < 2 {
      throw .badSetting("length", value: String(length), expected: "2 or more", line: line)
    }
    if data == nil, field != nil || areTokens || chatTemplate != nil {
      throw .contradiction("calibration says how to read data, but names none", line: line)
    }
  }

  var json: JSON {
    var fields: [(String, JSON)] = [("data", data.map { JSON($0) } ?? .null)]
    if let field { fields.append(("field", JSON(field))) }
    if areTokens { fields.append(("token_ids", true)) }
    if let chatTemplate { fields.append(("chat_template", JSON(chatTemplate))) }
    if let samples { fields.append(("samples", JSON(samples))) }
    if let length { fields.append(("length", JSON(length))) }
    if let seed { fields.append(("seed", .number(JSONNumber(Int(clamping: seed))))) }
    return .object(JSONObject(fields))
  }

  /// The request with every default spelled out for one model.
  package func resolved(for configuration: ModelConfiguration, seed: UInt64) -> Resolved {
    let context = configuration.contextLength ?? .max
    return Resolved(
      samples: samples ?? (data == nil ? 32 : 128),
      length: min(length ?? (data == nil ? 512 : 2048), context), seed: self.seed ?? seed)
  }

  package struct Resolved: Sendable, Equatable {
    package var samples: Int
    package var length: Int
    package var seed: UInt64
  }

  /// Reads or writes the samples.
  ///
  /// - Parameter onProgress: told the tokens of text that the model writes.
  /// - Throws: `CalibrationError`, `TrainingError` for data that cannot be read.
  func open(
    _ model: LanguageModel, seed: UInt64, onProgress: (_ tokens: Int, _ wanted: Int) throws -> Void
  ) throws -> CalibrationSet {
    let settings = resolved(for: model.configuration, seed: seed)
    guard let data else {
      return try SelfWrittenText(seed: settings.seed).write(
        model, samples: settings.samples, length: settings.length, onProgress: onProgress)
    }
    if areTokens {
      return try CalibrationSet.tokens(
        file: data, bytes: try FileProbe.read(data),
        vocabulary: model.configuration.vocabularySize, samples: settings.samples,
        length: settings.length)
    }
    var source = try DataSource.detect(path: data)
    switch source.format {
    case .records: if let field { source.format = .records(field: field) }
    case .chat: if let field { source.format = .chat(field: field) }
    case .instructions, .text:
      if let field { source.format = .records(field: field) }
    }
    let encoder = try ExampleEncoder(
      tokenizer: try TrainingRun.tokenizer(model.checkpoint),
      template: try TrainingRun.template(chatTemplate, model.checkpoint),
      beginToken: model.configuration.beginToken, endTokens: model.endTokens)
    return try CalibrationSet.packed(
      try TrainingData(
        [source], seed: settings.seed, partBytes: max(1 << 16, 16 * settings.length)),
      encoder: encoder, samples: settings.samples, length: settings.length)
  }
}
