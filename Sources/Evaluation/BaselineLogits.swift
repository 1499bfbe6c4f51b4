import Checkpoints
public import Models
package import Tensors

/// The logits a model is compared with: computed beside it, or read from a cache made for exactly
/// this baseline, text and protocol.
public struct BaselineLogits: Sendable {
  fileprivate enum Source: Sendable {
    case model(LanguageModel)
    /// `[scored tokens, vocabulary]`, float32.
    case cached(Tensor, Checkpoint)
  }

  private let source: Source
  public let vocabularySize: Int

  public init(model: LanguageModel) {
    source = .model(model)
    vocabularySize = model.configuration.vocabularySize
  }

  /// Opens the cache in `directory`, making it first if it is not there. Takes
  /// `4 · scored tokens · vocabulary` bytes of disk.
  ///
  /// - Throws: `EvaluationError.badBaselineCache` where a file of that name is something else;
  ///   whatever running the baseline or writing the file throws.
  public init(
    model: LanguageModel, cachedIn directory: String, documents: [[Int]], textName: String,
    protocol evaluation: EvaluationProtocol, onProgress: (Int, Int) throws -> Void = { _, _ in }
  ) throws {
    vocabularySize = model.configuration.vocabularySize
    let windows = try Perplexity.checkedWindows(model, documents, evaluation, textName)
    let scored = windows.reduce(0) { $0 + $1.scored }
    let key = try Self.key(model, windows)
    let path = "\(directory)/baseline-\(key.prefix(16)).safetensors"
    let shape = [scored, vocabularySize]
    do {
      // An interrupted or foreign file never has this name: outputs appear when whole.
      try Self.write(
        model, windows, to: path, shape: shape, key: key, onProgress: onProgress)
    } catch CheckpointError.outputExists {}
    let file = try Checkpoint.open(path)
    guard file.info("logits")?.shape == shape, file.metadata["key"] == key else {
      throw EvaluationError.badBaselineCache(
        path: path, reason: "it was made by another baseline, text or protocol")
    }
    source = .cached(try file.tensor("logits"), file)
  }

  /// Names the baseline's files by content, and every window's tokens.
  private static func key(_ model: LanguageModel, _ windows: [EvaluationProtocol.Window]) throws
    -> String
  {
    var hash = SHA256()
    func add(_ text: String) { Array(text.utf8).withUnsafeBytes { hash.update($0) } }
    for file in try model.checkpoint.fileHashes() { add("\(file.sha256)\n") }
    for window in windows {
      add("\(window.firstScored):\(window.tokens)\n")
    }
    return hash.finish()
  }

  private static func write(
    _ model: LanguageModel, _ windows: [EvaluationProtocol.Window], to path: String, shape: [Int],
    key: String, onProgress: (Int, Int) throws -> Void
  ) throws {
    let output = try OutputFile(path, overwrite: false)
    do {
      var writer = try SafetensorsWriter(
        file: output.path,
        tensors: [TensorDeclaration(name: "logits", dtype: .float32, shape: shape)],
        metadata: [("format", "pt"), ("key", key)])
      var done = 0
      for window in windows {
        let rows = (window.firstScored - 1)..<(window.tokens.count - 1)
        try model.forEachLogits(of: Array(window.tokens.dropLast()), rows: rows) { _, logits in
          try writer.append("logits", logits.bytes)
        }
        done += window.scored
        try onProgress(done, shape[0])
      }
      _ = try writer.finish()
      try output.finish()
    } catch {
      output.discard()
      throw error
    }
  }

  /// Hands rows out in text order.
  package func reader() -> Reader { Reader(source: source) }

  package final class Reader {
    private let source: Source
    private var tokens: [Int] = []
    private var cache: KVCache?
    /// Hidden states of the chunk that holds the rows now asked for.
    private var hidden: Tensor?
    private var hiddenStart = 0
    private var nextCachedRow = 0

    fileprivate init(source: Source) { self.source = source }

    package func begin(_ window: EvaluationProtocol.Window) throws {
      tokens = Array(window.tokens.dropLast())
      hidden = nil
      hiddenStart = 0
      if case .model(let model) = source { cache = model.cache(plannedLength: tokens.count) }
    }

    /// - Parameter rows: positions in the window, all within one chunk, rising from call to call.
    package func logits(_ rows: Range<Int>) throws -> Tensor {
      switch source {
      case .cached(let all, let file):
        let slice = all.rows(nextCachedRow..<(nextCachedRow + rows.count))
        nextCachedRow += rows.count
        try file.checkIntact()
        return slice.widened()
      case .model(let model):
        while hidden.map({ hiddenStart + $0.rows <= rows.lowerBound }) ?? true {
          let start = hiddenStart + (hidden?.rows ?? 0)
          let end = min(start + model.chunkTokens, tokens.count)
          guard let cache, start < end else { preconditionFailure("rows lie inside the window") }
          hidden = try model.hidden(Array(tokens[start..<end]), cache: cache)
          hiddenStart = start
        }
        guard let hidden else { preconditionFailure("a chunk was just computed") }
        return model.logits(
          hidden.rows((rows.lowerBound - hiddenStart)..<(rows.upperBound - hiddenStart)))
      }
    }
  }
}
