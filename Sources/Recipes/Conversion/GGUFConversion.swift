import Checkpoints
import Codecs
import Models
import Tensors
import Text

/// A model written as one GGUF file, its tokenizer and chat template inside.
public struct GGUFConversion: Conversion {
  public let plan: ConversionPlan
  private let source: WeightSource
  private let metadata: GGUFMetadata
  private let steps: [Step]

  /// One tensor of the file and where its numbers come from.
  private struct Step {
    enum Content {
      case matrix(ModelTensor)
      case vector(ModelTensor)
      case values([Float])
    }
    var declaration: GGUFDeclaration
    var content: Content
    var form = GGUFArchitecture.Form.same
    var headDim = 1
  }

  /// Checks that the model can be a GGUF file and chooses each tensor's type; nothing is written.
  ///
  /// - Parameters:
  ///   - path: a model in any format, quantized or not.
  ///   - mix: the block types.
  /// - Throws: `CheckpointError`, `JSONError`, `ModelError`.
  public init(model path: String, mix: GGUFMix) throws {
    let checkpoint = try Checkpoint.openModel(path)
    let source = try WeightSource(checkpoint)
    self.source = source
    let model = source.configuration
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
    metadata = try Self.metadata(description, source, mix, &notes)
    var steps: [Step] = []
    var rows: [ConversionPlan.Row] = []
    for tensor in model.tensors {
      let name = source.storedName(tensor.name)
      guard let (gguf, form) = family.ggufName(tensor) else {
        throw ModelError.notForGGUF(["GGUF has no name for \(name)"], path: path)
      }
      let (step, note) = Self.step(tensor, gguf, form, mix, model)
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
    if family.fillsBiases { Self.fillBiases(model, family, &steps, &rows) }
    for (name, values) in description.extraTensors {
      let declaration = GGUFDeclaration(name: name, type: .f32, shape: [values.count])
      steps.append(Step(declaration: declaration, content: .values(values)))
      rows.append(Self.row(declaration, from: nil, note: "rotary frequencies' divisors"))
    }
    self.steps = steps
    plan = ConversionPlan(
      model: path, modelType: model.modelType, format: "gguf", type: mix.rawValue, rows: rows,
      notes: notes)
  }

  // MARK: Planning

  private static func step(
    _ tensor: ModelTensor, _ name: String, _ form: GGUFArchitecture.Form, _ mix: GGUFMix,
    _ model: ModelConfiguration
  ) -> (Step, note: String?) {
    let isQuantizable = tensor.isMatrix && tensor.role.canBeQuantized
    let attention = model.blocks[tensor.block ?? 0].attention
    let place = GGUFMix.Place(
      block: tensor.block ?? 0, blocks: model.blocks.count,
      headsPerGroup: attention.heads / attention.keyValueHeads, isTied: model.head.isTied)
    let (type, note) =
      isQuantizable ? mix.type(of: tensor.role, inputs: tensor.inputs, place) : (.f32, nil)
    let shape = tensor.isMatrix ? [tensor.outputs, tensor.inputs] : tensor.shape
    return (
      Step(
        declaration: GGUFDeclaration(name: name, type: type, shape: shape),
        content: isQuantizable ? .matrix(tensor) : .vector(tensor), form: form,
        headDim: attention.headDim), note
    )
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
    _ description: GGUFDescription, _ source: WeightSource, _ mix: GGUFMix, _ notes: inout [String]
  ) throws -> GGUFMetadata {
    var metadata = description.metadata
    let checkpoint = source.checkpoint
    let path = checkpoint.path.split(separator: "/").last.map(String.init) ?? checkpoint.path
    metadata.set("general.name", path.hasSuffix(".gguf") ? String(path.dropLast(5)) : path)
    metadata.set("general.file_type", mix.fileType)
    if mix.base.blockLength > 1 { metadata.set("general.quantization_version", 2) }
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

  // MARK: Writing

  public func run(
    output: String, overwrite: Bool, onProgress: (Compression.Progress) throws -> Void
  ) throws -> ConversionReport {
    let clock = ContinuousClock()
    let start = clock.now
    let file = try OutputFile(output, overwrite: overwrite, inputs: source.checkpoint.inputPaths)
    do {
      var writer = try GGUFWriter(
        file: file.path, metadata: metadata, tensors: steps.map(\.declaration))
      var errors: [EncodingError?] = []
      var done = 0
      for (step, row) in zip(steps, plan.rows) {
        try onProgress(
          .init(what: row.name, done: done, total: plan.bytesBefore))
        errors.append(try write(step, to: &writer))
        try source.checkpoint.checkIntact()
        done += row.bytesBefore
      }
      let digests = try writer.finish()
      try onProgress(.init(what: "checking", done: done, total: plan.bytesBefore))
      try verify(file.path, digests)
      try file.finish()
      return ConversionReport(
        plan: plan, errors: errors, output: output, seconds: (clock.now - start).inSeconds,
        peakResidentBytes: ProcessMemory.peakResidentBytes, notes: file.notes)
    } catch {
      file.discard()
      throw error
    }
  }

  private func write(_ step: Step, to writer: inout GGUFWriter) throws -> EncodingError? {
    let name = step.declaration.name, type = step.declaration.type
    switch step.content {
    case .values(let values):
      try writer.append(name, Tensor(values, shape: [values.count]))
      return nil
    case .vector(let tensor):
      var values = try source.tensor(tensor.name).widened()
      if step.form == .plusOne {
        let stored = values
        values = Tensor(shape: stored.shape) { target in
          for index in target.indices { target[index] = stored.floats[index] + 1 }
        }
      }
      if let rows = reordered(step) { values = values.gatheringRows(rows) }
      try writer.append(name, values)
      return nil
    case .matrix(let tensor):
      let reader = try MatrixReader(tensor, in: source)
      var error: EncodingError?
      guard let rows = reordered(step) else {
        try reader.forEachPiece { piece in
          try writer.append(name, try encode(piece, type, tensor, &error))
        }
        return error
      }
      // Rows move across pieces, so the packed matrix is held as a whole.
      let rowBytes = type.rowBytes(inputs: tensor.inputs)
      var packed: [UInt8] = []
      packed.reserveCapacity(rowBytes * tensor.outputs)
      try reader.forEachPiece { piece in
        let encoded = try encode(piece, type, tensor, &error)
        withExtendedLifetime(encoded) { packed += encoded.bytes }
      }
      let whole = Tensor(dtype: .uint8, shape: [tensor.outputs, rowBytes]) { target in
        target.copyBytes(from: packed)
      }
      packed = []
      try writer.append(name, whole.gatheringRows(rows))
      return error
    }
  }

  private func reordered(_ step: Step) -> [Int]? {
    GGUFArchitecture.order(step.form, headDim: step.headDim)?
      .inverseRows(step.declaration.shape[0])
  }

  /// Rows in their stored form; the error adds up over pieces.
  private func encode(
    _ rows: Tensor, _ type: GGUFType, _ tensor: ModelTensor, _ error: inout EncodingError?
  ) throws -> Tensor {
    let name = source.storedName(tensor.name), path = source.checkpoint.path
    if let dtype = type.dtype { return try rows.stored(as: dtype, name: name, path: path) }
    do throws(CodecError) {
      let result = try GGUFBlocks(type).encode(rows, importance: nil)
      error = error.map { $0.adding(result.error) } ?? result.error
      return result.weight.blocks
    } catch let fault {
      // Zeros and worse appear where a file was cut short while it was read.
      try source.checkpoint.checkIntact()
      throw RecipeError.badTensor(name, path: path, reason: fault.description)
    }
  }

  private func verify(_ path: String, _ digests: [String: String]) throws {
    let written = try Checkpoint.open(path)
    for step in steps {
      let name = step.declaration.name
      guard try written.digest(of: name) == digests[name] else {
        throw RecipeError.verificationFailed(tensor: name)
      }
    }
    // Also as a model: names, shapes and tokenizer fit each other.
    let model = try LanguageModel.load(path)
    try model.checkpoint.checkIntact()
  }
}

extension EncodingError {
  fileprivate func adding(_ other: EncodingError) -> EncodingError {
    var sum = self
    sum.squaredError += other.squaredError
    sum.squaredWeight += other.squaredWeight
    sum.largestError = max(sum.largestError, other.largestError)
    sum.count += other.count
    return sum
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
