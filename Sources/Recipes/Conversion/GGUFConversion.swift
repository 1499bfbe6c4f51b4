import Checkpoints
import Codecs
import Models
import Tensors
import Text

/// A model written as one GGUF file, its tokenizer and chat template inside.
public struct GGUFConversion: Conversion {
  public let plan: ConversionPlan
  let source: WeightSource
  let metadata: GGUFMetadata
  let steps: [Step]

  /// One tensor of the file and where its numbers come from.
  struct Step {
    enum Content {
      case matrix(ModelTensor)
      /// Codes as they are, in blocks of the declared type.
      case grid(ModelTensor)
      case vector(ModelTensor)
      case values([Float])
    }
    var declaration: GGUFDeclaration
    var content: Content
    var form = GGUFArchitecture.Form.same
    var headDim = 1
    /// Mean square of each column's input, where the fit is weighted by it.
    var importance: [Float]?
  }

  /// Checks that the model can be a GGUF file and chooses each tensor's type; nothing is written.
  ///
  /// - Parameters:
  ///   - path: a model in any format, quantized or not.
  ///   - mix: the block types.
  ///   - importance: what the fits of block types that leave a choice are weighted by.
  /// - Throws: `CheckpointError`, `JSONError`, `ModelError`; `ImportanceError` where the importance
  ///   is of another model or does not cover what it should.
  public init(model path: String, mix: GGUFMix, importance: ImportanceSource? = nil) throws {
    try self.init(model: path, types: .mix(mix), importance: importance)
  }

  /// Keeps every code: quantized matrices get the block type that holds their grid, dense ones stay.
  ///
  /// - Parameters:
  ///   - path: a model in any format, some matrices quantized.
  ///   - requantizes: rounds matrices to Q8_0 whose grid no block type holds.
  /// - Throws: `ConversionError.refused` naming tensors and reasons; as `init(model:mix:)`.
  public init(model path: String, requantizes: Bool) throws {
    try self.init(model: path, types: .stored(requantizes: requantizes), importance: nil)
  }

  private enum Types {
    case mix(GGUFMix)
    case stored(requantizes: Bool)
  }

  private init(model path: String, types: Types, importance: ImportanceSource?) throws {
    let checkpoint = try Checkpoint.openModel(path)
    let source = try WeightSource(checkpoint)
    self.source = source
    let model = source.configuration
    if source.quantization?.transforms.isEmpty == false {
      throw ModelError.notForGGUF(
        ["inputs are rotated at run time, which no GGUF engine does: rotate with online: false"],
        path: path)
    }
    let family = GGUFArchitecture.all.first { $0.modelTypes.contains(model.modelType) }
    guard let family, !model.blocks.isEmpty else {
      throw ModelError.notForGGUF(
        ["llama.cpp has no architecture for \(model.modelType)"], path: path)
    }
    let description = GGUFDescription(model, as: family)
    guard description.refusals.isEmpty else {
      throw ModelError.notForGGUF(description.refusals, path: path)
    }
    var notes = description.notes
    var refusals: [ConversionError.Refusal] = []
    var steps: [Step] = []
    var rows: [ConversionPlan.Row] = []
    for tensor in model.tensors {
      let name = source.storedName(tensor.name)
      guard let (gguf, form) = family.ggufName(tensor) else {
        throw ModelError.notForGGUF(["GGUF has no name for \(name)"], path: path)
      }
      var (step, note) = Self.step(tensor, gguf, form, types, model)
      if case .stored(let requantizes) = types {
        var weight: (any Weight)?
        if case .matrix = step.content { weight = try source.matrix(tensor) }
        do throws(CodecError) {
          note = try Self.keepGrid(weight, &step, tensor, source)
        } catch {
          guard requantizes else {
            refusals.append(.init(tensor: name, reason: error.description))
            continue
          }
          step.declaration.type = Self.roundedType(tensor)
          note = "rounded anew"
        }
      }
      try Self.append(step, from: name, of: tensor, note: note, source, &steps, &rows)
      if tensor.role == .embedding, model.head.isTied, family.repeatsTiedHead {
        var head = step
        head.declaration.name = "output.weight"
        try Self.append(
          head, from: name, of: tensor, note: "llama.cpp wants the tied head again", source, &steps,
          &rows)
        rows[rows.count - 1].source = nil
      }
    }
    if let importance {
      try Self.weigh(&steps, &rows, by: importance, lookedUp: model.head.isTied ? [] : [.embedding])
      notes += importance.notes
    }
    if family.fillsBiases { Self.fillBiases(model, family, &steps, &rows) }
    for (name, values) in description.extraTensors {
      let declaration = GGUFDeclaration(name: name, type: .f32, shape: [values.count])
      steps.append(Step(declaration: declaration, content: .values(values)))
      rows.append(Self.row(declaration, from: nil, note: "rotary frequencies' divisors"))
    }
    guard refusals.isEmpty else {
      throw ConversionError.refused(refusals, target: "gguf", path: path)
    }
    if case .stored = types, steps.allSatisfy({ $0.declaration.type.blockLength == 1 }) {
      throw ConversionError.nothingQuantized(target: "gguf", path: path)
    }
    let base = Self.base(types, steps)
    var metadata = try Self.metadata(description, source, base, &notes)
    importance?.describe(&metadata)
    self.steps = steps
    self.metadata = metadata
    if rows.contains(where: { $0.note?.contains("rounded to F16") == true }) {
      notes.append("codes stay; scales or minima are rounded to float16 where a tensor says so")
    }
    plan = ConversionPlan(
      model: path, modelType: model.modelType, format: "gguf", type: base.rawValue, rows: rows,
      notes: notes)
  }

