package import Checkpoints

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A file that grows at its end. Every append reaches the kernel before it returns, so that a killed
/// process loses nothing it reported; only a power failure may.
package final class LogFile {
  package let path: String
  private let descriptor: Int32

  package enum Mode {
    /// Empties a file that is there.
    case new
    /// Refuses one that is there.
    case newName
    /// Goes on after the first bytes of one that is there.
    case keeping(Int)
  }

  package init(_ path: String, _ mode: Mode) throws(CheckpointError) {
    // A limit on file sizes then ends in EFBIG, which we report, and not in a fatal signal.
    signal(SIGXFSZ, SIG_IGN)
    self.path = path
    var flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC
    switch mode {
    case .new: flags |= O_TRUNC
    case .newName: flags |= O_EXCL
    case .keeping: break
    }
    descriptor = open(path, flags, 0o666)
    guard descriptor >= 0 else { throw Self.unwritable(path, errno) }
    if case .keeping(let bytes) = mode, ftruncate(descriptor, off_t(bytes)) != 0 {
      throw Self.unwritable(path, errno)
    }
  }

  package func append(_ bytes: [UInt8]) throws(CheckpointError) {
    var done = 0
    while done < bytes.count {
      let wrote = bytes.withUnsafeBytes {
        write(descriptor, $0.baseAddress.map { $0 + done }, bytes.count - done)
      }
      if wrote < 0 && errno == EINTR { continue }
      guard wrote >= 0 else { throw Self.unwritable(path, errno) }
      guard wrote > 0 else { throw .diskFull(file: path) }
      done += wrote
    }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// All of a file; nil where there is none.
  package static func contents(_ path: String) throws(CheckpointError) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 && errno == ENOENT { return nil }
    func failure() -> CheckpointError {
      .unreadable(file: path, reason: String(cString: strerror(errno)))
    }
    guard descriptor >= 0 else { throw failure() }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let got = piece.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
      if got < 0 && errno == EINTR { continue }
      guard got >= 0 else { throw failure() }
      if got == 0 { return bytes }
      bytes += piece[..<got]
    }
  }

  /// Names in a folder; none where it cannot be listed.
  static func names(in folder: String) -> [String] {
    guard let stream = opendir(folder) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      names.append(
        withUnsafePointer(to: &entry.pointee.d_name) { tuple in
          tuple.withMemoryRebound(to: CChar.self, capacity: 1) { String(cString: $0) }
        })
    }
    return names
  }

  /// Makes a folder unless it is there.
  static func makeFolder(_ path: String) throws(CheckpointError) {
    if mkdir(path, 0o777) != 0 && errno != EEXIST { throw unwritable(path, errno) }
  }

  private static func unwritable(_ path: String, _ code: Int32) -> CheckpointError {
    switch code {
    case ENOSPC, EFBIG, EDQUOT: .diskFull(file: path)
    default: .unwritable(file: path, reason: String(cString: strerror(code)))
    }
  }
}
