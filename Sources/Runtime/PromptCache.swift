import Checkpoints
public import Models
import Tensors

/// Keys and values of a prompt in a file, so that the next start needs not run it again.
///
/// The file is safetensors: `tokens` `[tokens]`, and for each block `keys.N` and `values.N`
/// `[keyValueHeads, tokens, headDim]` in the cache's element type, with scales `[keyValueHeads,
/// tokens]` for int8; its metadata name the model and how it was run, and carry a digest of the data.
///
/// Rules: an absent file is made. A file of another model or with damaged data is made anew, with a
/// note that says so. A file that is no prompt cache is an error, so that nothing else is ever
/// overwritten. The longest run of tokens that the cached and the new prompt have in common is
/// reused; the file is written anew unless it already begins with the whole new prompt.
public struct PromptCache {
  public let path: String
  /// What the file held; empty where nothing could be used.
  public let prefix: PrefixCache
  /// Why the file was not used, if it was there.
  public let note: String?

  private static let kind = "pare-prompt-cache-1"

  /// Opens a file that may not exist yet.
  ///
  /// - Parameter plannedLength: tokens that the text will have.
  /// - Throws: `PromptCacheError.notAPromptCache`, and `CheckpointError` if the model's own files
  ///   have become unreadable.
  public static func open(
    _ path: String, model: LanguageModel, plannedLength: Int
  ) throws -> PromptCache {
    let empty = PrefixCache(model, plannedLength: plannedLength)
    func rebuilt(_ reason: String) -> PromptCache {
      PromptCache(
        path: path, prefix: empty, note: "\(path) \(reason); the prompt is run and cached anew.")
    }
    guard FileProbe.exists(path) else { return PromptCache(path: path, prefix: empty, note: nil) }
    guard FileProbe.isSafetensors(path), let file = try? Checkpoint.openSafetensors(path),
      file.metadata["kind"] == kind
    else { throw PromptCacheError.notAPromptCache(path: path) }
    guard file.metadata["model"] == (try identity(of: model)) else {
      return rebuilt("belongs to another model")
    }
    if model.configuration.blocks.contains(where: { $0.attention.rotary?.dependsOnLength == true }),
      file.metadata["planned_length"] != String(plannedLength)
    {
      return rebuilt(
        "was made for a text of another length, on which this model's positions depend")
    }
    guard let restored = try? restore(file, model, plannedLength) else {
      return rebuilt("is damaged")
    }
    return PromptCache(path: path, prefix: restored, note: nil)
  }

  /// Writes the first `count` tokens of the prefix; the file appears under its name when whole.
  /// - Throws: `CheckpointError` if it cannot be written.
  public static func save(
    _ prefix: PrefixCache, tokens count: Int, model: LanguageModel, to path: String
  ) throws {
    let tokens = prefix.tokens.prefix(count).map { Int32(truncatingIfNeeded: $0) }
    var tensors: [(name: String, tensor: Tensor)] = [
      (
        "tokens",
        Tensor(dtype: .int32, shape: [tokens.count]) { target in
          tokens.withUnsafeBytes { target.copyMemory(from: $0) }
        }
      )
    ]
    for block in model.blocks.indices {
      guard let rows = prefix.cache.rows(block: block, count: tokens.count) else { return }
      tensors += rows.components.map { ("\($0.name).\(block)", $0.tensor) }
    }
    let file = try OutputFile(path, overwrite: true, inputs: model.checkpoint.inputPaths)
    var writer = try SafetensorsWriter(
      file: file.path,
      tensors: tensors.map {
        TensorDeclaration(name: $0.name, dtype: $0.tensor.dtype, shape: $0.tensor.shape)
      },
      metadata: [
        ("kind", kind), ("model", try identity(of: model)),
        ("digest", digest(tensors.map(\.tensor))),
        ("planned_length", String(prefix.cache.plannedLength)),
      ])
    for (name, tensor) in tensors { try writer.append(name, tensor) }
    _ = try writer.finish()
    try file.finish()
  }

  private static func restore(
    _ file: Checkpoint, _ model: LanguageModel, _ plannedLength: Int
  ) throws -> PrefixCache? {
    let stored = try file.tensor("tokens")
    guard stored.dtype == .int32, stored.count > 0 else { return nil }
    let tokens = stored.bytes.bindMemory(to: Int32.self).map { Int($0) }
    var all = [stored]
    var rows: [KeyValueRows] = []
    for (index, block) in model.blocks.enumerated() {
      let attention = block.configuration.attention
      let stored = KeyValueRows(
        type: model.cacheType, heads: attention.keyValueHeads, capacity: tokens.count,
        headDim: attention.headDim, component: { try? file.tensor("\($0).\(index)") })
      guard let stored else { return nil }
      rows.append(stored)
      all += stored.components.map(\.tensor)
    }
    guard file.metadata["digest"] == digest(all) else { return nil }
    try model.checkTokens(tokens)
    let cache = model.cache(plannedLength: plannedLength)
    cache.restore(rows)
    try file.checkIntact()
    return PrefixCache(model, tokens: tokens, cache: cache)
  }

  private static func digest(_ tensors: [Tensor]) -> String {
    var hash = SHA256()
    for tensor in tensors { hash.update(tensor.bytes) }
    return hash.finish()
  }

  /// A hash that tells models apart without reading them whole: their config, how they are run, and
  /// of every tensor its name, type, shape and 64 bytes at the start, the middle and the end.
  static func identity(of model: LanguageModel) throws -> String {
    var hash = SHA256()
    func add(_ text: String) { Array((text + "\n").utf8).withUnsafeBytes { hash.update($0) } }
    let checkpoint = model.checkpoint
    add("\(model.activations.rawValue) activations, \(model.cacheType.rawValue) cache")
    if checkpoint.sideFiles.contains("config.json") {
      try checkpoint.readSideFile("config.json").withUnsafeBytes { hash.update($0) }
    }
    for name in checkpoint.names {
      let tensor = try checkpoint.tensor(name)
      add("\(name) \(tensor.dtype.rawValue) \(tensor.shape)")
      let bytes = tensor.bytes
      for start in [0, bytes.count / 2, bytes.count - 64] {
        let window = max(start, 0)..<min(max(start, 0) + 64, bytes.count)
        hash.update(UnsafeRawBufferPointer(rebasing: bytes[window]))
      }
    }
    return hash.finish()
  }
}

/// Why a prompt cache cannot be used.
public enum PromptCacheError: Error, CustomStringConvertible, Sendable {
  case notAPromptCache(path: String)

  public var description: String {
    switch self {
    case .notAPromptCache(let path):
      "\(path) exists and is no prompt cache of Pare, or one cut short. Name another file, or "
        + "remove it."
    }
  }
}
