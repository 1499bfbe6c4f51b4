import Checkpoints
import Text
import Training

/// Writes a cache of predictions text by text. The file has its name only once `finish` returned.
///
/// In memory are the index, 32 bytes for each text, and a few megabytes of what is being written.
struct CacheWriter {
  private struct Entry {
    var digest: TextDigest
    var start: Int
    var count: Int
    var sum: UInt32
  }

  private let output: OutputFile
  private let sink: FileSink
  private let identity: CacheIdentity
  private let code: TopRowCode
  private var offset = 0
  private var entries: [Entry] = []
  private var known: Set<TextDigest> = []
  private(set) var rows = 0

  var texts: Int { entries.count }

  init(
    path: String, overwrite: Bool, identity: CacheIdentity, code: TopRowCode, inputs: [String]
  ) throws(CheckpointError) {
    output = try OutputFile(path, overwrite: overwrite, inputs: inputs)
    sink = try FileSink(path: output.path)
    self.identity = identity
    self.code = code
    try write(CacheFile.magic)
  }

  func contains(_ digest: TextDigest) -> Bool { known.contains(digest) }

  /// - Parameter rows: of the text's wanted predictions, in order.
  mutating func append(_ digest: TextDigest, rows: [[UInt8]]) throws(CheckpointError) {
    guard known.insert(digest).inserted else { return }
    let record = CacheRecord.bytes(of: rows)
    let sum = record.withUnsafeBytes { CacheRecord.sum($0) }
    entries.append(Entry(digest: digest, start: offset, count: record.count, sum: sum))
    self.rows += rows.count
    try write(record)
  }

  mutating func finish() throws(CheckpointError) {
    let index = offset
    entries.sort { $0.digest < $1.digest }
    for entry in entries {
      var bytes: [UInt8] = []
      Distillation.append(entry.digest.high, to: &bytes)
      Distillation.append(entry.digest.low, to: &bytes)
      Distillation.append(UInt64(entry.start), to: &bytes)
      Distillation.append(UInt32(truncatingIfNeeded: entry.count), to: &bytes)
      Distillation.append(entry.sum, to: &bytes)
      try write(bytes)
    }
    var members = identity.json.object ?? JSONObject()
    members["version"] = JSON(CacheFile.version)
    members["k"] = JSON(code.k)
    members["vocabulary"] = JSON(code.vocabularySize)
    members["resolution"] = JSON(code.resolution)
    members["rows"] = JSON(rows)
    let description = JSON.object(members).serialized()
    var trailer = description
    Distillation.append(UInt64(index), to: &trailer)
    Distillation.append(UInt64(description.count), to: &trailer)
    try write(trailer + CacheFile.magic)
    try sink.finish()
    try output.finish()
  }

  func discard() { output.discard() }

  private mutating func write(_ bytes: [UInt8]) throws(CheckpointError) {
    try sink.write(bytes, at: offset)
    offset += bytes.count
  }
}
