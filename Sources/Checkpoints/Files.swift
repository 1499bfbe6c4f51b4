#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The few questions this module asks of the file system. Paths are plain strings.
enum Files {
  enum Kind: Equatable {
    case absent, folder, file, other
  }

  /// What a path leads to, symbolic links followed.
  static func kind(_ path: String) -> Kind {
    var status = stat()
    guard stat(path, &status) == 0 else { return .absent }
    switch status.st_mode & S_IFMT {
    case S_IFDIR: return .folder
    case S_IFREG: return .file
    default: return .other
    }
  }

  /// Whether anything, even a dangling link, has this name.
  static func isTaken(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0
  }

  static func join(_ folder: String, _ name: String) -> String {
    folder.hasSuffix("/") ? folder + name : "\(folder)/\(name)"
  }

  /// The last component, and the folder it is in ("." when the path has only one component).
  static func split(_ path: String) -> (folder: String, name: String) {
    var trimmed = Substring(path)
    while trimmed.count > 1 && trimmed.last == "/" { trimmed.removeLast() }
    guard let slash = trimmed.lastIndex(of: "/") else { return (".", String(trimmed)) }
    let name = String(trimmed[trimmed.index(after: slash)...])
    let folder = trimmed[..<slash]
    return (folder.isEmpty ? "/" : String(folder), name)
  }

  /// The path without links, `.` and `..`; nil if it leads nowhere.
  static func canonical(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// Names in a folder, in byte order, without `.` and `..`.
  static func list(_ folder: String) throws(CheckpointError) -> [String] {
    guard let stream = opendir(folder) else { throw unreadable(folder, errno) }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
        tuple.withMemoryRebound(to: CChar.self, capacity: 1) { String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  /// A small file's bytes; a larger one is refused, so that a wrong path cannot fill the memory.
  static func read(_ path: String, limit: Int = 1 << 30) throws(CheckpointError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw unreadable(path, errno) }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw unreadable(path, errno) }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw .unreadable(file: path, reason: "it is not a file")
    }
    guard status.st_size <= limit else {
      throw .unreadable(file: path, reason: "it is larger than \(limit) bytes")
    }
    let size = Int(status.st_size)
    var failure: Int32 = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
      while count < size {
        let got = pread(
          descriptor, buffer.baseAddress.map { $0 + count }, size - count, off_t(count))
        if got < 0 && errno == EINTR { continue }
        if got < 0 { failure = errno }
        if got <= 0 { break }
        count += got
      }
    }
    guard failure == 0 else { throw unreadable(path, failure) }
    return bytes
  }

  /// What a file of the system gives until it ends, whatever size it claims; at most 64 KB.
  static func readStream(_ path: String) throws(CheckpointError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw unreadable(path, errno) }
    defer { close(descriptor) }
    return [UInt8](unsafeUninitializedCapacity: 1 << 16) { buffer, count in
      while count < buffer.count {
        let got = Swift.max(
          0, systemRead(descriptor, buffer.baseAddress.map { $0 + count }, buffer.count - count))
        if got == 0 { break }
        count += got
      }
    }
  }

  /// Removes a file, or a folder with all that is in it. Links are removed, not followed.
  /// Returns whether nothing of that name is left.
  @discardableResult
  static func remove(_ path: String) -> Bool {
    var status = stat()
    guard lstat(path, &status) == 0 else { return true }
    guard status.st_mode & S_IFMT == S_IFDIR else { return unlink(path) == 0 }
    // A thread that is still writing may add a file between our listing and our rmdir.
    for _ in 0..<5 {
      for name in (try? list(path)) ?? [] { remove(join(path, name)) }
      if rmdir(path) == 0 { return true }
    }
    return false
  }

  static func unreadable(_ path: String, _ code: Int32) -> CheckpointError {
    .unreadable(file: path, reason: String(cString: strerror(code)))
  }

  /// The error for a failed write, with the full disk told apart.
  static func unwritable(_ path: String, _ code: Int32) -> CheckpointError {
    switch code {
    case ENOSPC, EFBIG, EDQUOT: .diskFull(file: path)
    default: .unwritable(file: path, reason: String(cString: strerror(code)))
    }
  }
}

/// `read`, whose name a method of `Files` takes.
private func systemRead(_ descriptor: Int32, _ target: UnsafeMutableRawPointer?, _ count: Int)
  -> Int
{
  read(descriptor, target, count)
}