  // MARK: Planning

  private static func step(
    _ tensor: ModelTensor, _ name: String, _ form: GGUFArchitecture.Form,
    _ types: Types, _ model: ModelConfiguration
  ) -> (Step, note: String?) {
    let isQuantizable = tensor.isMatrix && tensor.role.canBeQuantized
    let attention = model.blocks[tensor.block ?? 0].attention
    let place = GGUFMix.Place(
      block: tensor.block ?? 0, blocks: model.blocks.count,
      headsPerGroup: attention.heads / attention.keyValueHeads, isTied: model.head.isTied)
    var type = GGUFType.f32
    var note: String?
    if isQuantizable, case .mix(let mix) = types {
      (type, note) = mix.type(of: tensor.role, inputs: tensor.inputs, place)
    }
    let shape = tensor.isMatrix ? [tensor.outputs, tensor.inputs] : tensor.shape
    return (
      Step(
        declaration: GGUFDeclaration(name: name, type: type, shape: shape),
        content: isQuantizable ? .matrix(tensor) : .vector(tensor), form: form,
        headDim: attention.headDim), note
    )
  }

  /// Gives a step the type that holds its matrix as it is.
  /// - Returns: what is rounded on the way.
  /// - Throws: `CodecError` where no type does.
  private static func keepGrid(
    _ weight: (any Weight)?, _ step: inout Step, _ tensor: ModelTensor, _ source: WeightSource
  ) throws(CodecError) -> String? {
    switch weight {
    case nil: return nil
    case let blocks as BlockQuantizedWeight:
      step.declaration.type = blocks.type
      step.content = .grid(tensor)
      return nil
    case let weight as any AffineWeight:
      let (type, rounding) = try GGUFBlocks.type(
        holding: weight.openGrid(), codes: weight.openCodes)
      step.declaration.type = type
      step.content = .grid(tensor)
      return rounding
    default:
      let types: [DType: GGUFType] = [.float16: .f16, .bfloat16: .bf16]
      step.declaration.type =
        source.checkpoint.info(source.storedName(tensor.name)).flatMap { types[$0.dtype] } ?? .f32
      return nil
    }
  }

  /// What a matrix is rounded to that no type holds.
  private static func roundedType(_ tensor: ModelTensor) -> GGUFType {
    tensor.inputs % GGUFType.q8_0.blockLength == 0 ? .q8_0 : .f16
  }

  /// What the file calls itself: the commonest type of its matrices.
  private static func base(_ types: Types, _ steps: [Step]) -> GGUFMix {
    if case .mix(let mix) = types { return mix }
    var counts: [GGUFType: Int] = [:]
    for step in steps where step.declaration.shape.count > 1 {
      counts[step.declaration.type, default: 0] += 1
    }
    let most = counts.max { ($0.value, $1.key.rawValue) < ($1.value, $0.key.rawValue) }?.key
    return GGUFMix.allCases.first { $0.base == most } ?? .f32
  }

  private static func append(
    _ step: Step, from name: String, of tensor: ModelTensor, note: String?, _ source: WeightSource,
    _ steps: inout [Step], _ rows: inout [ConversionPlan.Row]
  ) throws {
    steps.append(step)
    var row = Self.row(step.declaration, from: name, note: note)
    let stored = source.storage(of: tensor)
    row.from = stored.name
    row.bytesBefore = stored.byteCount
    rows.append(row)
  }

