public import Codecs
public import Tensors

/// A tensor that is going to be written into a GGUF file.
public struct GGUFDeclaration: Sendable, Hashable {
  public var name: String
  public var type: GGUFType
  /// Sizes, slowest first: `[outputs, inputs]`.
  public var shape: [Int]

  public init(name: String, type: GGUFType, shape: [Int]) {
    self.name = name
    self.type = type
    self.shape = shape
  }

  /// Bytes of its numbers; nil where sizes overflow or rows are no whole number of blocks.
  public var byteCount: Int? {
    GGUFFile.byteCount(shape, type.dtype ?? .uint8, type.dtype == nil ? type : nil)
  }
}

/// Writes a GGUF file, version 3, in bounded memory: metadata and declarations first, then each
/// tensor's bytes in the declared order, aligned to 32. The bytes depend on nothing else.
///
/// This writes straight to the named file; `OutputFile` sees to it that it appears under its final
/// name only when whole.
public struct GGUFWriter: ~Copyable {
  private let tensors: [GGUFDeclaration]
  private let byteCounts: [Int]
  private let sink: FileSink
  private var position: Int
  private var next = 0
  private var appended = 0
  private var digest = SHA256()

  /// SHA-256 of each tensor's bytes, by name; `Checkpoint.digest(of:)` must give the same.
  public private(set) var writtenDigests: [String: String] = [:]

  /// ggml keeps names in 64 bytes, the last of which is 0.
  private static let longestName = 63

  public init(
    file: String, metadata: GGUFMetadata, tensors: [GGUFDeclaration]
  ) throws(CheckpointError) {
    var header = GGUFFile.magic
    header.append(littleEndian: UInt32(3))
    header.append(littleEndian: UInt64(tensors.count))
    header.append(littleEndian: UInt64(metadata.keys.count))
    for key in metadata.keys {
      guard let value = metadata[key] else { continue }
      guard key != GGUFMetadata.alignmentKey else {
        throw .wrongDeclaration("the alignment is always \(GGUFMetadata.defaultAlignment)")
      }
      header.append(ggufString: Array(key.utf8))
      header.append(littleEndian: value.type.rawValue)
      value.append(to: &header)
    }
    var names: Set<String> = []
    var byteCounts: [Int] = []
    var offset = 0
    for tensor in tensors {
      guard names.insert(tensor.name).inserted else {
        throw .wrongDeclaration("\(tensor.name) is declared twice")
      }
      guard tensor.name.utf8.count <= Self.longestName else {
        throw .wrongDeclaration("the name \(tensor.name) is longer than 63 bytes")
      }
      guard tensor.shape.count <= 4, let byteCount = tensor.byteCount,
        byteCount <= Int.max / 2 - offset
      else {
        throw .wrongDeclaration(
          "\(tensor.name) cannot be \(tensor.type.name) with the sizes \(tensor.shape)")
      }
      header.append(ggufString: Array(tensor.name.utf8))
      header.append(littleEndian: UInt32(tensor.shape.count))
      for size in tensor.shape.reversed() { header.append(littleEndian: UInt64(size)) }
      header.append(littleEndian: tensor.type.rawValue)
      header.append(littleEndian: UInt64(offset))
      byteCounts.append(byteCount)
      offset = Self.aligned(offset + byteCount)
    }
    header += [UInt8](repeating: 0, count: Self.aligned(header.count) - header.count)
    let sink = try FileSink(path: file)
    try sink.write(header, at: 0)
    self.tensors = tensors
    self.byteCounts = byteCounts
    self.sink = sink
    position = header.count
  }

  /// Appends the bytes of the next tensor, or a further piece of them.
  /// - Throws: `wrongDeclaration` if another tensor is due or the bytes are too many; `diskFull`,
  ///   `unwritable`.
  public mutating func append(
    _ name: String, _ bytes: UnsafeRawBufferPointer
  ) throws(CheckpointError) {
    while next < tensors.count, tensors[next].name != name, byteCounts[next] == 0 { try complete() }
    guard next < tensors.count else {
      throw .wrongDeclaration("\(name) comes after the last declared tensor")
    }
    guard tensors[next].name == name else {
      throw .wrongDeclaration("\(name) comes where \(tensors[next].name) is due")
    }
    guard bytes.count <= byteCounts[next] - appended else {
      throw .wrongDeclaration("\(name) has more than its \(byteCounts[next]) bytes")
    }
    digest.update(bytes)
    try sink.write(bytes, at: position)
    position += bytes.count
    appended += bytes.count
    if appended == byteCounts[next] { try complete() }
  }

  /// Appends the bytes of a tensor, all or some rows of the declared one.
  public mutating func append(_ name: String, _ rows: Tensor) throws(CheckpointError) {
    try append(name, rows.bytes)
  }

  /// Completes the file: all is on the disk when this returns.
  /// - Returns: `writtenDigests`.
  public consuming func finish() throws(CheckpointError) -> [String: String] {
    while next < tensors.count, byteCounts[next] == 0 { try complete() }
    guard next == tensors.count else {
      throw .wrongDeclaration("\(tensors[next].name) is not complete")
    }
    try sink.finish()
    return writtenDigests
  }

  private mutating func complete() throws(CheckpointError) {
    writtenDigests[tensors[next].name] = digest.finish()
    digest = SHA256()
    next += 1
    appended = 0
    let end = Self.aligned(position)
    if end > position { try sink.write([UInt8](repeating: 0, count: end - position), at: position) }
    position = end
  }

  private static func aligned(_ offset: Int) -> Int {
    let alignment = GGUFMetadata.defaultAlignment
    return (offset + alignment - 1) / alignment * alignment
  }
}
