public import Tensors

/// Writes a model's tensors as safetensors, one after the other, in bounded memory.
///
/// All names, types and shapes are declared first; then the numbers are appended in that order.
/// The bytes depend on declarations, metadata, shard size and numbers alone. Data passes through to
/// the disk and leaves the page cache, so writing 100 GB needs no more memory than writing 1 GB.
///
/// ```swift
/// var writer = try SafetensorsWriter(folder: output.path, tensors: declarations)
/// for name in names { try writer.append(name, compressed(name)) }
/// let digests = try writer.finish()
/// ```
///
/// This writes straight to the named files; `OutputDirectory` or `OutputFile` see to it that they
/// appear under their final names only when whole.
public struct SafetensorsWriter: ~Copyable {
  private let tensors: [TensorDeclaration]
  private let layout: SafetensorsLayout
  private let folder: String

  private var sink: FileSink
  private var openFile = 0
  private var next = 0
  /// How much of tensor `next` has been appended, and its digest so far.
  private var appended = 0
  private var digest = SHA256()

  /// SHA-256 of each tensor's bytes that are written, by name: after reopening the files,
  /// `Checkpoint.digest(of:)` must give the same.
  public private(set) var writtenDigests: [String: String] = [:]

  /// Five billion bytes, the customary size of a shard.
  public static let defaultShardByteLimit = 5_000_000_000

  /// Prepares `model.safetensors` in a folder, or shards with their index when the tensors take
  /// more than `shardByteLimit`. The first file is created at once.
  public init(
    folder: String, tensors: [TensorDeclaration],
    metadata: [(String, String)] = [("format", "pt")],
    shardByteLimit: Int = SafetensorsWriter.defaultShardByteLimit
  ) throws(CheckpointError) {
    let layout = try SafetensorsLayout(
      tensors, metadata: metadata, stem: "model", shardByteLimit: max(1, shardByteLimit))
    let sink = try Self.create(layout.files[0], Files.join(folder, layout.files[0].name))
    self.tensors = tensors
    self.layout = layout
    self.folder = folder
    self.sink = sink
  }

  /// Prepares one file of any size.
  public init(
    file: String, tensors: [TensorDeclaration],
    metadata: [(String, String)] = [("format", "pt")]
  ) throws(CheckpointError) {
    let layout = try SafetensorsLayout(
      tensors, metadata: metadata, stem: "model", shardByteLimit: Int.max)
    let sink = try Self.create(layout.files[0], file)
    self.tensors = tensors
    self.layout = layout
    folder = Files.split(file).folder
    self.sink = sink
  }

  /// Appends the bytes of the next tensor, or a further piece of them; pieces of one tensor follow
  /// each other until it is complete.
  /// - Throws: `wrongDeclaration` if another tensor is due or the bytes are too many; `diskFull`,
  ///   `unwritable`.
  public mutating func append(
    _ name: String, _ bytes: UnsafeRawBufferPointer
  ) throws(CheckpointError) {
    // A tensor without elements may be appended or left out.
    while next < tensors.count, tensors[next].name != name, layout.places[next].byteCount == 0 {
      try complete()
    }
    guard next < tensors.count else {
      throw .wrongDeclaration("\(name) comes after the last declared tensor")
    }
    guard tensors[next].name == name else {
      throw .wrongDeclaration("\(name) comes where \(tensors[next].name) is due")
    }
    let place = layout.places[next]
    guard bytes.count <= place.byteCount - appended else {
      throw .wrongDeclaration("\(name) has more than its \(place.byteCount) bytes")
    }
    while openFile < place.file { try advance() }
    digest.update(bytes)
    try sink.write(bytes, at: place.offset + appended)
    appended += bytes.count
    if appended == place.byteCount { try complete() }
  }

  /// Appends a whole tensor, which must have the declared type and shape.
  public mutating func append(_ name: String, _ tensor: Tensor) throws(CheckpointError) {
    if next < tensors.count, appended == 0, tensors[next].name == name,
      tensors[next].dtype != tensor.dtype || tensors[next].shape != tensor.shape
    {
      throw .wrongDeclaration(
        "\(name) is \(tensor.dtype.rawValue) \(tensor.shape), declared as "
          + "\(tensors[next].dtype.rawValue) \(tensors[next].shape)")
    }
    try append(name, tensor.bytes)
  }

  /// Completes the files: all is on the disk when this returns.
  /// - Returns: `writtenDigests`.
  /// - Throws: `wrongDeclaration` if tensors are missing.
  public consuming func finish() throws(CheckpointError) -> [String: String] {
    while next < tensors.count, layout.places[next].byteCount == 0 { try complete() }
    guard next == tensors.count else {
      throw .wrongDeclaration("\(tensors[next].name) is not complete")
    }
    while openFile < layout.files.count - 1 { try advance() }
    try sink.finish()
    if layout.files.count > 1 {
      let sink = try FileSink(path: Files.join(folder, "model.safetensors.index.json"))
      try sink.write(layout.index(tensors), at: 0)
      try sink.finish()
    }
    return writtenDigests
  }

  /// Bytes of all files together, headers included, known from the start.
  public var totalByteCount: Int {
    layout.files.reduce(0) { $0 + $1.header.count + $1.dataByteCount }
  }

  /// Ends the current tensor and starts the next.
  private mutating func complete() throws(CheckpointError) {
    writtenDigests[tensors[next].name] = digest.finish()
    digest = SHA256()
    next += 1
    appended = 0
  }

  /// Ends the current shard and starts the next.
  private mutating func advance() throws(CheckpointError) {
    try sink.finish()
    openFile += 1
    let file = layout.files[openFile]
    sink = try Self.create(file, Files.join(folder, file.name))
  }

  /// Creates a file and writes its header.
  private static func create(
    _ file: SafetensorsLayout.File, _ path: String
  ) throws(CheckpointError) -> FileSink {
    let sink = try FileSink(path: path)
    try sink.write(file.header, at: 0)
    return sink
  }
}

extension Checkpoint {
  /// `digest(of:)` of several tensors, computed side by side.
  public func digests(of names: [String]) throws(CheckpointError) -> [String] {
    let results = Parallel.map(names.count) { index in
      Result { () throws(CheckpointError) in try digest(of: names[index]) }
    }
    var digests: [String] = []
    for result in results { digests.append(try result.get()) }
    return digests
  }

  /// SHA-256 of a tensor's bytes as stored, to compare with what a writer noted. The pages read are
  /// given back.
  /// - Throws: `missingTensors`; `damagedWhileReading`.
  public func digest(of name: String) throws(CheckpointError) -> String {
    let tensor = try tensor(name)
    var hash = SHA256()
    var start = 0
    while start < tensor.byteCount {
      let end = min(start + FileHash.pieceBytes, tensor.byteCount)
      hash.update(UnsafeRawBufferPointer(rebasing: tensor.bytes[start..<end]))
      if let file = tensor.storage.owner {
        let base = tensor.rawPointer - file.base
        file.giveBack((base + start)..<(base + end))
      }
      start = end
    }
    try checkIntact()
    return hash.finish()
  }
}
