package import Checkpoints
package import Models
package import Text

/// A student of the teacher's family and vocabulary that knows nothing yet.
package struct RandomStudent: Sendable {
  package let config: JSON
  private let initialization: ModelInitialization
  private let teacher: Checkpoint

  /// - Parameters:
  ///   - teacher: a model folder; only its config and tokenizer are read.
  ///   - shape: sizes that are not stated follow the teacher.
  /// - Throws: `badShape` for sizes that do not go together, `cannotShape` for one that the family
  ///   does not have; `ModelError`.
  package init(teacher: Checkpoint, shape: StudentShape) throws {
    let path = teacher.path
    let original = try LanguageModel.config(of: teacher)
    var config = try StudentConfig(original, path: path)
    let known = try ModelConfiguration(config: original, path: path)
    if let layers = shape.layers {
      let count = known.blocks.count
      try config.setLayers((0..<layers).map { $0 % count }, of: count)
    }
    if shape.statesWidth { try Self.setWidths(shape, known, &config) }
    config.set("quantization_config", nil)
    config.set("compression_config", nil)
    config.set("quantization", nil)
    config.setType("float32")
    self.config = config.json
    self.teacher = teacher
    initialization = try ModelInitialization(config: config.json, path: path)
    let made = initialization.configuration
    let (wanted, found) = (shape.keyValueHeads, made.blocks.first?.attention.keyValueHeads)
    if let wanted, wanted != found {
      throw DistillationError.cannotShape(
        path: path, problem: "\(made.modelType) models have no keyValueHeads of their own number")
    }
  }

  private static func setWidths(
    _ shape: StudentShape, _ teacher: ModelConfiguration, _ config: inout StudentConfig
  ) throws(DistillationError) {
    guard let attention = teacher.blocks.first?.attention else { return }
    let hidden = shape.hidden ?? teacher.hiddenSize
    let heads = shape.heads ?? attention.heads
    let keyValueHeads = keyValueHeads(shape, heads: heads, attention)
    try check(shape, hidden: hidden, heads: heads, attention)
    if shape.hidden != nil {
      try config.set("hidden", hidden)
      if config.has("word_embed_proj_dim") { config.set("word_embed_proj_dim", JSON(hidden)) }
    }
    if shape.heads != nil { try config.set("heads", heads) }
    if let intermediate = shape.intermediate { try config.set("intermediate", intermediate) }
    if config.has("num_key_value_heads") || keyValueHeads != heads {
      config.set("num_key_value_heads", JSON(keyValueHeads))
    }
    // A head's width that the family does not derive from the others is stated.
    let isDerived =
      !config.has("head_dim") && attention.headDim * attention.heads == teacher.hiddenSize
    if !isDerived, shape.hidden != nil || shape.heads != nil {
      config.set("head_dim", JSON(hidden / heads))
    }
  }

  /// Those of the teacher, unless each of its heads has its own.
  private static func keyValueHeads(
    _ shape: StudentShape, heads: Int, _ attention: AttentionConfiguration
  ) -> Int {
    shape.keyValueHeads
      ?? (attention.heads == attention.keyValueHeads ? heads : attention.keyValueHeads)
  }

  private static func check(
    _ shape: StudentShape, hidden: Int, heads: Int, _ attention: AttentionConfiguration
  ) throws(DistillationError) {
    guard hidden % heads == 0 else {
      throw .badShape(
        shape.description, problem: "hidden \(hidden) does not divide by \(heads) heads")
    }
    guard attention.rotary == nil || hidden / heads % 2 == 0 else {
      throw .badShape(
        shape.description, problem: "heads of \(hidden / heads) channels cannot be rotated in pairs"
      )
    }
    let keyValueHeads = keyValueHeads(shape, heads: heads, attention)
    guard heads % keyValueHeads == 0 else {
      throw .badShape(
        shape.description,
        problem: "\(heads) heads are no multiple of \(keyValueHeads) keyValueHeads")
    }
  }

  package var configuration: ModelConfiguration { initialization.configuration }

  /// Writes a Hugging Face folder with the teacher's tokenizer; `finish` is left to the caller.
  package func write(to directory: OutputDirectory, seed: UInt64) throws {
    try initialization.write(to: directory, seed: seed)
    try StudentFiles.copy(from: teacher, to: directory)
  }
}
