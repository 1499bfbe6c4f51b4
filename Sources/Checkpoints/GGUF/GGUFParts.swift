import Tensors

/// A GGUF file, or all files of one that was split: `NAME-00001-of-00003.gguf` and so on, the first
/// with the metadata, each with its own tensors.
struct GGUFParts {
  let files: [GGUFFile]

  /// - Parameter path: any of the parts.
  init(_ path: String) throws(CheckpointError) {
    let opened = try GGUFFile(MappedFile.open(path))
    let stated = try Self.number("split.count", opened) ?? 1
    guard stated > 1 else {
      files = [opened]
      return
    }
    guard let name = PartName(path), name.count == stated else {
      throw .wrongMetadata(
        file: path, key: "split.count",
        problem: "says that this is one of \(stated) parts, and the file's name is not that of one")
    }
    var files: [GGUFFile] = []
    var total = 0
    for index in 0..<stated {
      let part = name.path(index)
      guard Files.kind(part) == .file else {
        throw .missingShard(index: path, shard: Files.split(part).name)
      }
      let file = index == name.index ? opened : try GGUFFile(MappedFile.open(part))
      guard try Self.number("split.no", file) == index,
        try Self.number("split.count", file) == stated
      else {
        throw .wrongMetadata(
          file: part, key: "split.no", problem: "is not that of part \(index + 1) of \(stated)")
      }
      total += file.tensors.count
      files.append(file)
    }
    if let expected = try Self.number("split.tensors.count", files[0]), expected != total {
      throw .wrongMetadata(
        file: path, key: "split.tensors.count",
        problem: "is \(expected), and the parts hold \(total) tensors")
    }
    self.files = files
  }

  private static func number(
    _ key: String, _ file: GGUFFile
  ) throws(CheckpointError) -> Int? {
    guard let value = file.metadata[key] else { return nil }
    guard let number = value.int, (0...99_999).contains(number) else {
      throw .wrongMetadata(file: file.file.path, key: key, problem: "is not a number of parts")
    }
    return number
  }
}

/// `STEM-00002-of-00003.gguf`
private struct PartName {
  let stem: Substring
  let index: Int
  let count: Int

  init?(_ path: String) {
    let ending = path.suffix(20)  // -00002-of-00003.gguf
    guard ending.count == 20, ending.hasPrefix("-"), ending.hasSuffix(".gguf"),
      ending.dropFirst(6).hasPrefix("-of-"),
      let number = Int(ending.dropFirst(1).prefix(5)),
      let count = Int(ending.dropFirst(10).prefix(5)), (1...count).contains(number)
    else { return nil }
    stem = path.dropLast(20)
    index = number - 1
    self.count = count
  }

  func path(_ index: Int) -> String {
    func padded(_ number: Int) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }
    return "\(stem)-\(padded(index + 1))-of-\(padded(count)).gguf"
  }
}
