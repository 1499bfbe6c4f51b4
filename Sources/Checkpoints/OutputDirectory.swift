/// A folder that appears under its name only when whole.
///
/// Everything is written below `path`, a temporary folder beside the target; `finish()` renames it.
/// Dropping the value, `discard()` and `discardAllActive()` remove it.
///
/// ```swift
/// let output = try OutputDirectory("smaller", overwrite: false, inputs: checkpoint.inputPaths)
/// try output.write("config.json", bytes)
/// try output.finish()
/// ```
public final class OutputDirectory: Sendable {
  private let pending: PendingOutput

  /// - Parameters:
  ///   - target: the folder to be. Its parent exists.
  ///   - overwrite: whether an existing model folder (or empty folder) is replaced.
  ///   - inputs: what is read meanwhile; the target must neither be nor contain any of it.
  /// - Throws: `CheckpointError` if the target is taken, touches an input or cannot be written.
  public init(_ target: String, overwrite: Bool, inputs: [String] = []) throws(CheckpointError) {
    pending = try PendingOutput(.folder, target, overwrite: overwrite, inputs: inputs)
  }

  /// The folder to write into meanwhile.
  public var path: String { pending.path }
  /// The final path.
  public var target: String { pending.target }
  /// Sentences for the user: leftovers of killed runs that were removed.
  public var notes: [String] { pending.notes }

  /// Writes one small file into the folder; it is on the disk when this returns.
  public func write(_ name: String, _ bytes: [UInt8]) throws(CheckpointError) {
    let sink = try FileSink(path: Files.join(path, name))
    try sink.write(bytes, at: 0)
    try sink.finish()
  }

  /// Gives the folder its final name. A replaced folder is removed only afterwards.
  public func finish() throws(CheckpointError) { try pending.finish() }

  /// Removes what was written. Does nothing after `finish()`.
  public func discard() { pending.discard() }

  /// Removes every unfinished output of this process, files and folders; their `finish()` then
  /// throws. For a thread that watches for Ctrl-C (not for a signal handler: it takes a lock).
  public static func discardAllActive() { PendingOutput.discardActive { _ in true } }

  /// As `discardAllActive`, only for outputs whose temporary paths begin with a prefix.
  package static func discardActive(below prefix: String) {
    PendingOutput.discardActive { $0.hasPrefix(prefix) }
  }
}

/// A single file that appears under its name only when whole; otherwise as `OutputDirectory`.
public final class OutputFile: Sendable {
  private let pending: PendingOutput

  /// - Parameters: as for `OutputDirectory`; any existing file may be overwritten.
  public init(_ target: String, overwrite: Bool, inputs: [String] = []) throws(CheckpointError) {
    pending = try PendingOutput(.file, target, overwrite: overwrite, inputs: inputs)
  }

  /// The file to write to meanwhile. It exists and is empty.
  public var path: String { pending.path }
  public var target: String { pending.target }
  public var notes: [String] { pending.notes }

  /// Writes the whole contents.
  public func write(_ bytes: [UInt8]) throws(CheckpointError) {
    let sink = try FileSink(path: path)
    try sink.write(bytes, at: 0)
    try sink.finish()
  }

  public func finish() throws(CheckpointError) { try pending.finish() }
  public func discard() { pending.discard() }
}

extension FileSink {
  package func write(_ bytes: [UInt8], at offset: Int) throws(CheckpointError) {
    var failure: CheckpointError?
    bytes.withUnsafeBytes { raw in
      do throws(CheckpointError) { try write(raw, at: offset) } catch { failure = error }
    }
    if let failure { throw failure }
  }
}
