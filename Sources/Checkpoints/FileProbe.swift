#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Two questions about a path before it is opened as a checkpoint.
package enum FileProbe {
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
