import Checkpoints
import Tensors
import Text

/// A mapped file and where its documents begin.
///
/// A text longer than `partBytes` is cut into parts, each of which counts as a document from here on:
/// tokenizing one never takes more than a moment or a few megabytes, whatever the file holds.
struct DocumentFile: Sendable {
  let source: DataSource
  let file: MappedFile
  /// Documents, before long ones were cut.
  private(set) var documents = 0
  /// Documents without text, which are left out.
  private(set) var skipped = 0
  /// Where each part begins; the top bit says that it continues the one before.
  private var starts: [UInt64] = []

  private static let continuation: UInt64 = 1 << 63

  var count: Int { starts.count }
  var path: String { source.path }

  /// Reads the whole file once, so that whatever is wrong with it is known before training starts.
  init(_ source: DataSource, partBytes: Int) throws(TrainingError) {
    self.source = source
    do throws(MappingError) {
      file = try MappedFile(path: source.path)
    } catch {
      throw .unreadableData(file: source.path, reason: error.reason)
    }
    let hasMark = file.bytes.prefix(3).elementsEqual([0xEF, 0xBB, 0xBF])
    if case .text(let separator) = source.format {
      try indexText(Array(separator.utf8), from: hasMark ? 3 : 0, partBytes)
    } else {
      try indexLines(from: hasMark ? 3 : 0)
    }
    file.giveBack(0..<file.byteCount)
    try checkUnchanged()
  }

  func checkUnchanged() throws(TrainingError) {
    if file.isDamaged { throw .dataChanged(file: path) }
  }

  /// SHA-256 of the file's bytes.
  func hash() throws(TrainingError) -> String {
    var hash = SHA256()
    forEachStretch { hash.update($0) }
    try checkUnchanged()
    return hash.finish()
  }

  private func forEachStretch(_ body: (UnsafeRawBufferPointer) -> Void) {
    let stretch = 1 << 24
    for start in stride(from: 0, to: file.byteCount, by: stretch) {
      let range = start..<min(start + stretch, file.byteCount)
      body(UnsafeRawBufferPointer(rebasing: file.bytes[range]))
      file.giveBack(range)
    }
  }
}

// MARK: - Reading a document

extension DocumentFile {
  func start(_ part: Int) -> Int { Int(starts[part] & ~Self.continuation) }

  /// The part that a byte of the file belongs to, the first for bytes before it.
  func part(at offset: Int) -> Int {
    var (low, high) = (0, count)
    while high - low > 1 {
      let middle = (low + high) / 2
      if start(middle) <= offset { low = middle } else { high = middle }
    }
    return low
  }

  /// The bytes of a part, and whether its document goes on.
  func extent(_ part: Int) -> (range: Range<Int>, goesOn: Bool) {
    let bytes = file.bytes
    let start = start(part)
    if part + 1 < count, starts[part + 1] & Self.continuation != 0 {
      return (start..<self.start(part + 1), true)
    }
    let end =
      if case .text(let separator) = source.format {
        LineText.next(Array(separator.utf8), in: bytes, from: start)?.lowerBound
      } else {
        LineText.first(0x0A, in: bytes, start..<bytes.count)
      }
    // What a cut left before a part's first word belongs to it.
    return (start..<LineText.trimmed(bytes, start..<(end ?? bytes.count)).upperBound, false)
  }

  func content(_ part: Int) throws(TrainingError) -> DocumentContent {
    let (range, goesOn) = extent(part)
    let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[range])
    if case .text = source.format {
      let continuesBefore = starts[part] & Self.continuation != 0
      return .text(Array(bytes), continuesBefore: continuesBefore, continuesAfter: goesOn)
    }
    let reader = RecordReader(file: path, format: source.format)
    let content = try reader.content(bytes) { line(at: range.lowerBound) }
    // It had content when it was indexed.
    guard let content else { throw .dataChanged(file: path) }
    return content
  }

  /// Counted from 1.
  func line(at offset: Int) -> Int {
    1 + file.bytes[..<offset].count { $0 == 0x0A }
  }
}

// MARK: - Finding the documents

extension DocumentFile {
  private mutating func indexText(
    _ separator: [UInt8], from first: Int, _ partBytes: Int
  ) throws(TrainingError) {
    let bytes = file.bytes
    var start = first
    var kept = 0
    while start < bytes.count {
      let end = LineText.next(separator, in: bytes, from: start)
      let text = LineText.trimmed(bytes, start..<(end?.lowerBound ?? bytes.count))
      if let offset = LineText.firstInvalid(bytes, text) {
        throw .invalidText(file: path, offset: offset)
      }
      if !text.isEmpty {
        documents += 1
        append(bytes, text, partBytes)
      } else if end != nil {
        skipped += 1
      }
      start = end?.upperBound ?? bytes.count
      if start - kept > 1 << 26 {
        file.giveBack(kept..<start)
        kept = start
      }
    }
  }

  private mutating func append(
    _ bytes: UnsafeRawBufferPointer, _ text: Range<Int>, _ partBytes: Int
  ) {
    starts.append(UInt64(text.lowerBound))
    var rest = text
    while rest.count > partBytes {
      let cut = LineText.cut(bytes, rest.lowerBound..<rest.lowerBound + partBytes)
      starts.append(UInt64(cut) | Self.continuation)
      rest = cut..<rest.upperBound
    }
  }

  /// Lines are checked many at a time, in parallel.
  private mutating func indexLines(from first: Int) throws(TrainingError) {
    let bytes = file.bytes
    let reader = RecordReader(file: path, format: source.format)
    var start = first
    var line = 0
    while start < bytes.count {
      let blockStart = start
      var block: [(line: Int, range: Range<Int>)] = []
      while start < bytes.count, block.count < 4096, start - blockStart < 1 << 24 {
        let end = LineText.first(0x0A, in: bytes, start..<bytes.count) ?? bytes.count
        line += 1
        let text = LineText.trimmed(bytes, start..<end)
        if !text.isEmpty { block.append((line, text)) }
        start = end + 1
      }
      let (lines, pointer) = (block, Unshared(bytes))
      let results = Parallel.map(lines.count) { index -> Result<Bool, TrainingError> in
        let text = UnsafeRawBufferPointer(rebasing: pointer.value[lines[index].range])
        do throws(TrainingError) {
          return .success(try reader.content(text) { lines[index].line } != nil)
        } catch {
          return .failure(error)
        }
      }
      for (result, line) in zip(results, lines) {
        if try result.get() {
          documents += 1
          starts.append(UInt64(line.range.lowerBound))
        } else {
          skipped += 1
        }
      }
      file.giveBack(blockStart..<min(start, bytes.count))
    }
  }
}
