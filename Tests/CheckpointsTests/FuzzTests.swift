import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

/// Damages valid files at random and asks that each opens or fails with an error; never a crash, and
/// never a tensor outside its file. Quick runs do a fixed number of rounds from fixed seeds;
/// `PARE_LONG_TESTS=1 PARE_FUZZ_SECONDS=600` goes on with new seeds for that long. When a round ends
/// the process, its input is the newest file below the temporary folder.
@Suite struct Fuzzing {
  private static let seconds =
    longTestsAreOn
    ? Double(ProcessInfo.processInfo.environment["PARE_FUZZ_SECONDS"] ?? "") ?? 10 : 0

  /// Rounds until the time is up, at least `count`.
  private func rounds(_ count: Int, _ body: (UInt64) throws -> Void) rethrows {
    let end = Date().addingTimeInterval(Self.seconds)
    var seed: UInt64 = 0
    while seed < UInt64(count) || Date() < end {
      try body(seed)
      seed += 1
    }
    if Self.seconds > 0 { print("fuzzing: \(seed) rounds") }
  }

  /// Opens a damaged file and reads all of it.
  private func provoke(_ bytes: [UInt8], at path: String, seed: UInt64) throws {
    unlink(path)  // ext4 waits for the disk when a file is emptied and written again
    try write(bytes, to: path)
    guard let checkpoint = open(path) else { return }
    var total = 0
    for name in checkpoint.names {
      let tensor = try checkpoint.tensor(name)
      let info = try #require(checkpoint.info(name))
      _ = tensor.bytes.reduce(0) { $0 &+ Int($1) }
      total += tensor.byteCount
      #expect(tensor.byteCount == info.byteCount, "seed \(seed)")
    }
    if checkpoint.format == .safetensors { #expect(total <= bytes.count, "seed \(seed)") }
  }

  /// Nil when it is refused; the message is made too, as that is code that can fail.
  private func open(_ path: String) -> Checkpoint? {
    do throws(CheckpointError) {
      return try Checkpoint.open(path)
    } catch {
      #expect(error.description.contains(path))
      return nil
    }
  }

  @Test func damagedSafetensorsNeverEndTheProcess() throws {
    let views = try [UInt8](Data(contentsOf: URL(filePath: golden("views.safetensors"))))
    let words = [
      "\"F32\"", "\"BF16\"", "\"F4\"", "[", "]", "{", "}", ",", ":", "\"", "-1", "0", "1e400",
      "9223372036854775807", "9223372036854775808", "4611686018427387904", "null", "\"a\"",
      "\"__metadata__\"", "\"shape\":[]", "\\u0000", "\\ud800", "\u{0}", "\u{e9}",
    ].map { Array($0.utf8) }
    try withTemporaryDirectory { folder in
      try rounds(1500) { seed in
        var generator = SeededGenerator(seed: seed)
        var bytes = seed % 2 == 0 ? views : RawSafetensors.valid.bytes
        damage(&bytes, words: words, using: &generator)
        // Most rounds restore the stated length, so that the header is looked into.
        if bytes.count > 8, Int.random(in: 0..<4, using: &generator) > 0,
          let end = bytes.lastIndex(of: UInt8(ascii: "}"))
        {
          let length = UInt64(max(0, end - 7))
          bytes.replaceSubrange(0..<8, with: withUnsafeBytes(of: length.littleEndian) { Array($0) })
        }
        try provoke(bytes, at: "\(folder)/x.safetensors", seed: seed)
      }
    }
  }

  @Test func damagedPicklesNeverEndTheProcess() throws {
    let archive = try ZipArchive(MappedFile(path: golden("views.bin")))
    let entry = try #require(archive.entries.first { $0.key.hasSuffix("/data.pkl") })
    let pickle = Array(archive.bytes(entry.value))
    let storages = archive.entries.filter { $0.key.contains("/data/") }.map { key, value in
      (key.replacing(/^[^\/]*\//, with: "archive/"), Array(archive.bytes(value)))
    }.sorted { $0.0 < $1.0 }
    let words: [[UInt8]] = [
      [0x8a, 8, 255, 255, 255, 255, 255, 255, 255, 127], [0x8a, 1, 255], [0x8a, 0], [0x85], [0x86],
      [0x87], [0x93], [0x94], [0x95], [0x8c, 0], Array("K\u{0}".utf8), Array("(".utf8),
      Array("t".utf8), Array("R".utf8), Array("Q".utf8), Array("u".utf8), Array("s".utf8),
      Array("h\u{0}".utf8), Array("h\u{3}".utf8), Array("q\u{3}".utf8),
      Array("ctorch\nuint8\n".utf8),
      Array("ctorch\nByteStorage\n".utf8), Array("ctorch._utils\n_rebuild_tensor_v3\n".utf8),
    ]
    try withTemporaryDirectory { folder in
      try rounds(1000) { seed in
        var generator = SeededGenerator(seed: seed)
        var damaged = RawArchive(pickle: pickle)
        damaged.entries += storages
        damaged.isZip64 = seed % 3 == 0
        damage(&damaged.entries[0].data, words: words, using: &generator)
        try provoke(damaged.bytes, at: "\(folder)/x.bin", seed: seed)
      }
    }
  }

  @Test func damagedArchivesNeverEndTheProcess() throws {
    let whole = try [UInt8](Data(contentsOf: URL(filePath: golden("module.bin"))))
    var wide = RawArchive(pickle: RawPickle.table([]).bytes)
    wide.isZip64 = true
    let words: [[UInt8]] = [
      [0x50, 0x4b, 1, 2], [0x50, 0x4b, 3, 4], [0x50, 0x4b, 5, 6], [0x50, 0x4b, 6, 6],
      [0x50, 0x4b, 6, 7], [255, 255, 255, 255], [255, 255, 255, 255, 255, 255, 255, 127],
      [0, 0, 0, 0], [1, 0, 16, 0],
    ]
    try withTemporaryDirectory { folder in
      try rounds(1000) { seed in
        var generator = SeededGenerator(seed: seed)
        var bytes = seed % 2 == 0 ? whole : wide.bytes
        damage(&bytes, words: words, using: &generator)
        // Half of the rounds aim at the table of contents, which is last.
        if seed % 4 < 2 {
          var table = Array(bytes.suffix(200))
          damage(&table, words: words, using: &generator)
          bytes = bytes.dropLast(200) + table
        }
        try provoke(bytes, at: "\(folder)/x.bin", seed: seed)
      }
    }
  }

  @Test func damagedGGUFNeverEndsTheProcess() throws {
    var file = RawGGUF()
    file.keys.append(
      (
        "t", 9,
        RawGGUF.number(8 as UInt32) + RawGGUF.number(2 as UInt64)
          + RawGGUF.string("one") + RawGGUF.string("two")
      ))
    file.tensors.append(.init(name: "b", sizes: [32, 3], type: 8, offset: 32))
    file.tensors.append(.init(name: "c", sizes: [3], type: 26, offset: 160))
    file.data = [UInt8](repeating: 1, count: 172)
    let words: [[UInt8]] =
      [0, 1, 8, 9, 32, 1 << 31, 1 << 60, 1 << 63, .max].map { RawGGUF.number($0 as UInt64) }
      + (0...13).map { RawGGUF.number($0 as UInt32) } + [RawGGUF.string("a"), Array("GGUF".utf8)]
    let whole = file.bytes
    try withTemporaryDirectory { folder in
      try rounds(2000) { seed in
        var generator = SeededGenerator(seed: seed)
        var bytes = whole
        damage(&bytes, words: words, using: &generator)
        if seed % 4 > 0 { bytes.replaceSubrange(0..<min(8, bytes.count), with: whole[0..<8]) }
        try provoke(bytes, at: "\(folder)/x.gguf", seed: seed)
      }
    }
  }

  /// A few random changes: bits, bytes, words put in, ranges doubled, moved or left out.
  private func damage(
    _ bytes: inout [UInt8], words: [[UInt8]], using generator: inout SeededGenerator
  ) {
    for _ in 0..<Int.random(in: 1...4, using: &generator) {
      guard !bytes.isEmpty else { return }
      let at = Int.random(in: 0..<bytes.count, using: &generator)
      let length = min(Int.random(in: 1...24, using: &generator), bytes.count - at)
      let word = words[Int.random(in: 0..<words.count, using: &generator)]
      switch Int.random(in: 0..<7, using: &generator) {
      case 0: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      case 1: bytes[at] = .random(in: 0...255, using: &generator)
      case 2: bytes.insert(contentsOf: word, at: at)
      case 3: bytes.replaceSubrange(at..<min(at + word.count, bytes.count), with: word)
      case 4: bytes.removeSubrange(at..<(at + length))
      case 5: bytes.insert(contentsOf: bytes[at..<(at + length)], at: at)
      default:
        let piece = Array(bytes[at..<(at + length)])
        bytes.insert(contentsOf: piece, at: Int.random(in: 0...bytes.count, using: &generator))
      }
    }
  }
}
