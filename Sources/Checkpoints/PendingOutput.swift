import CKernels
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A file or folder written under a temporary name beside its final one, which it takes when whole.
///
/// The temporary name is `.NAME.pare-partial-PID`. Its maker holds a lock on it, so that a later
/// run can tell a leftover of a killed run (no lock, no such process) from work in progress.
final class PendingOutput: Sendable {
  enum Form { case file, folder }

  let form: Form
  /// The final path, links resolved.
  let target: String
  /// Where to write meanwhile.
  let path: String
  let notes: [String]
  private let overwrite: Bool
  /// Holds the lock, and lets us ask for the folder to be on disk.
  private let descriptor: Int32

  /// Temporary paths that are being written by this process. Guards finishing and discarding too:
  /// whichever comes first wins, and the other then sees that the path is gone from here.
  private static let active = Mutex<Set<String>>([])

  init(_ form: Form, _ requested: String, overwrite: Bool, inputs: [String])
    throws(CheckpointError)
  {
    let target = try Self.resolve(requested)
    try Self.check(form, target, overwrite: overwrite, inputs: inputs)
    let (parent, name) = Files.split(target)
    notes = try Self.removeLeftovers(in: parent, of: name)
    let path = Files.join(parent, "\(Self.prefix(name))\(getpid())")
    guard Self.active.withLock({ $0.insert(path).inserted }) else {
      throw .outputBusy(path: target)
    }
    do throws(CheckpointError) {
      descriptor = try Self.create(form, path)
    } catch {
      _ = Self.active.withLock { $0.remove(path) }
      throw error
    }
    self.form = form
    self.target = target
    self.path = path
    self.overwrite = overwrite
  }

  // MARK: Ending

  /// Gives what was written its final name, at once: at every moment the name leads to what was
  /// there before or to the whole new output, also if the machine stops.
  func finish() throws(CheckpointError) {
    let failure = Self.active.withLock { active -> CheckpointError? in
      guard active.contains(path) else { return .outputDiscarded(path: target) }
      guard fsync(descriptor) == 0 else { return Files.unwritable(target, errno) }
      if let failure = Rename.move(path, to: target, replacing: overwrite) { return failure }
      active.remove(path)
      // After an exchange the former output is here; it is no longer needed.
      Files.remove(path)
      return nil
    }
    if let failure { throw failure }
    let parent = open(Files.split(target).folder, O_RDONLY | O_CLOEXEC)
    if parent >= 0 {
      fsync(parent)
      close(parent)
    }
  }

  func discard() {
    Self.active.withLock { active in
      if active.remove(path) != nil { Files.remove(path) }
    }
  }

  /// Removes what is being written at every path that the closure accepts.
  static func discardActive(where isWanted: (String) -> Bool) {
    active.withLock { active in
      for path in active.filter(isWanted) {
        active.remove(path)
        Files.remove(path)
      }
    }
  }

  deinit {
    discard()
    close(descriptor)
  }

  // MARK: Beginning

  private static func prefix(_ name: String) -> String { ".\(name).pare-partial-" }

  private static func resolve(_ requested: String) throws(CheckpointError) -> String {
    guard !requested.isEmpty else {
      throw .unwritable(file: "The output", reason: "its path is empty")
    }
    if let existing = Files.canonical(requested) { return existing }
    let (folder, name) = Files.split(requested)
    if Files.isTaken(requested) {
      throw .outputNotReplaceable(path: requested, reason: "it is a link that leads nowhere")
    }
    guard let parent = Files.canonical(folder), Files.kind(parent) == .folder else {
      throw .unwritable(file: requested, reason: "the folder \(folder) does not exist")
    }
    return Files.join(parent, name)
  }

  private static func check(
    _ form: Form, _ target: String, overwrite: Bool, inputs: [String]
  ) throws(CheckpointError) {
    for input in inputs {
      guard let real = Files.canonical(input) else { continue }
      if real == target || real.hasPrefix(target == "/" ? "/" : target + "/") {
        throw .outputTouchesInput(output: target, input: input)
      }
    }
    switch (form, Files.kind(target)) {
    case (_, .absent): return
    case (.folder, .file): throw notReplaceable(target, "it is a file, and the output is a folder")
    case (.file, .folder): throw notReplaceable(target, "it is a folder, and the output is a file")
    case (_, .other): throw notReplaceable(target, "it is neither a file nor a folder")
    case (.file, .file):
      guard overwrite else { throw .outputExists(path: target) }
    case (.folder, .folder):
      guard overwrite else { throw .outputExists(path: target) }
      // Overwriting removes all that is inside, so a mistyped name must not cost a home folder.
      let names = try Files.list(target)
      guard names.isEmpty || names.contains(where: isPartOfModel) else {
        throw notReplaceable(target, "it holds other things than a model")
      }
    }
  }

