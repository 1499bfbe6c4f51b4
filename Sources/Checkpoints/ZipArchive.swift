package import Tensors

/// The table of contents of a zip archive whose entries are stored, not compressed, as `torch.save`
/// writes them; entries are read in place. Layout: PKWARE APPNOTE 6.3.10, with the zip64 records.
package struct ZipArchive {
  package struct Entry {
    let name: String
    /// Where the entry's bytes lie in the file.
    let range: Range<Int>
    let crc32: UInt32
  }

  let file: MappedFile
  package let entries: [String: Entry]

  private static let localHeaderSignature = 0x0403_4b50
  private static let entrySignature = 0x0201_4b50
  private static let endSignature = 0x0605_4b50
  private static let end64Signature = 0x0606_4b50
  private static let end64LocatorSignature = 0x0706_4b50

  static func isZip(_ file: MappedFile) -> Bool {
    file.byteCount >= 4 && file.bytes.loadUnaligned(as: UInt32.self) == localHeaderSignature
  }

  package init(_ file: MappedFile) throws(CheckpointError) {
    self.file = file
    let reader = Reader(file: file)
    let end = try Self.findEnd(reader)
    let directory = try Self.findDirectory(reader, end: end)
    var entries: [String: Entry] = [:]
    var position = directory.start
    for _ in 0..<directory.entryCount {
      let (entry, next) = try Self.readEntry(reader, at: position)
      guard entries.updateValue(entry, forKey: entry.name) == nil else {
        throw reader.wrong("\(entry.name) occurs twice")
      }
      position = next
    }
    self.entries = entries
  }

  package func bytes(_ entry: Entry) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: file.bytes[entry.range])
  }

  /// Whether an entry's bytes agree with the checksum in the table of contents.
  func isIntact(_ entry: Entry) -> Bool { CRC32.of(bytes(entry)) == entry.crc32 }

  // MARK: Reading

  /// Little-endian numbers at checked offsets.
  private struct Reader {
    let file: MappedFile
    var size: Int { file.byteCount }

    func wrong(_ problem: String) -> CheckpointError {
      .wrongArchive(file: file.path, problem: problem)
    }

    func check(_ offset: Int, _ count: Int) throws(CheckpointError) {
      guard offset >= 0 && count >= 0 && count <= size && offset <= size - count else {
        throw wrong("a record lies outside the file, which may be cut short")
      }
    }

    func number(_ offset: Int, bytes count: Int) throws(CheckpointError) -> Int {
      try check(offset, count)
      var value: UInt64 = 0
      for i in (0..<count).reversed() { value = value << 8 | UInt64(file.bytes[offset + i]) }
      guard let value = Int(exactly: value) else { throw wrong("a record holds a senseless size") }
      return value
    }
  }

  /// The end record is last in the file, followed only by a comment of at most 65,535 bytes.
  private static func findEnd(_ reader: Reader) throws(CheckpointError) -> Int {
    var offset = reader.size - 22
    let lowest = max(0, offset - 65_535)
    while offset >= lowest {
      if try reader.number(offset, bytes: 4) == endSignature { return offset }
      offset -= 1
    }
    throw reader.wrong("its table of contents is missing, so it may be cut short")
  }

  private static func findDirectory(
    _ reader: Reader, end: Int
  ) throws(CheckpointError) -> (start: Int, entryCount: Int) {
    var entryCount = try reader.number(end + 10, bytes: 2)
    var byteCount = try reader.number(end + 12, bytes: 4)
    var start = try reader.number(end + 16, bytes: 4)
    if entryCount == 0xffff || byteCount == 0xffff_ffff || start == 0xffff_ffff {
      let locator = end - 20
      guard locator >= 0, try reader.number(locator, bytes: 4) == end64LocatorSignature else {
        throw reader.wrong("its zip64 record is missing")
      }
      let record = try reader.number(locator + 8, bytes: 8)
      guard try reader.number(record, bytes: 4) == end64Signature else {
        throw reader.wrong("its zip64 record is missing")
      }
      entryCount = try reader.number(record + 32, bytes: 8)
      byteCount = try reader.number(record + 40, bytes: 8)
      start = try reader.number(record + 48, bytes: 8)
    }
    try reader.check(start, byteCount)
    // Each entry of the table takes 46 bytes at least, so a false count cannot cost much.
    guard entryCount <= byteCount / 46 else { throw reader.wrong("it states too many entries") }
    return (start, entryCount)
  }

  private static func readEntry(
    _ reader: Reader, at position: Int
  ) throws(CheckpointError) -> (Entry, next: Int) {
    guard try reader.number(position, bytes: 4) == entrySignature else {
      throw reader.wrong("its table of contents is damaged")
    }
    let flags = try reader.number(position + 8, bytes: 2)
    let method = try reader.number(position + 10, bytes: 2)
    let crc = try reader.number(position + 16, bytes: 4)
    var stored = try reader.number(position + 20, bytes: 4)
    var size = try reader.number(position + 24, bytes: 4)
    let nameLength = try reader.number(position + 28, bytes: 2)
    let extraLength = try reader.number(position + 30, bytes: 2)
    let commentLength = try reader.number(position + 32, bytes: 2)
    var header = try reader.number(position + 42, bytes: 4)
    let extra = position + 46 + nameLength
    let next = extra + extraLength + commentLength
    try reader.check(position, next - position)
    let nameBytes = reader.file.bytes[(position + 46)..<extra]
    guard let name = String(validating: nameBytes, as: UTF8.self) else {
      throw reader.wrong("an entry's name is not UTF-8")
    }

    // Extra field 1 carries, in this order, those of the values that did not fit in 32 bits.
    var field = extra
    while field + 4 <= extra + extraLength {
      let tag = try reader.number(field, bytes: 2)
      let length = try reader.number(field + 2, bytes: 2)
      if tag == 1 {
        var value = field + 4
        func wide(_ narrow: Int) throws(CheckpointError) -> Int {
          guard narrow == 0xffff_ffff else { return narrow }
          guard value + 8 <= field + 4 + length else {
            throw reader.wrong("the zip64 sizes of \(name) are missing")
          }
          defer { value += 8 }
          return try reader.number(value, bytes: 8)
        }
        size = try wide(size)
        stored = try wide(stored)
        header = try wide(header)
      }
      field += 4 + length
    }

    guard flags & 1 == 0 else { throw reader.wrong("\(name) is encrypted") }
    guard method == 0 && stored == size else { throw reader.wrong("\(name) is compressed") }
    guard try reader.number(header, bytes: 4) == localHeaderSignature else {
      throw reader.wrong("the header of \(name) is damaged")
    }
    let localName = try reader.number(header + 26, bytes: 2)
    let localExtra = try reader.number(header + 28, bytes: 2)
    let start = header + 30 + localName + localExtra
    try reader.check(start, size)
    return (Entry(name: name, range: start..<(start + size), crc32: UInt32(crc)), next)
  }
}

/// The checksum of zip archives: CRC-32 with the polynomial 0x04C11DB7, bits reflected.
package enum CRC32 {
  private static let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { value, _ in
      value & 1 == 1 ? value >> 1 ^ 0xedb8_8320 : value >> 1
    }
  }

  package static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    ~bytes.reduce(~UInt32(0)) { value, byte in
      value >> 8 ^ table[Int((value ^ UInt32(byte)) & 255)]
    }
  }
}
