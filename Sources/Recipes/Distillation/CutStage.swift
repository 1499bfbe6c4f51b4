import Checkpoints
import Distillation
import Models
import Text
import Tokenizers
import Training
import Yams

/// A stage of a recipe that makes a model smaller by leaving layers and channels out, for a
/// distillation to follow.
public struct CutStage: Sendable, Equatable {
  /// What is left: `layers=3,intermediate=256`.
  public var shape: String
  /// uniform, first, last, importance, or numbers.
  public var layers = "uniform"
  /// Text by which importance is measured; wanted where channels or layers are chosen by it.
  public var data: [String] = []
  /// Line of the recipe file where the stage begins.
  public var line: Int?

  init(_ node: Node) throws(RecipeError) {
    var fields = try Fields(node, "cut")
    line = fields.line
    guard let shape = try fields.text("shape") else {
      throw .malformed("cut lacks shape", line: fields.line)
    }
    self.shape = shape
    layers = try fields.text("layers") ?? layers
    data = try fields.texts("data") ?? []
    try fields.finish()
    do {
      _ = try StudentShape(parsing: shape)
      _ = try LayerChoice(parsing: layers)
    } catch {
      throw .malformed(error.description, line: line)
    }
  }

  var json: JSON {
    [
      "shape": JSON(shape), "layers": JSON(layers), "data": .array(data.map { JSON($0) }),
    ]
  }

  func run(model path: String, output: String, overwrite: Bool, seed: UInt64) throws {
    let teacher = try LanguageModel.load(path)
    let directory = try OutputDirectory(
      output, overwrite: overwrite, inputs: teacher.checkpoint.inputPaths)
    do {
      let importance = try data.isEmpty ? nil : measure(teacher, seed: seed)
      try StudentCut(
        teacher, shape: try StudentShape(parsing: shape),
        layers: try LayerChoice(parsing: layers), importance: importance
      ).write(to: directory)
      try directory.finish()
    } catch {
      directory.discard()
      throw error
    }
  }

  private func measure(_ teacher: LanguageModel, seed: UInt64) throws -> StudentImportance {
    let sources = try data.map { path throws(TrainingError) in try DataSource.detect(path: path) }
    let length = min(256, teacher.configuration.contextLength ?? 256)
    return try StudentImportance.measure(
      teacher, sources: sources, template: nil, length: length, seed: seed)
  }
}

extension StudentImportance {
  /// What a model's parts do on the first batches of some text.
  static func measure(
    _ model: LanguageModel, sources: [DataSource], template: ChatTemplate?, length: Int,
    seed: UInt64
  ) throws -> StudentImportance {
    let encoder = try ExampleEncoder(
      tokenizer: try TrainingRun.tokenizer(model.checkpoint), template: template,
      beginToken: model.configuration.beginToken, endTokens: model.endTokens)
    var stream = try TrainingStream(
      try TrainingData(sources, seed: seed), encoder: encoder,
      options: .init(rows: 8, length: length))
    var batches: [(tokens: [Int], segments: [Range<Int>])] = []
    for _ in 0..<8 {
      guard let batch = try stream.next() else { break }
      batches.append((batch.inputs, batch.segments))
    }
    return try StudentImportance.measure(model, batches: batches)
  }
}
