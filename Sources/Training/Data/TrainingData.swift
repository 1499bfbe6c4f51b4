import Checkpoints
import Tensors
import Text

/// The documents of a training: files, their order in each epoch, and those held out from it.
///
/// Files stay on disk, mapped; in memory are 8 bytes for each document's place and 4 for each of
/// the training and held-out lists. What is called a document here is, where a text is longer than
/// `partBytes`, a part of one.
public struct TrainingData: Sendable {
  public let sources: [DataSource]
  let files: [DocumentFile]
  /// The number of the first document of each file, and after the last.
  private let bases: [Int]
  /// Numbers of documents by the use they are put to, in the order of the files, repeated as told.
  private let lists: [Use: [UInt32]]
  private let split: HeldOut.Split
  public let seed: UInt64

  public enum Use: Sendable, Hashable, CaseIterable {
    case training, heldOut
  }

  /// - Parameters:
  ///   - heldOut: which documents are kept from training.
  ///   - seed: decides which are held out, and the order in each epoch.
  ///   - partBytes: longer texts are cut; should be many times the bytes of a row.
  /// - Throws: `TrainingError` for whatever is wrong with any line or byte of the files.
  public init(
    _ sources: [DataSource], heldOut: HeldOut = .none, seed: UInt64, partBytes: Int = 1 << 16
  ) throws(TrainingError) {
    for source in sources {
      guard source.repeats >= 1 else {
        throw .badSetting(
          "the number of passes over \(source.path)", value: "\(source.repeats)",
          expected: "at least 1")
      }
      if case .text(let separator) = source.format, separator.isEmpty {
        throw .badSetting("the separator of \(source.path)", value: "empty", expected: "some text")
      }
    }
    guard partBytes >= 8 else {
      throw .badSetting("the size of parts", value: "\(partBytes)", expected: "at least 8 bytes")
    }
    var files: [DocumentFile] = []
    var bases = [0]
    for source in sources {
      let file = try DocumentFile(source, partBytes: partBytes)
      bases.append(bases[files.count] + file.count)
      files.append(file)
    }
    let count = bases[files.count]
    guard count > 0 else { throw .noDocuments(files: sources.map(\.path)) }
    guard count <= Int(UInt32.max) else {
      throw .badSetting("the number of documents", value: "\(count)", expected: "below 2^32")
    }
    let split = try heldOut.split(count: count, seed: seed)
    var lists: [Use: [UInt32]] = [.training: [], .heldOut: []]
    for index in files.indices {
      let numbers = UInt32(bases[index])..<UInt32(bases[index + 1])
      let kept = numbers.filter { !split.contains(Int($0)) }
      for _ in 0..<files[index].source.repeats { lists[.training]?.append(contentsOf: kept) }
      lists[.heldOut]?.append(contentsOf: numbers.filter { split.contains(Int($0)) })
    }
    self.sources = sources
    self.files = files
    self.bases = bases
    self.lists = lists
    self.split = split
    self.seed = seed
  }

  /// Documents, parts of long ones and repetitions counted.
  public func count(_ use: Use) -> Int { lists[use]?.count ?? 0 }
  public var bytes: Int { files.reduce(0) { $0 + $1.file.byteCount } }
  /// Documents left out because they hold no text.
  public var skippedDocuments: Int { files.reduce(0) { $0 + $1.skipped } }
  /// Documents before long ones were cut, repetitions not counted.
  public var wholeDocuments: Int { files.reduce(0) { $0 + $1.documents } }
  var distinctDocuments: Int { bases[files.count] }

  /// The files' digests, formats and repetitions as one SHA-256: two runs with the same see the same
  /// documents. Reads every byte.
  public func contentHash() throws(TrainingError) -> String {
    var lines = ""
    for file in files {
      lines += "\(try file.hash()) \(file.source.repeats) \(file.source.format.name)\n"
    }
    return Array(lines.utf8).withUnsafeBytes { SHA256.digest($0) }
  }
}

// MARK: - Order

extension TrainingData {
  /// The numbers of all documents of an epoch, in the order of the files or shuffled anew for it.
  package func order(_ use: Use, epoch: Int, isShuffled: Bool) -> [UInt32] {
    var numbers = lists[use] ?? []
    if isShuffled { Shuffle.apply(to: &numbers, seed: Mixer.mixed(seed, epoch)) }
    return numbers
  }

  /// A document for training drawn so that each byte of the files is as likely.
  func draw(_ random: inout Xoshiro256) -> Int {
    var total = 0
    for file in files where file.count > 0 { total += file.file.byteCount * file.source.repeats }
    while true {  // ends: at least one document is left to train on
      var offset = Int(random.next(below: UInt64(total)))
      for (index, file) in files.enumerated() where file.count > 0 {
        let size = file.file.byteCount * file.source.repeats
        if offset < size {
          let number = bases[index] + file.part(at: offset % file.file.byteCount)
          if !split.contains(number) { return number }
          break
        }
        offset -= size
      }
    }
  }

  /// The document for training that follows in the files, the first after the last.
  func following(_ number: Int) -> Int {
    var next = number
    repeat { next = next + 1 == distinctDocuments ? 0 : next + 1 } while split.contains(next)
    return next
  }
}

// MARK: - Reading

extension TrainingData {
  /// The file that a document is in, and its index there.
  private func place(_ number: Int) -> (file: DocumentFile, part: Int) {
    var file = 0
    while number >= bases[file + 1] { file += 1 }
    return (files[file], number - bases[file])
  }

  package func content(_ number: Int) throws(TrainingError) -> DocumentContent {
    let (file, part) = place(number)
    return try file.content(part)
  }

  func byteCount(_ number: Int) -> Int {
    let (file, part) = place(number)
    return file.extent(part).range.count
  }

  /// The error for a document that the tokenizer or the chat template refuses.
  func refusal(_ number: Int, _ error: any Error) -> TrainingError {
    let (file, part) = place(number)
    let offset = file.start(part)
    if case .text = file.source.format {
      return .untokenizable(file: file.path, offset: offset, problem: "\(error)")
    }
    return .badRecord(file: file.path, line: file.line(at: offset), problem: "\(error)")
  }

  func checkUnchanged() throws(TrainingError) {
    for file in files { try file.checkUnchanged() }
  }

  /// Lets go of the pages of large files; what is read again comes back from the system's cache.
  func giveBackPages() {
    for file in files where file.file.byteCount > 1 << 26 {
      file.file.giveBack(0..<file.file.byteCount)
    }
  }
}
