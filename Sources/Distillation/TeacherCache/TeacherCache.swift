import Checkpoints
package import Models
import Tensors
package import Training

/// A teacher's predictions on a stream of training data, computed once and kept in a file.
///
/// Predictions belong to texts (segments of a batch), found by content: batches of another size, or a
/// run that is resumed in the middle, find theirs too.
package enum TeacherCache {
  package struct Settings: Sendable {
    /// Tokens kept of each prediction; all of a smaller vocabulary.
    package var k: Int
    /// As `TopRowCode.resolution`.
    package var resolution: Int
    /// Bytes that making the cache may have resident, the teacher's mapped weights included.
    package var memoryLimit: Int

    package init(k: Int = 128, resolution: Int = 64, memoryLimit: Int = 4 << 30) {
      self.k = k
      self.resolution = resolution
      self.memoryLimit = memoryLimit
    }

    func check() throws(DistillationError) {
      guard (1...4096).contains(k) else {
        throw .badSetting(
          "the number of tokens kept", value: "\(k)", expected: "between 1 and 4096")
      }
      guard (1...4096).contains(resolution) else {
        throw .badSetting(
          "the resolution of kept probabilities", value: "\(resolution)",
          expected: "between 1 and 4096")
      }
    }
  }

  /// Runs the teacher over a stream and writes what it says.
  ///
  /// - Parameters:
  ///   - path: of the file, which appears when whole.
  ///   - stream: begins wherever it stands.
  ///   - batches: how many of the stream's; all of a stream that ends when nil.
  ///   - onProgress: batches that are done.
  /// - Throws: `DistillationError` for settings that cannot be, a stream without end, or predictions
  ///   that are not finite; `TrainingError`, `ModelError`, `CheckpointError`.
  package static func write(
    to path: String, teacher: LanguageModel, stream: TrainingStream, batches: Int?,
    settings: Settings = Settings(), overwrite: Bool = false,
    onProgress: (Int) throws -> Void = { _ in }
  ) throws {
    try settings.check()
    guard batches != nil || stream.options.passes != nil else {
      throw DistillationError.badSetting(
        "the number of batches", value: "absent", expected: "given for data without an end")
    }
    let batchTokens = stream.options.rows * stream.options.length
    let pass = try BlockMajorPass(
      teacher, batchTokens: batchTokens, memoryLimit: settings.memoryLimit)
    let vocabulary = teacher.configuration.vocabularySize
    let code = TopRowCode(
      k: min(settings.k, vocabulary), vocabularySize: vocabulary, resolution: settings.resolution)
    var writer = try CacheWriter(
      path: path, overwrite: overwrite,
      identity: try CacheIdentity(teacher: teacher, stream: stream), code: code,
      inputs: teacher.checkpoint.inputPaths + stream.data.sources.map(\.path))
    do {
      var stream = stream
      var done = 0
      var group = Group()
      while done < batches ?? Int.max, let batch = try stream.next() {
        group.add(batch, unless: writer.contains)
        done += 1
        if group.tokens + batchTokens > pass.groupTokens {
          try group.run(pass, code, &writer)
          try onProgress(done)
        }
      }
      try group.run(pass, code, &writer)
      try onProgress(done)
      try writer.finish()
    } catch {
      writer.discard()
      throw error
    }
  }
}

/// Batches that go through the teacher together.
private struct Group {
  private struct Text {
    var digest: TextDigest
    /// Predictions wanted of it.
    var count: Int
  }

  private var batches: [BlockMajorPass.Batch] = []
  /// Of each batch, those whose predictions are not known.
  private var texts: [[Text]] = []
  private var known: Set<TextDigest> = []
  private(set) var tokens = 0

  mutating func add(_ batch: TrainingBatch, unless isKnown: (TextDigest) -> Bool) {
    var (new, wanted): ([Text], [Int]) = ([], [])
    for segment in batch.segments {
      let places = segment.filter { batch.weights[$0] != 0 }
      guard !places.isEmpty else { continue }
      let digest = TextDigest(batch, segment)
      guard !isKnown(digest), known.insert(digest).inserted else { continue }
      new.append(Text(digest: digest, count: places.count))
      wanted += places
    }
    guard !new.isEmpty else { return }
    batches.append(.init(tokens: batch.inputs, segments: batch.segments, wanted: wanted))
    texts.append(new)
    tokens += batch.inputs.count
  }

  mutating func run(
    _ pass: BlockMajorPass, _ code: TopRowCode, _ writer: inout CacheWriter
  ) throws {
    var rows: [[UInt8]] = []
    try pass.run(batches) { number, places, logits in
      for row in code.encode(logits) {
        guard let row else {
          throw DistillationError.teacherNotFinite(path: pass.model.checkpoint.path)
        }
        rows.append(row)
      }
      guard places.endIndex == batches[number].wanted.count else { return }
      var start = 0
      for text in texts[number] {
        try writer.append(text.digest, rows: Array(rows[start..<(start + text.count)]))
        start += text.count
      }
      rows = []
    }
    self = Group()
  }
}
