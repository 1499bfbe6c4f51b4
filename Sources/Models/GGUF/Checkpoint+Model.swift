public import Checkpoints
import Codecs
import Tensors
import Text

extension Checkpoint {
  /// Opens a model in any format. A GGUF file is shown as the Hugging Face checkpoint it was made
  /// of: its tensors' names, the order of their rows, `config.json` and the tokenizer's files.
  ///
  /// - Throws: `CheckpointError` as `open` does, and for GGUF files of architectures that Pare does
  ///   not have.
  public static func openModel(_ path: String) throws(CheckpointError) -> Checkpoint {
    let checkpoint = try open(path)
    guard let metadata = checkpoint.gguf else { return checkpoint }
    return try GGUFModel(checkpoint, metadata).shown()
  }
}

/// A GGUF file seen as a Hugging Face checkpoint.
private struct GGUFModel {
  let checkpoint: Checkpoint
  let metadata: GGUFMetadata
  let architecture: GGUFArchitecture

  init(_ checkpoint: Checkpoint, _ metadata: GGUFMetadata) throws(CheckpointError) {
    self.checkpoint = checkpoint
    self.metadata = metadata
    let key = "general.architecture"
    guard let name = metadata.architecture else {
      throw .wrongMetadata(file: checkpoint.path, key: key, problem: "is missing")
    }
    guard let known = GGUFArchitecture.all.first(where: { $0.name == name }) else {
      let names = GGUFArchitecture.all.map(\.name).joined(separator: ", ")
      throw .unsupportedMetadata(
        file: checkpoint.path, key: key, reason: "is `\(name)`; known: \(names)")
    }
    architecture = known
  }

  func shown() throws(CheckpointError) -> Checkpoint {
    var reader = GGUFConfigReader(checkpoint, metadata, architecture: architecture.name)
    try architecture.configure(&reader)
    guard let embedding = checkpoint.info("token_embd.weight"), embedding.shape.count == 2 else {
      throw .missingTensors(["token_embd.weight"], in: checkpoint.path)
    }
    let vocabulary = embedding.shape[0]
    reader.set("vocab_size", JSON(vocabulary))
    reader.set("tie_word_embeddings", JSON(!checkpoint.contains("output.weight")))
    let types: [DType: JSON] = [.float32: "float32", .bfloat16: "bfloat16"]
    reader.set("torch_dtype", types[embedding.dtype] ?? "float16")
    let tokenizer = GGUFTokenizer(metadata, file: checkpoint.path, vocabularySize: vocabulary)
    for (field, key) in [
      ("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding"),
    ] {
      reader.set(field, try tokenizer.id(key).map { JSON($0) } ?? .null)
    }
    let headDim = try reader.headDim()
    var views: [TensorView] = []
    for name in checkpoint.names where !GGUFConfigReader.rotaryTensors.contains(name) {
      guard let info = checkpoint.info(name) else { continue }
      views.append(view(info, headDim: headDim))
    }
    let config = JSON.object(reader.fields).serialized(pretty: true)
    return Checkpoint(
      checkpoint, showing: views,
      madeFiles: [MadeFile(name: "config.json") { () throws(CheckpointError) in config }]
        + (try tokenizer.files()))
  }

  /// A tensor under its Hugging Face name. One that the architecture does not know keeps its own,
  /// and is reported as unexpected later.
  private func view(_ info: TensorInfo, headDim: Int) -> TensorView {
    guard let (name, form) = architecture.huggingFaceName(info.name) else {
      return TensorView(info: info, source: info.name)
    }
    func shown(_ dtype: DType, _ shape: [Int]) -> TensorInfo {
      TensorInfo(
        name: name, dtype: dtype, shape: shape, file: info.file, blockType: info.blockType)
    }
    let same = shown(info.dtype, info.shape)
    switch form {
    case .same: break
    case .rotaryPairs, .fusedHeads:
      let order = GGUFArchitecture.order(form, headDim: headDim)
      guard let count = info.shape.first, let rows = order?.rows(count) else { break }
      return TensorView(info: same, source: info.name) { $0.gatheringRows(rows) }
    case .plusOne:
      guard info.dtype.isFloatingPoint else { break }
      return TensorView(info: shown(.float32, info.shape), source: info.name) { stored in
        let widened = stored.widened()
        return Tensor(shape: stored.shape) { target in
          for index in target.indices { target[index] = widened.floats[index] - 1 }
        }
      }
    case .transposed:
      // Blocks lie along rows and cannot be turned; such a matrix is declared `[out, in]`.
      guard info.blockType == nil, info.shape.count == 2, info.dtype.isFloatingPoint else { break }
      let dtype = info.dtype
      return TensorView(info: shown(dtype, info.shape.reversed()), source: info.name) {
        $0.transposed().converted(to: dtype)
      }
    }
    return TensorView(info: same, source: info.name)
  }
}
