import Text

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension Tokenizer {
  /// Reads a `tokenizer.json`.
  /// - Throws: why the file cannot be read, or what in it is malformed or not supported.
  public convenience init(path: String) throws(TokenizerError) {
    try self.init(bytes: try Self.read(path), name: path)
  }

  /// Reads the bytes of a `tokenizer.json`; `name` is for messages.
  public convenience init(
    bytes: [UInt8], name: String = "tokenizer.json"
  ) throws(TokenizerError) {
    let json: JSON
    do throws(JSONError) {
      json = try JSON.parse(bytes, name: name)
    } catch {
      throw .notJSON(error)
    }
    try self.init(json: json, name: name)
  }

  private static func read(_ path: String) throws(TokenizerError) -> [UInt8] {
    guard let file = fopen(path, "rb") else {
      throw .unreadable(path: path, reason: String(cString: strerror(errno)))
    }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    while true {
      let count = fread(&chunk, 1, chunk.count, file)
      bytes += chunk[..<count]
      if count < chunk.count { break }
    }
    if ferror(file) != 0 {
      throw .unreadable(path: path, reason: "reading failed; it may be a folder")
    }
    return bytes
  }
}
