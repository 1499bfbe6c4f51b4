import Checkpoints
import Codecs
import Models
import Tensors
import Text

extension GGUFConversion {
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
    case .grid(let tensor):
      let blocks = try blocks(tensor, type)
      try writer.append(name, reordered(step).map { blocks.gatheringRows($0) } ?? blocks)
      return nil
    case .matrix(let tensor):
      let reader = try MatrixReader(tensor, in: source)
      var error: EncodingError?
      guard let rows = reordered(step) else {
        try reader.forEachPiece { piece in
          try writer.append(name, try encode(piece, step, tensor, &error))
        }
        return error
      }
      // Rows move across pieces, so the packed matrix is held as a whole.
      let rowBytes = type.rowBytes(inputs: tensor.inputs)
      var packed: [UInt8] = []
      packed.reserveCapacity(rowBytes * tensor.outputs)
      try reader.forEachPiece { piece in
        let encoded = try encode(piece, step, tensor, &error)
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

  /// A matrix whose codes stay, as rows of blocks.
  private func blocks(_ tensor: ModelTensor, _ type: GGUFType) throws -> Tensor {
    switch try source.matrix(tensor) {
    case let same as BlockQuantizedWeight: return same.blocks
    case let weight as any AffineWeight:
      return try GGUFBlocks.blocks(weight.openGrid(), codes: weight.openCodes(), as: type).blocks
    default: throw RecipeError.verificationFailed(tensor: source.storedName(tensor.name))
    }
  }

  private func reordered(_ step: Step) -> [Int]? {
    GGUFArchitecture.order(step.form, headDim: step.headDim)?
      .inverseRows(step.declaration.shape[0])
  }

  /// Rows in their stored form; the error adds up over pieces.
  private func encode(
    _ rows: Tensor, _ step: Step, _ tensor: ModelTensor, _ error: inout EncodingError?
  ) throws -> Tensor {
    let type = step.declaration.type
    let name = source.storedName(tensor.name), path = source.checkpoint.path
    if let dtype = type.dtype { return try rows.stored(as: dtype, name: name, path: path) }
    do throws(CodecError) {
      let result = try GGUFBlocks(type).encode(rows, importance: step.importance)
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
