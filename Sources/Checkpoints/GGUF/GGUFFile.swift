import Codecs
import Tensors

/// Reads the header of a GGUF file, versions 2 and 3: counts, metadata, then names, sizes, types
/// and places of tensors. Nothing behind the header is touched.
/// Format: ggml-org/ggml, docs/gguf.md.
struct GGUFFile {
  let file: MappedFile
  let metadata: GGUFMetadata
  let tensors: [StoredTensor]

  static let magic = Array("GGUF".utf8)
  /// Far more than any model has; a false count cannot cost much memory.
  static let mostEntries = 1 << 20

  static func isRecognised(_ file: MappedFile) -> Bool { file.bytes.starts(with: magic) }

  init(_ file: MappedFile) throws(CheckpointError) {
    var reader = Reader(file: file)
    guard file.byteCount >= 24 else {
      throw .truncated(file: file.path, expected: 24, actual: file.byteCount)
    }
    guard Self.isRecognised(file) else { throw reader.wrong("it does not begin with \"GGUF\"") }
    reader.position = 4
    let version = try reader.number(UInt32.self)
    guard version & 0xffff != 0 else {
      throw reader.wrong("it is big-endian, which is not supported")
    }
    guard version == 2 || version == 3 else {
      throw reader.wrong("its version is \(version), and only 2 and 3 are supported")
    }
    let tensorCount = try reader.count("tensors", least: 24)
    let keyCount = try reader.count("keys", least: 13)
    self.file = file
    metadata = try reader.metadata(keyCount)
    let alignment = try Self.alignment(metadata, reader)
    var entries: [Entry] = []
    var names: Set<String> = []
    for _ in 0..<tensorCount {
      let entry = try reader.entry(alignment: alignment)
      guard names.insert(entry.name).inserted else {
        throw .duplicateTensor(name: entry.name, files: [file.path])
      }
      entries.append(entry)
    }
    tensors = try Self.place(entries, from: reader.position, alignment: alignment, in: file)
  }

  private static func alignment(
    _ metadata: GGUFMetadata, _ reader: Reader
  ) throws(CheckpointError) -> Int {
    let key = GGUFMetadata.alignmentKey
    guard let value = metadata[key] else { return GGUFMetadata.defaultAlignment }
    guard case .uint32(let alignment) = value, alignment.nonzeroBitCount == 1, alignment <= 1 << 20
    else {
      throw .wrongMetadata(
        file: reader.file.path, key: key, problem: "is not a power of two up to 2^20")
    }
    return Int(alignment)
  }

  /// What the header says of a tensor.
  fileprivate struct Entry {
    let name: String
    let dtype: DType
    let blockType: GGUFType?
    let shape: [Int]
    let byteCount: Int
    /// From the start of the data.
    let offset: Int
  }

  private static func place(
    _ entries: [Entry], from headerEnd: Int, alignment: Int, in file: MappedFile
  ) throws(CheckpointError) -> [StoredTensor] {
    let dataStart = (headerEnd + alignment - 1) / alignment * alignment
    let ordered = entries.sorted {
      ($0.offset, $0.offset + $0.byteCount) < ($1.offset, $1.offset + $1.byteCount)
    }
    var end = 0
    var previous = ""
    var tensors: [StoredTensor] = []
    for entry in ordered {
      guard entry.offset >= end else {
        throw .overlap(file: file.path, first: previous, second: entry.name)
      }
      end = entry.offset + entry.byteCount
      previous = entry.name
      guard end <= file.byteCount - dataStart else {
        throw .truncated(file: file.path, expected: dataStart + end, actual: file.byteCount)
      }
      let info = TensorInfo(
        name: entry.name, dtype: entry.dtype, shape: entry.shape, file: file.path,
        blockType: entry.blockType)
      tensors.append(StoredTensor(info: info, offset: dataStart + entry.offset, strides: nil))
    }
    return tensors
  }
}

/// Little-endian values at a position that only moves forward, each checked against what is left.
private struct Reader {
  let file: MappedFile
  var position = 0

  private var left: Int { file.byteCount - position }

  func wrong(_ problem: String) -> CheckpointError {
    .wrongGGUF(file: file.path, problem: problem)
  }

  private func need(_ bytes: Int) throws(CheckpointError) {
    guard bytes <= left else {
      throw .truncated(file: file.path, expected: position + bytes, actual: file.byteCount)
    }
  }