  private static func notReplaceable(_ path: String, _ reason: String) -> CheckpointError {
    .outputNotReplaceable(path: path, reason: reason)
  }

  private static func isPartOfModel(_ name: String) -> Bool {
    name == "config.json" || name == "pare.json" || name.hasSuffix(".safetensors")
  }

  private static func create(_ form: Form, _ path: String) throws(CheckpointError) -> Int32 {
    var flags = O_RDONLY | O_CLOEXEC
    if form == .folder {
      guard mkdir(path, 0o777) == 0 else { throw failure(path, errno) }
    } else {
      flags = O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL
    }
    let descriptor = open(path, flags, 0o666)
    guard descriptor >= 0 else { throw failure(path, errno) }
    // Where locks are not supported (some network file systems), the process id alone decides.
    _ = flock(descriptor, LOCK_EX | LOCK_NB)
    return descriptor
  }

  private static func failure(_ path: String, _ code: Int32) -> CheckpointError {
    code == EEXIST ? .outputBusy(path: path) : Files.unwritable(path, code)
  }

  // MARK: Leftovers

  /// Removes what killed runs left behind for this target, and says so.
  private static func removeLeftovers(
    in parent: String, of name: String
  ) throws(CheckpointError) -> [String] {
    let prefix = prefix(name)
    var notes: [String] = []
    // A folder that may be written but not listed is fine; then there is nothing to tidy.
    for entry in (try? Files.list(parent)) ?? [] where entry.hasPrefix(prefix) {
      guard let process = pid_t(entry.dropFirst(prefix.count)) else { continue }
      let path = Files.join(parent, entry)
      let isOurs = Self.active.withLock { $0.contains(path) }
      guard !isOurs && isLeftover(path, of: process) else { continue }
      if Files.remove(path) {
        notes.append("Removed \(path), left behind by a run that was killed.")
      }
    }
    return notes
  }

  /// In containers process ids recur: a leftover may well carry our own, and then only the lock
  /// tells. A living process of another id is never doubted.
  private static func isLeftover(_ path: String, of process: pid_t) -> Bool {
    if process != getpid() && (kill(process, 0) == 0 || errno != ESRCH) { return false }
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    return flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK
  }
}

/// Renaming with the guarantees that plain `rename` lacks for folders.
private enum Rename {
  /// Moves `source` to `target`. If `target` exists, it either refuses or exchanges the two.
  static func move(_ source: String, to target: String, replacing: Bool) -> CheckpointError? {
    if pare_rename(source, target, 0) == 0 { return nil }
    var code = errno
    if code == EEXIST {
      guard replacing else { return .outputExists(path: target) }
      if pare_rename(source, target, 1) == 0 { return nil }
      code = errno
    }
    guard code == EINVAL || code == ENOSYS || code == ENOTSUP else {
      return Files.unwritable(target, code)
    }
    return moveInSteps(source, to: target, replacing: replacing)
  }

  /// For file systems that know neither: the former output steps aside first, and comes back if
  /// the new one cannot take its place.
  private static func moveInSteps(
    _ source: String, to target: String, replacing: Bool
  ) -> CheckpointError? {
    guard Files.isTaken(target) else {
      return rename(source, target) == 0 ? nil : Files.unwritable(target, errno)
    }
    guard replacing else { return .outputExists(path: target) }
    if Files.kind(source) == .file {
      return rename(source, target) == 0 ? nil : Files.unwritable(target, errno)
    }
    let aside = source + "-former"
    guard rename(target, aside) == 0 else { return Files.unwritable(target, errno) }
    guard rename(source, target) == 0 else {
      let code = errno
      rename(aside, target)
      return Files.unwritable(target, code)
    }
    Files.remove(aside)
    return nil
  }
}
