public import Checkpoints

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The measurements of a training as TensorBoard reads them: `tensorboard --logdir DIRECTORY`.
///
/// Each start of a training writes its own file; one that resumes begins it by declaring later steps
/// of the earlier files void.
public final class TensorBoardLog {
  private let file: LogFile
  private let wallTime: @Sendable () -> Double

  public var path: String { file.path }

  static let namePrefix = "events.out.tfevents."

  /// - Parameters:
  ///   - directory: made if it is not there; its parent must be.
  ///   - step: the last step of the checkpoint that training resumes from.
  ///   - wallTime: seconds since 1970.
  /// - Throws: `CheckpointError` where the file cannot be written.
  public init(
    directory: String, resumingAfter step: Int? = nil,
    wallTime: @escaping @Sendable () -> Double = TensorBoardLog.now
  ) throws(CheckpointError) {
    try LogFile.makeFolder(directory)
    // TensorBoard reads files by name, so a second start within a second takes a later number.
    let latest = LogFile.names(in: directory).compactMap { name -> Int? in
      guard name.hasPrefix(Self.namePrefix) else { return nil }
      return Int(name.dropFirst(Self.namePrefix.count).prefix { $0 != "." })
    }.max()
    let time = wallTime()
    let number = max(Int(exactly: time.rounded(.down)) ?? 0, latest.map { $0 + 1 } ?? 0)
    let digits = String(number)
    let padded = String(repeating: "0", count: max(0, 10 - digits.count)) + digits
    file = try LogFile("\(directory)/\(Self.namePrefix)\(padded).pare", .newName)
    self.wallTime = wallTime
    try file.append(EventRecord.version(wallTime: time))
    if let step { try file.append(EventRecord.restart(step: step + 1, wallTime: time)) }
  }

  /// Every figure under its name; held-out ones too, at the steps that have them.
  public func append(_ metrics: TrainingMetrics) throws(CheckpointError) {
    try append(step: metrics.step, metrics.figures.map { ($0.name, $0.value) })
  }

  public func append(step: Int, _ scalars: [(tag: String, value: Double)])
    throws(CheckpointError)
  {
    try file.append(EventRecord.scalars(scalars, step: step, wallTime: wallTime()))
  }

  public static let now: @Sendable () -> Double = {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }
}