  mutating func number<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type
  ) throws(CheckpointError) -> T {
    try need(MemoryLayout<T>.size)
    defer { position += MemoryLayout<T>.size }
    return T(littleEndian: file.bytes.loadUnaligned(fromByteOffset: position, as: T.self))
  }

  /// A number of entries of which each takes at least some bytes.
  mutating func count(_ what: String, least: Int) throws(CheckpointError) -> Int {
    let stated = try number(UInt64.self)
    guard stated <= UInt64(GGUFFile.mostEntries), Int(stated) <= left / least else {
      throw wrong("it states \(stated) \(what), more than fit")
    }
    return Int(stated)
  }

  /// The bytes of a string, and where they lie.
  mutating func string(_ what: String) throws(CheckpointError) -> Range<Int> {
    let stated = try number(UInt64.self)
    guard let length = Int(exactly: stated), length <= left else {
      throw wrong("\(what) states \(stated) bytes, more than the file has")
    }
    defer { position += length }
    return position..<(position + length)
  }

  /// A name, which is UTF-8 text.
  private mutating func name(_ what: String) throws(CheckpointError) -> String {
    let range = try string(what)
    guard range.count <= 65_535 else { throw wrong("\(what) is \(range.count) bytes long") }
    guard let name = String(validating: file.bytes[range], as: UTF8.self) else {
      throw wrong("\(what) is not UTF-8")
    }
    return name
  }

  // MARK: Metadata

  mutating func metadata(_ count: Int) throws(CheckpointError) -> GGUFMetadata {
    var metadata = GGUFMetadata()
    for index in 0..<count {
      let key = try name("key \(index)")
      guard metadata[key] == nil else {
        throw .wrongMetadata(file: file.path, key: key, problem: "occurs twice")
      }
      metadata.set(key, try value(try type(key), key))
    }
    return metadata
  }

  private mutating func type(_ key: String) throws(CheckpointError) -> GGUFValueType {
    let number = try number(UInt32.self)
    guard let type = GGUFValueType(rawValue: number) else {
      throw .wrongMetadata(file: file.path, key: key, problem: "has the unknown type \(number)")
    }
    return type
  }

  private mutating func value(
    _ type: GGUFValueType, _ key: String
  ) throws(CheckpointError) -> GGUFValue {
    switch type {
    case .uint8: .uint8(try number(UInt8.self))
    case .int8: .int8(try number(Int8.self))
    case .uint16: .uint16(try number(UInt16.self))
    case .int16: .int16(try number(Int16.self))
    case .uint32: .uint32(try number(UInt32.self))
    case .int32: .int32(try number(Int32.self))
    case .float32: .float32(Float(bitPattern: try number(UInt32.self)))
    case .bool: .bool(try number(UInt8.self) != 0)
    case .string: .string(Array(file.bytes[try string(key)]))
    case .array: .array(try array(key))
    case .uint64: .uint64(try number(UInt64.self))
    case .int64: .int64(try number(Int64.self))
    case .float64: .float64(Double(bitPattern: try number(UInt64.self)))
    }
  }

  private mutating func array(_ key: String) throws(CheckpointError) -> GGUFArray {
    let elementType = try type(key)
    let stated = try number(UInt64.self)
    func wrong(_ problem: String) -> CheckpointError {
      .wrongMetadata(file: file.path, key: key, problem: problem)
    }
    guard elementType != .array else { throw wrong("is an array of arrays") }
    let least = elementType.byteCount ?? 8
    guard let count = Int(exactly: stated), count <= left / least else {
      throw wrong("states \(stated) elements, more than the file has")
    }
    let start = position
    if let byteCount = elementType.byteCount {
      position += count * byteCount
    } else {
      for _ in 0..<count { _ = try string(key) }
    }
    return GGUFArray(
      elementType: elementType, count: count,
      storage: Storage(file: file, offset: start, byteCount: position - start))
  }

  // MARK: Tensors

  mutating func entry(alignment: Int) throws(CheckpointError) -> GGUFFile.Entry {
    let name = try name("a tensor's name")
    func wrong(_ problem: String) -> CheckpointError {
      .wrongTensor(file: file.path, tensor: name, problem: problem)
    }
    let dimensions = try number(UInt32.self)
    guard dimensions <= 4 else { throw wrong("it has \(dimensions) dimensions") }
    var shape: [Int] = []
    for _ in 0..<dimensions {
      let stated = try number(UInt64.self)
      guard let size = Int(exactly: stated) else { throw wrong("a size is \(stated)") }
      shape.insert(size, at: 0)  // the file has the innermost first
    }
    let number = try number(UInt32.self)
    guard let (dtype, blockType) = GGUFFile.elementType(number) else {
      throw .unknownDType(file: file.path, tensor: name, dtype: GGUFFile.typeName(number))
    }
    guard let byteCount = GGUFFile.byteCount(shape, dtype, blockType) else {
      throw wrong("its sizes \(shape) are not possible for \(GGUFFile.typeName(number))")
    }
    let stated = try self.number(UInt64.self)
    guard let offset = Int(exactly: stated), offset <= file.byteCount else {
      throw wrong("it begins at byte \(stated) of the data, beyond the end")
    }
    guard offset % alignment == 0 else {
      throw wrong("it begins at byte \(offset), no multiple of the alignment \(alignment)")
    }
    guard byteCount <= file.byteCount else {
      throw .truncated(file: file.path, expected: byteCount, actual: file.byteCount)
    }
    return GGUFFile.Entry(
      name: name, dtype: dtype, blockType: blockType, shape: shape, byteCount: byteCount,
      offset: offset)
  }
}
