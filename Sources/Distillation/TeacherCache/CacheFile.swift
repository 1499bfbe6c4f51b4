import Checkpoints
import Tensors
import Text

/// A file of top-k predictions, mapped.
///
/// From its start: eight bytes of magic; for each text one record (the number of rows and the lengths
/// of all rows as 16-bit integers, then the rows as `TopRowCode` writes them); the index, one entry for
/// each text in the order of their digests; a JSON description; the trailer. All integers are
/// little-endian. The trailer comes last because a file is written in one pass, before anyone knows
/// how much it will hold.
package final class CacheFile: Sendable {
  package let path: String
  package let identity: CacheIdentity
  package let code: TopRowCode
  /// Predictions that are stored.
  package let rows: Int
  /// Different texts.
  package let texts: Int
  private let file: MappedFile
  private let indexOffset: Int

  static let magic: [UInt8] = Array("PARETOPK".utf8)
  static let version = 1
  static let entryBytes = 32
  static let trailerBytes = 24

  /// - Throws: `unreadableCache` when the file is no such cache, or not whole.
  package init(path: String) throws(DistillationError) {
    func unreadable(_ problem: String) -> DistillationError {
      .unreadableCache(path: path, problem: problem)
    }
    let file: MappedFile
    do throws(MappingError) {
      file = try MappedFile(path: path)
    } catch {
      throw unreadable(error.reason)
    }
    let size = file.byteCount
    guard size >= 8 + Self.trailerBytes, file.bytes.prefix(8).elementsEqual(Self.magic),
      file.bytes.suffix(8).elementsEqual(Self.magic)
    else { throw unreadable("it is no cache of predictions, or the end is missing") }
    let trailer = size - Self.trailerBytes
    let (indexOffset, descriptionBytes) = (
      file.integer(trailer, as: UInt64.self), file.integer(trailer + 8, as: UInt64.self)
    )
    guard descriptionBytes >= 0, descriptionBytes <= trailer - 8, indexOffset >= 8,
      indexOffset <= trailer - descriptionBytes,
      (trailer - descriptionBytes - indexOffset) % Self.entryBytes == 0
    else { throw unreadable("its parts do not fit together") }
    let description: JSON
    do throws(JSONError) {
      description = try JSON.parse(
        Array(file.bytes[(trailer - descriptionBytes)..<trailer]), name: path)
    } catch {
      throw unreadable("its description is damaged")
    }
    guard description["version"]?.int == Self.version else {
      throw unreadable("it was made by another version")
    }
    guard let identity = CacheIdentity(json: description), let k = description["k"]?.int,
      let vocabulary = description["vocabulary"]?.int,
      let resolution = description["resolution"]?.int, let rows = description["rows"]?.int,
      k >= 1, k <= vocabulary, vocabulary <= Int(Int32.max), resolution >= 1, rows >= 0
    else { throw unreadable("its description is incomplete") }
    self.path = path
    self.identity = identity
    code = TopRowCode(k: k, vocabularySize: vocabulary, resolution: resolution)
    self.rows = rows
    self.file = file
    self.indexOffset = indexOffset
    texts = (trailer - descriptionBytes - indexOffset) / Self.entryBytes
  }

  package var byteCount: Int { file.byteCount }
  package var bytesPerRow: Double { Double(byteCount) / Double(max(rows, 1)) }

  private func entry(
    _ index: Int
  ) -> (digest: TextDigest, start: Int, count: Int, sum: UInt32) {
    let at = indexOffset + index * Self.entryBytes
    return (
      TextDigest(
        high: UInt64(bitPattern: Int64(file.integer(at, as: UInt64.self))),
        low: UInt64(bitPattern: Int64(file.integer(at + 8, as: UInt64.self)))),
      file.integer(at + 16, as: UInt64.self), file.integer(at + 24, as: UInt32.self),
      UInt32(file.integer(at + 28, as: UInt32.self))
    )
  }

  /// The rows of a text; nil if it is not here.
  /// - Throws: `unreadableCache` for a damaged record.
  func record(_ digest: TextDigest) throws(DistillationError) -> CacheRecord? {
    var (low, high) = (0, texts)
    while low < high {
      let middle = (low + high) / 2
      if entry(middle).digest < digest { low = middle + 1 } else { high = middle }
    }
    guard low < texts else { return nil }
    let found = entry(low)
    guard found.digest == digest else { return nil }
    let damaged = DistillationError.unreadableCache(path: path, problem: "a record is damaged")
    guard found.start >= 8, found.start <= indexOffset - found.count else { throw damaged }
    let place = found.start..<(found.start + found.count)
    guard CacheRecord.sum(bytes(place)) == found.sum, let record = CacheRecord(place, of: self),
      !file.isDamaged
    else { throw damaged }
    return record
  }

  fileprivate func bytes(_ range: Range<Int>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: file.bytes[range])
  }
}

/// The rows of one text in a mapped file.
struct CacheRecord: Sendable {
  private let file: CacheFile
  /// Where each row starts in the file, and the last ends.
  private let starts: [Int]

  var rows: Int { starts.count - 1 }

  init?(_ place: Range<Int>, of file: CacheFile) {
    let bytes = file.bytes(place)
    guard bytes.count >= 4 else { return nil }
    let count = Int(UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)))
    guard count <= (bytes.count - 4) / 2 else { return nil }
    var starts = [place.lowerBound + 4 + 2 * count]
    for row in 0..<count {
      let length = bytes.loadUnaligned(fromByteOffset: 4 + 2 * row, as: UInt16.self)
      starts.append(starts[row] + Int(UInt16(littleEndian: length)))
    }
    guard starts[count] == place.upperBound else { return nil }
    self.file = file
    self.starts = starts
  }

  /// - Returns: whether the row was whole.
  func read(
    _ row: Int, ids: UnsafeMutablePointer<Int32>, logProbabilities: UnsafeMutablePointer<Float>
  ) -> Bool {
    file.code.decode(
      file.bytes(starts[row]..<starts[row + 1]), ids: ids, logProbabilities: logProbabilities)
  }

  static func bytes(of rows: [[UInt8]]) -> [UInt8] {
    var bytes: [UInt8] = []
    append(UInt32(truncatingIfNeeded: rows.count), to: &bytes)
    for row in rows { append(UInt16(truncatingIfNeeded: row.count), to: &bytes) }
    for row in rows { bytes.append(contentsOf: row) }
    return bytes
  }

  /// The first 32 bits of SHA-256.
  static func sum(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    UInt32(SHA256.digest(bytes).prefix(8), radix: 16) ?? 0
  }
}

/// Appends an integer, the low byte first.
func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
  withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
}

extension MappedFile {
  /// The low bits of a little-endian integer; those of 64 bits that do not fit become negative.
  fileprivate func integer<T: FixedWidthInteger>(_ offset: Int, as type: T.Type) -> Int {
    Int(truncatingIfNeeded: T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: type)))
  }
}
