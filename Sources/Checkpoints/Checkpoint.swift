public import Tensors

/// A model as it lies on the disk: named tensors over mapped files, and the small files beside
/// them.
///
/// Opening reads headers only; a tensor's pages arrive when it is touched. Accepted are a folder in
/// Hugging Face layout (also one in the Hub's cache, whose files are links), a shard index, and a
/// single `.safetensors`, `.bin` or `.gguf` file. Of a folder with both formats, safetensors is
/// read; of a GGUF file that was split, all parts.
///
/// ```swift
/// let checkpoint = try Checkpoint.open("models/SmolLM2-135M")
/// let embedding = try checkpoint.tensor("model.embed_tokens.weight")
/// ```
public final class Checkpoint: Sendable {
  public enum Format: String, Sendable { case safetensors, pytorch, gguf }

  /// The path that was asked for.
  public let path: String
  /// The folder with the weights and the side files. For a cached model, its snapshot.
  public let folder: String
  public let format: Format
  /// Every tensor's name, in stored order: file by file, in each by position.
  public let names: [String]
  /// The files' own remarks, `{"format": "pt"}` as a rule; shards' are merged, the first wins.
  public let metadata: [String: String]
  /// The metadata of a GGUF file; nil for the other formats.
  public let gguf: GGUFMetadata?

  private let files: [WeightFile]
  private let index: String?
  private let places: [String: (file: Int, tensor: Int)]
  /// Tensors shown in place of those of the files, by name; nil where the files' own are.
  private let views: [String: TensorView]?
  private let madeFiles: [MadeFile]

  /// - Throws: `CheckpointError` if no weights are found or a header is not valid.
  public static func open(_ path: String) throws(CheckpointError) -> Checkpoint {
    try Checkpoint(path: path, located: Layout.locate(path))
  }

  /// Opens one file as safetensors, whatever its name.
  public static func openSafetensors(_ path: String) throws(CheckpointError) -> Checkpoint {
    let folder = Files.split(path).folder
    return try Checkpoint(
      path: path,
      located: Layout(folder: folder, format: .safetensors, files: [path], index: nil))
  }

  private init(path: String, located: Layout) throws(CheckpointError) {
    self.path = path
    folder = located.folder
    format = located.format
    index = located.index?.path
    var files: [WeightFile] = []
    var gguf: GGUFMetadata?
    for path in located.files {
      switch located.format {
      case .safetensors: files.append(try SafetensorsFile.read(MappedFile.open(path)))
      case .pytorch: files.append(try PyTorchFile.read(MappedFile.open(path)))
      case .gguf:
        for part in try GGUFParts(path).files {
          files.append(WeightFile(file: part.file, tensors: part.tensors, metadata: [:]))
          gguf = gguf ?? part.metadata
        }
      }
    }
    var names: [String] = []
    var places: [String: (file: Int, tensor: Int)] = [:]
    var metadata: [String: String] = [:]
    for (fileNumber, file) in files.enumerated() {
      metadata.merge(file.metadata) { first, _ in first }
      for (tensorNumber, tensor) in file.tensors.enumerated() {
        let name = tensor.info.name
        if let earlier = places.updateValue((fileNumber, tensorNumber), forKey: name) {
          throw .duplicateTensor(
            name: name, files: [files[earlier.file].file.path, file.file.path])
        }
        names.append(name)
      }
    }
    if let index = located.index {
      for (tensor, shard) in index.tensors {
        guard let place = places[tensor], files[place.file].file.path == shard else {
          throw .indexedTensorAbsent(index: index.path, tensor: tensor, shard: shard)
        }
      }
    }
    self.files = files
    self.names = names
    self.places = places
    self.metadata = metadata
    self.gguf = gguf
    views = nil
    madeFiles = []
  }

  /// The same files with their tensors shown in another way, and with side files that are made.
  package init(
    _ other: Checkpoint, showing views: [TensorView], madeFiles: [MadeFile]
  ) {
    path = other.path
    folder = other.folder
    format = other.format
    metadata = other.metadata
    gguf = other.gguf
    files = other.files
    index = other.index
    places = other.places
    names = views.map(\.info.name)
    self.views = Dictionary(
      views.map { ($0.info.name, $0) }, uniquingKeysWith: { first, _ in first })
    self.madeFiles = madeFiles
  }

  // MARK: Tensors

  /// Whether there is a tensor of this name.
  public func contains(_ name: String) -> Bool { info(name) != nil }

  public func info(_ name: String) -> TensorInfo? {
    if let views { return views[name]?.info }
    return places[name].map { files[$0.file].tensors[$0.tensor].info }
  }