  /// Gives every matrix whose type leaves a choice its importance.
  /// - Parameter lookedUp: roles of tables that nothing is multiplied by.
  private static func weigh(
    _ steps: inout [Step], _ rows: inout [ConversionPlan.Row], by importance: ImportanceSource,
    lookedUp: Set<Role>
  ) throws(ImportanceError) {
    var missing: [String] = []
    for index in steps.indices {
      guard case .matrix(let tensor) = steps[index].content,
        let codec = try? GGUFBlocks(steps[index].declaration.type), codec.usesImportance,
        !lookedUp.contains(tensor.role)
      else { continue }
      let name = steps[index].declaration.name
      guard let values = importance.matrix.meanSquares(name) else {
        missing.append(name)
        let note = "unweighted: no importance"
        rows[index].note = rows[index].note.map { "\($0); \(note)" } ?? note
        continue
      }
      guard values.count == tensor.inputs else {
        throw .wrongColumns(
          tensor: name, columns: tensor.inputs, found: values.count, file: importance.name)
      }
      steps[index].importance = values
    }
    guard missing.isEmpty || importance.missing == .ignore else {
      throw .missing(missing, file: importance.name)
    }
  }

  private static func row(
    _ declaration: GGUFDeclaration, from source: String?, note: String?
  ) -> ConversionPlan.Row {
    ConversionPlan.Row(
      name: declaration.name, source: source, shape: declaration.shape, from: "-",
      to: declaration.type.name, bytesBefore: 0, bytesAfter: declaration.byteCount ?? 0, note: note)
  }

  /// Zeros for the biases that the model does not have and llama.cpp wants.
  private static func fillBiases(
    _ model: ModelConfiguration, _ family: GGUFArchitecture, _ steps: inout [Step],
    _ rows: inout [ConversionPlan.Row]
  ) {
    for (index, block) in model.blocks.enumerated() {
      for linear in block.linears where !linear.hasBias {
        let bias = ModelTensor(
          name: "\(linear.name).bias", shape: [linear.outputs], role: .bias, block: index)
        guard let (name, _) = family.ggufName(bias) else { continue }
        let declaration = GGUFDeclaration(name: name, type: .f32, shape: bias.shape)
        steps.append(
          Step(
            declaration: declaration, content: .values(.init(repeating: 0, count: linear.outputs))))
        rows.append(row(declaration, from: nil, note: "no bias: zeros"))
      }
    }
  }

  private static func metadata(
    _ description: GGUFDescription, _ source: WeightSource, _ base: GGUFMix, _ notes: inout [String]
  ) throws -> GGUFMetadata {
    var metadata = description.metadata
    let checkpoint = source.checkpoint
    let path = checkpoint.path.split(separator: "/").last.map(String.init) ?? checkpoint.path
    metadata.set("general.name", path.hasSuffix(".gguf") ? String(path.dropLast(5)) : path)
    metadata.set("general.file_type", base.fileType)
    if base.base.blockLength > 1 { metadata.set("general.quantization_version", 2) }
    let files = checkpoint.sideFiles
    guard files.contains("tokenizer.json") else {
      metadata.set("tokenizer.ggml.model", "no_vocab")
      notes.append("\(checkpoint.path) has no tokenizer.json, so the file has no tokenizer")
      return metadata
    }
    func json(_ name: String) throws -> JSON? {
      guard files.contains(name) else { return nil }
      return try JSON.parse(checkpoint.readSideFile(name), name: "\(checkpoint.path)/\(name)")
    }
    let original = try checkpoint.readSideFile("tokenizer.json")
    let settings = try json("tokenizer_config.json")
    var tokenizer = try GGUFTokenizerDescription(
      try JSON.parse(original, name: "\(checkpoint.path)/tokenizer.json"), settings: settings,
      vocabularySize: source.configuration.vocabularySize, path: checkpoint.path)
    var template = settings?["chat_template"].flatMap { template in
      template.bytes
        ?? template.array?.first { $0["name"]?.string == "default" }?["template"]?.bytes
    }
    if files.contains("chat_template.jinja") {
      template = try checkpoint.readSideFile("chat_template.jinja")
    }
    tokenizer.write(
      to: &metadata, begin: source.configuration.beginToken,
      ends: try LanguageModel.endTokens(of: checkpoint, source.configuration), template: template,
      original: original)
    notes += tokenizer.notes
    return metadata
  }
}

extension WeightSource {
  /// How a declared tensor is stored, and in how many bytes.
  func storage(of tensor: ModelTensor) -> (name: String, byteCount: Int) {
    guard let scheme = scheme(of: tensor) else {
      let info = checkpoint.info(storedName(tensor.name))
      return (info?.storage ?? "-", info?.byteCount ?? 0)
    }
    let module = storedName(tensor.module)
    let bytes = scheme.componentSuffixes.reduce(0) {
      $0 + (checkpoint.info("\(module).\($1)")?.byteCount ?? 0)
    }
    return ("\(scheme.bits) bits", bytes)
  }
}
