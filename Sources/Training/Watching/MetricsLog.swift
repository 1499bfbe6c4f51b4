import Checkpoints
import Text

/// The measurements of a training as a file with one JSON object per line, step after step.
///
/// A line is written whole and at once, so a reader sees complete lines while the training runs and
/// after it was killed.
public final class MetricsLog {
  private let file: LogFile

  public var path: String { file.path }

  /// Begins a log, replacing one that is there; or goes on with it.
  ///
  /// - Parameter step: the last step of the checkpoint that training resumes from. Lines of later
  ///   steps and an incomplete last line are removed, as those steps will be done again.
  /// - Throws: `TrainingError.badMetricsLog` where the file to go on with is no such log;
  ///   `CheckpointError` where it cannot be read or written.
  public init(_ path: String, resumingAfter step: Int? = nil) throws {
    guard let step, let bytes = try LogFile.contents(path) else {
      file = try LogFile(path, .new)
      return
    }
    let lines = try Self.lines(bytes, path: path)
    let kept = lines.last { $0.metrics.step <= step }?.end ?? 0
    file = try LogFile(path, .keeping(kept))
  }

  public func append(_ metrics: TrainingMetrics) throws {
    try file.append(metrics.json.serialized() + [UInt8(ascii: "\n")])
  }

  /// What a log holds, an incomplete last line left out.
  /// - Throws: as `init`; a file that is not there is an error.
  public static func read(_ path: String) throws -> [TrainingMetrics] {
    guard let bytes = try LogFile.contents(path) else {
      throw CheckpointError.unreadable(file: path, reason: "it does not exist")
    }
    return try lines(bytes, path: path).map(\.metrics)
  }

  private struct Line {
    var metrics: TrainingMetrics
    /// Where the next line begins.
    var end: Int
  }

  /// Complete lines; steps must rise, so that those up to a step are the file's beginning.
  private static func lines(_ bytes: [UInt8], path: String) throws -> [Line] {
    var lines: [Line] = []
    var start = 0
    while let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) {
      func bad(_ reason: String) -> TrainingError {
        .badMetricsLog(file: path, line: lines.count + 1, reason: reason)
      }
      guard let json = try? JSON.parse(Array(bytes[start..<end]), name: path),
        let metrics = TrainingMetrics(json: json)
      else {
        throw bad("is not an object of numbers with a step")
      }
      if let last = lines.last?.metrics.step, metrics.step <= last {
        throw bad("has step \(metrics.step) after step \(last)")
      }
      start = end + 1
      lines.append(Line(metrics: metrics, end: start))
    }
    return lines
  }
}
