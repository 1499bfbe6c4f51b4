#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The little that other modules ask of the file system.
package enum FileProbe {
  /// Names in a folder, in byte order.
  package static func names(in folder: String) throws(CheckpointError) -> [String] {
    try Files.list(folder)
  }

  /// A small file's bytes.
  package static func read(_ path: String) throws(CheckpointError) -> [UInt8] {
    try Files.read(path)
  }

  /// Removes a file, or a folder with all that is in it.
  package static func remove(_ path: String) { Files.remove(path) }

  /// Makes a folder in one that exists; one of that name may be there.
  package static func makeFolder(_ path: String) throws(CheckpointError) {
    guard mkdir(path, 0o777) != 0, errno != EEXIST || Files.kind(path) != .folder else { return }
    throw Files.unwritable(path, errno)
  }

  package static func exists(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0
  }

  /// Whether it is a file that starts as safetensors do, whatever its name: the header's length,
  /// then a brace.
  package static func isSafetensors(_ path: String) -> Bool {
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, let file = fopen(path, "rb")
    else { return false }
    defer { fclose(file) }
    var head = [UInt8](repeating: 0, count: 9)
    return fread(&head, 1, head.count, file) == head.count && head[8] == UInt8(ascii: "{")
  }
}
