import Checkpoints
package import Models
import Text
package import Training

/// What a cache of predictions was made of. Whoever reads one states what it must be of.
package struct CacheIdentity: Sendable, Equatable {
  /// SHA-256 over the digests of all of the teacher's files.
  package var teacher: String
  /// `TrainingData.contentHash`
  package var data: String
  /// How documents become texts that see only themselves. The number of rows in a batch is no part of
  /// it.
  package var settings: String

  package init(teacher: String, data: String, settings: String) {
    self.teacher = teacher
    self.data = data
    self.settings = settings
  }

  /// Reads every byte of the teacher and of the data.
  package init(teacher: LanguageModel, stream: TrainingStream) throws {
    let options = stream.options
    self.init(
      teacher: try Self.hash(teacher), data: try stream.data.contentHash(),
      settings: "\(options.mode.rawValue) rows of \(options.length) tokens, "
        + "\(options.use == .training ? "training" : "held-out") part, "
        + "\(options.isShuffled ? "shuffled" : "in order"), seed \(stream.data.seed)")
  }

  /// Changes when any byte of the model's files does; their names and places do not matter.
  package static func hash(_ model: LanguageModel) throws -> String {
    let lines = try model.checkpoint.fileHashes().map { "\($0.sha256)\n" }.sorted().joined()
    return Array(lines.utf8).withUnsafeBytes { SHA256.digest($0) }
  }

  /// - Throws: `foreignCache` that names the first thing in which a cache is another.
  func check(expected: CacheIdentity, path: String) throws(DistillationError) {
    let parts: [(String, String, String)] = [
      ("teacher", teacher, expected.teacher), ("data", data, expected.data),
      ("settings", settings, expected.settings),
    ]
    for (name, made, wanted) in parts where made != wanted {
      let isDigest = name != "settings"
      throw .foreignCache(
        path: path, part: name, made: isDigest ? "\(made.prefix(12))…" : made,
        wanted: isDigest ? "\(wanted.prefix(12))…" : wanted)
    }
  }

  var json: JSON {
    ["teacher": JSON(teacher), "data": JSON(data), "settings": JSON(settings)]
  }

  init?(json: JSON) {
    guard let teacher = json["teacher"]?.string, let data = json["data"]?.string,
      let settings = json["settings"]?.string
    else { return nil }
    self.init(teacher: teacher, data: data, settings: settings)
  }
}

/// Names a text, with which of its predictions are wanted, by content.
struct TextDigest: Hashable, Comparable {
  var high: UInt64
  var low: UInt64

  init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// - Parameter segment: of the batch's inputs.
  init(_ batch: TrainingBatch, _ segment: Range<Int>) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(segment.count * 5)
    for place in segment {
      withUnsafeBytes(of: Int32(truncatingIfNeeded: batch.inputs[place]).littleEndian) {
        bytes.append(contentsOf: $0)
      }
      bytes.append(batch.weights[place] == 0 ? 0 : 1)
    }
    let digits = bytes.withUnsafeBytes { SHA256.digest($0) }
    high = UInt64(digits.prefix(16), radix: 16) ?? 0
    low = UInt64(digits.dropFirst(16).prefix(16), radix: 16) ?? 0
  }

  static func < (a: Self, b: Self) -> Bool { (a.high, a.low) < (b.high, b.low) }
}
