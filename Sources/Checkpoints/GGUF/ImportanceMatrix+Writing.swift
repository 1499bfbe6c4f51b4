import Codecs
import Tensors

extension ImportanceMatrix {
  /// Writes a file that llama.cpp's `llama-quantize --imatrix` reads. Entries without data are left
  /// out. The bytes depend on nothing but what is written.
  ///
  /// - Parameter path: of an `OutputFile`; it is on the disk when this returns.
  /// - Throws: `CheckpointError`.
  public func write(to path: String, format: Format) throws(CheckpointError) {
    switch format {
    case .gguf: try writeGGUF(path)
    case .dat:
      let sink = try FileSink(path: path)
      try sink.write(legacyBytes, at: 0)
      try sink.finish()
    }
  }

  private var stored: [(name: String, entry: Entry)] {
    names.compactMap { name in
      guard let entry = entries[name], entry.counts.contains(where: { $0 > 0 }) else { return nil }
      return (name, entry)
    }
  }

  private func writeGGUF(_ path: String) throws(CheckpointError) {
    var metadata = GGUFMetadata()
    metadata.set("general.type", "imatrix")
    metadata.set("imatrix.datasets", GGUFArray(strings: datasets.map { Array($0.utf8) }))
    metadata.set("imatrix.chunk_count", chunkCount)
    metadata.set("imatrix.chunk_size", chunkSize)
    var declarations: [GGUFDeclaration] = []
    for (name, entry) in stored {
      // Sizes of 1 at the slow end are not spelled out.
      let parts = entry.counts.count
      declarations.append(
        GGUFDeclaration(
          name: "\(name).in_sum2", type: .f32,
          shape: parts == 1 ? [entry.inputs] : [parts, entry.inputs]))
      declarations.append(
        GGUFDeclaration(
          name: "\(name).counts", type: .f32, shape: parts == 1 ? [1] : [parts, 1]))
    }
    var writer = try GGUFWriter(file: path, metadata: metadata, tensors: declarations)
    for (name, entry) in stored {
      try writer.append("\(name).in_sum2", Tensor(entry.sums, shape: [entry.sums.count]))
      try writer.append("\(name).counts", Tensor(entry.counts, shape: [entry.counts.count]))
    }
    _ = try writer.finish()
  }

  /// Each entry holds means times a number of calls, here of chunks; what no input reached counts as 1.
  private var legacyBytes: [UInt8] {
    var bytes: [UInt8] = []
    func append(_ number: Int) { bytes.append(littleEndian: Int32(clamping: number)) }
    func append(text: String) {
      append(text.utf8.count)
      bytes += Array(text.utf8)
    }
    let stored = stored
    append(stored.count)
    for (name, entry) in stored {
      let most = Double(entry.counts.max() ?? 0)
      let calls = max(1, Int((most / Double(max(chunkSize, 1))).rounded(.up)))
      append(text: name)
      append(calls)
      append(entry.sums.count)
      for (index, sum) in entry.sums.enumerated() {
        let count = Double(entry.counts[index / entry.inputs])
        let mean = count > 0 ? Double(sum) / count : 1
        bytes.append(littleEndian: Float(mean * Double(calls)).bitPattern)
      }
    }
    append(chunkCount)
    append(text: datasets.last ?? "")
    return bytes
  }
}
