import Tensors

extension ImportanceMatrix {
  /// Reads a file in either form, which its first bytes tell apart.
  /// Format: ggml-org/llama.cpp, tools/imatrix.
  ///
  /// - Throws: `CheckpointError.unreadable`, `.truncated`, `.wrongImportance` and whatever is wrong
  ///   with a GGUF file.
  public init(path: String) throws(CheckpointError) {
    let file = try MappedFile.open(path)
    self =
      GGUFFile.isRecognised(file)
      ? try Self.gguf(try GGUFFile(file)) : try Self.legacy(file)
    guard !entries.isEmpty else {
      throw .wrongImportance(file: path, problem: "it has no entries")
    }
    for name in names {
      guard let entry = entries[name] else { continue }
      guard !entry.counts.isEmpty, !entry.sums.isEmpty,
        entry.sums.count % entry.counts.count == 0
      else {
        throw .wrongImportance(
          file: path,
          problem: "\(name) has \(entry.sums.count) sums and \(entry.counts.count) counts")
      }
      guard (entry.sums + entry.counts).allSatisfy({ $0 >= 0 && $0.isFinite }) else {
        throw .wrongImportance(
          file: path, problem: "\(name) has numbers that are no sums of squares")
      }
    }
    guard !file.isDamaged else { throw .damagedWhileReading(file: path) }
  }

  private static let sumsSuffix = ".in_sum2"
  private static let countsSuffix = ".counts"

  private static func gguf(_ file: GGUFFile) throws(CheckpointError) -> ImportanceMatrix {
    let path = file.file.path
    let kind = file.metadata["general.type"]?.string
    guard kind == nil || kind == "imatrix" else {
      throw .wrongImportance(file: path, problem: "it is a GGUF file of the type \(kind ?? "")")
    }
    var sums: [String: [Float]] = [:]
    var counts: [String: [Float]] = [:]
    for tensor in file.tensors {
      let name = tensor.info.name
      func values() throws(CheckpointError) -> [Float] {
        guard tensor.info.blockType == nil, tensor.info.dtype == .float32 else {
          throw .wrongImportance(
            file: path, problem: "\(name) is \(tensor.info.storage) and not F32")
        }
        return (0..<tensor.info.count).map { index in
          Float(
            bitPattern: UInt32(
              littleEndian: file.file.bytes.loadUnaligned(
                fromByteOffset: tensor.offset + 4 * index, as: UInt32.self)))
        }
      }
      if name.hasSuffix(sumsSuffix) {
        sums[String(name.dropLast(sumsSuffix.count))] = try values()
      } else if name.hasSuffix(countsSuffix) {
        counts[String(name.dropLast(countsSuffix.count))] = try values()
      }
    }
    var matrix = ImportanceMatrix(
      datasets: (file.metadata["imatrix.datasets"]?.array?.strings ?? []).map {
        String(decoding: $0, as: UTF8.self)
      },
      chunkCount: file.metadata["imatrix.chunk_count"]?.int ?? 0,
      chunkSize: file.metadata["imatrix.chunk_size"]?.int ?? 0)
    for name in Set(sums.keys).union(counts.keys).sorted() {
      guard let sums = sums[name], let counts = counts[name] else {
        throw .wrongImportance(
          file: path, problem: "\(name) has no \(sums[name] == nil ? "sums" : "counts")")
      }
      matrix.entries[name] = Entry(sums: sums, counts: counts)
    }
    return matrix
  }

  /// Of these files only the mean is certain: what an entry holds is that times the number of calls.
  private static func legacy(_ file: MappedFile) throws(CheckpointError) -> ImportanceMatrix {
    var reader = LegacyReader(file: file)
    var matrix = ImportanceMatrix()
    let count = try reader.number("the number of entries")
    for _ in 0..<count {
      let name = try reader.text("a tensor's name")
      let calls = try reader.signed()
      let values = try reader.floats(try reader.number("the number of values of \(name)"))
      guard matrix.entries[name] == nil else {
        throw .wrongImportance(file: file.path, problem: "\(name) occurs twice")
      }
      matrix.entries[name] = Entry(sums: values, counts: [Float(max(calls, 1))])
    }
    // The oldest files end here.
    if reader.left > 0 { matrix.chunkCount = try reader.number("the number of chunks") }
    if reader.left > 0 { matrix.datasets = [try reader.text("the data's name")] }
    return matrix
  }
}

/// Little-endian numbers of 32 bits, each checked against what is left.
private struct LegacyReader {
  let file: MappedFile
  var position = 0
  var left: Int { file.byteCount - position }

  mutating func signed() throws(CheckpointError) -> Int32 {
    guard left >= 4 else {
      throw .truncated(file: file.path, expected: position + 4, actual: file.byteCount)
    }
    defer { position += 4 }
    return Int32(littleEndian: file.bytes.loadUnaligned(fromByteOffset: position, as: Int32.self))
  }

  /// A number of things of which each takes at least a byte.
  mutating func number(_ what: String) throws(CheckpointError) -> Int {
    let stated = try signed()
    guard stated >= 0, stated <= file.byteCount else {
      throw .wrongImportance(
        file: file.path, problem: "it is no importance matrix: \(what) is \(stated)")
    }
    return Int(stated)
  }

  mutating func text(_ what: String) throws(CheckpointError) -> String {
    let length = try number("the length of \(what)")
    guard length <= left else {
      throw .truncated(file: file.path, expected: position + length, actual: file.byteCount)
    }
    let range = position..<(position + length)
    guard let text = String(validating: file.bytes[range], as: UTF8.self) else {
      throw .wrongImportance(file: file.path, problem: "\(what) is not UTF-8")
    }
    position += length
    return text
  }

  mutating func floats(_ count: Int) throws(CheckpointError) -> [Float] {
    guard count <= left / 4 else {
      throw .truncated(file: file.path, expected: position + 4 * count, actual: file.byteCount)
    }
    defer { position += 4 * count }
    return (0..<count).map { index in
      Float(
        bitPattern: UInt32(
          littleEndian: file.bytes.loadUnaligned(
            fromByteOffset: position + 4 * index, as: UInt32.self)))
    }
  }
}