  /// The tensor of this name, in its stored element type.
  ///
  /// Its bytes stay in the mapped file, with three exceptions that are copied: a PyTorch view that
  /// is not row-major (a transposed one), and tensors of 4- or 8-byte elements at an address that
  /// does not suit them, which old safetensors writers produced. One- and two-byte elements are
  /// mapped wherever they lie: **a bf16 or f16 tensor's address may be odd**, so kernels load
  /// them unaligned.
  /// - Throws: `CheckpointError.missingTensors` if there is none of this name.
  public func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let views else { return try storedTensor(name) }
    guard let view = views[name] else { throw .missingTensors([name], in: path) }
    let stored = try storedTensor(view.source)
    guard let read = view.read else { return stored }
    defer { stored.giveBack() }
    return read(stored)
  }

  private func storedTensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let place = places[name] else { throw .missingTensors([name], in: path) }
    let file = files[place.file].file
    let stored = files[place.file].tensors[place.tensor]
    let info = stored.info
    let shape = info.storedShape
    if let strides = stored.strides {
      return Tensor(dtype: info.dtype, shape: info.shape) { target in
        Strided.gather(
          file.base + stored.offset, shape: info.shape, strides: strides,
          elementBytes: info.dtype.byteCount, into: target)
      }
    }
    let isAligned = (Int(bitPattern: file.base) + stored.offset) % info.dtype.byteCount == 0
    if !isAligned && info.dtype.byteCount > 2 {
      return Tensor(dtype: info.dtype, shape: shape) { target in
        target.copyMemory(
          from: UnsafeRawBufferPointer(start: file.base + stored.offset, count: info.byteCount))
      }
    }
    let window = Storage(file: file, offset: stored.offset, byteCount: info.byteCount)
    return Tensor(dtype: info.dtype, shape: shape, storage: window)
  }

  /// The tensor of this name, which must have this shape.
  /// - Throws: `missingTensors` or `wrongShape`.
  public func expect(_ name: String, shape: [Int]) throws(CheckpointError) -> Tensor {
    guard let info = info(name) else { throw .missingTensors([name], in: path) }
    guard info.shape == shape else {
      throw .wrongShape(name: name, expected: shape, actual: info.shape)
    }
    return try tensor(name)
  }

  /// Throws if a file was changed, cut short or became unreadable since it was opened. Tensors read
  /// from such a file may hold zeros: ask after reading and before trusting a result.
  public func checkIntact() throws(CheckpointError) {
    for file in files where file.file.isDamaged {
      throw .damagedWhileReading(file: file.file.path)
    }
  }

  // MARK: Files

  /// What changes when a file of weights does: path, size and time of modification of each. Reads
  /// nothing, so a cache can be looked for by it at every start.
  public var stamps: [String] { files.map { "\($0.file.path) \($0.file.stamp)" } }

  /// Paths of the files that hold the weights, in order.
  public var weightFiles: [String] { files.map(\.file.path) }

  /// All that an output must not replace: the folder and, wherever links lead, each file.
  public var inputPaths: [String] {
    format == .gguf
      ? weightFiles : [path, folder] + weightFiles + sideFiles.map { Files.join(folder, $0) }
  }

  /// Names of the small files that belong to the model: configuration, tokenizer, chat template,
  /// licence. In byte order.
  public var sideFiles: [String] {
    if format == .gguf { return madeFiles.map(\.name) }
    return ((try? Files.list(folder)) ?? []).filter {
      SideFiles.isKnown($0) && Files.kind(Files.join(folder, $0)) == .file
    }
  }

  /// The bytes of a side file.
  /// - Throws: `missingSideFile` or `unreadable`.
  public func readSideFile(_ name: String) throws(CheckpointError) -> [UInt8] {
    if let made = madeFiles.first(where: { $0.name == name }) { return try made.read() }
    let path = Files.join(folder, name)
    guard !name.contains("/"), Files.kind(path) != .absent else {
      throw .missingSideFile(folder: folder, name: name)
    }
    return try Files.read(path)
  }

  /// What identifies the input: every file that belongs to it with its SHA-256. Reads all of the
  /// weights once, shards side by side, holding only a few megabytes of each resident.
  public func fileHashes() throws(CheckpointError) -> [FileHash] {
    var hashes = Parallel.map(files.count) { FileHash(of: files[$0].file) }
    try checkIntact()
    let beside = format == .gguf ? [] : sideFiles.map { Files.join(folder, $0) }
    for path in beside + (index.map { [$0] } ?? []) {
      let bytes = try Files.read(path)
      let digest = bytes.withUnsafeBytes { SHA256.digest($0) }
      hashes.append(
        FileHash(file: Files.split(path).name, byteCount: bytes.count, sha256: digest))
    }
    return hashes
  }
}

/// One file's identity.
public struct FileHash: Sendable, Hashable {
  /// The name, without its folder.
  public let file: String
  public let byteCount: Int
  /// 64 hexadecimal digits, as `sha256sum` prints them and the Hub states them for large files.
  public let sha256: String
}

extension FileHash {
  /// How much is read before its pages are given back.
  static let pieceBytes = 8 << 20

  init(of file: MappedFile) {
    var hash = SHA256()
    var start = 0
    while start < file.byteCount {
      let end = min(start + Self.pieceBytes, file.byteCount)
      hash.update(UnsafeRawBufferPointer(rebasing: file.bytes[start..<end]))
      file.giveBack(start..<end)
      start = end
    }
    self.init(
      file: Files.split(file.path).name, byteCount: file.byteCount, sha256: hash.finish())
  }
}
