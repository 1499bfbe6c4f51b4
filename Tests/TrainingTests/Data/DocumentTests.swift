import Foundation
import Tensors
import TestSupport
import Testing
import Training

struct DocumentTests {
  @Test(arguments: ["<|endoftext|>", "\n\n", "==="])
  func documentsEndAtTheirSeparator(_ separator: String) throws {
    try withTemporaryDirectory { folder in
      let text = "one\(separator)two 2\(separator)\n\(separator)three"
      let file = try ToyFile(folder, text)
      #expect(try file.texts(.text(separator: separator)) == ["one", "two 2", "three"])
      let data = try file.data(.text(separator: separator))
      #expect(data.skippedDocuments == 1)
      #expect(data.wholeDocuments == 3)
    }
  }

  @Test func aSeparatorThatIsAlmostThereSeparatesNothing() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "a<|endoftext|b<<|endoftext|>c<|endoftext|")
      #expect(try file.texts() == ["a<|endoftext|b<", "c<|endoftext|"])
    }
  }

  @Test func aFileWithoutSeparatorIsOneDocument() throws {
    try withTemporaryDirectory { folder in
      let texts = try ToyFile(folder, "  a\n\nb\n").texts()
      #expect(texts == ["a\n\nb"])
    }
  }

  @Test func blankLinesOfWindowsSeparateToo() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "a\r\nb\r\n\r\nc\r\n\r\n\r\nd\r\n")
      #expect(try file.texts(.text(separator: "\n\n")) == ["a\r\nb", "c", "d"])
    }
  }

  @Test func aByteOrderMarkIsNoText() throws {
    try withTemporaryDirectory { folder in
      let texts = try ToyFile(folder, bytes: [0xEF, 0xBB, 0xBF, 0x61]).texts()
      #expect(texts == ["a"])
    }
  }

  /// Parts joined are the document, cuts lie at words, and characters stay whole.
  @Test(arguments: [8, 9, 16, 33]) func longDocumentsAreCutWithoutLoss(_ partBytes: Int) throws {
    try withTemporaryDirectory { folder in
      let long = "the cat sat\non the äöü mat and 猫猫猫猫猫猫猫 looked at everyone there"
      let file = try ToyFile(folder, "short<|endoftext|>\(long)<|endoftext|>last")
      let parts = try file.texts(partBytes: partBytes)
      #expect(parts.first == "short" && parts.last == "last")
      #expect(parts.dropFirst().dropLast().joined() == long)
      #expect(parts.allSatisfy { $0.utf8.count <= partBytes && !$0.contains("\u{FFFD}") })
      #expect(try file.data(partBytes: partBytes).wholeDocuments == 3)
    }
  }

  /// Separators lie at every place around the cuts.
  @Test(arguments: 8..<40) func separatorsAreFoundWhereverPartsEnd(_ partBytes: Int) throws {
    try withTemporaryDirectory { folder in
      let documents = randomDocuments(50, longest: 60, seed: UInt64(partBytes))
      let file = try ToyFile(folder, documents.joined(separator: "<|endoftext|>"))
      let parts = try file.texts(partBytes: partBytes)
      #expect(parts.joined() == documents.joined())
      #expect(parts.filter { $0.hasPrefix("#") }.count == 50)
    }
  }

  /// Whatever bytes a file holds, it is read or refused.
  @Test(arguments: [
    DataSource.Format.text(separator: "\n\n"), .records(field: "text"),
    .chat(field: "messages"),
  ])
  func noFileIsFatal(_ format: DataSource.Format) throws {
    let pieces =
      [
        "\n", "\r\n", " ", "a", "äö", "猫", "{", "}", "\"text\"", ":", "\"b\"", "{\"text\":\"c\"}\n",
        "{\"messages\":[]}\n", "{\"messages\":[{\"role\":\"assistant\"}]}\n",
      ].map { Array($0.utf8) } + [[0xFF], [0xE7, 0x8C], [0xEF, 0xBB, 0xBF], [0]]
    try withTemporaryDirectory { folder in
      let encoder = try ToyTokenizer.encoder()
      for seed in 0..<300 as Range<UInt64> {
        var random = Xoshiro256(seed: seed)
        let bytes = (0..<Int.random(in: 0..<30, using: &random)).flatMap { _ in
          pieces[Int.random(in: 0..<pieces.count, using: &random)]
        }
        let file = try ToyFile(folder, bytes: bytes)
        do throws(TrainingError) {
          _ = try DataSource.detect(path: file.path)
        } catch { #expect(!"\(error)".isEmpty) }
        do {
          var stream = try TrainingStream(
            file.data(format, partBytes: 8), encoder: encoder, options: .init(rows: 2, length: 3))
          for _ in 0..<3 { _ = try stream.next() }
        } catch { #expect(error is TrainingError, "seed \(seed): \(error)") }
      }
    }
  }

  @Test func beginAndEndStandOnlyAtADocumentsOwn() throws {
    try withTemporaryDirectory { folder in
      let data = try ToyFile(folder, "abcd efgh ijkl<|endoftext|>mn").data(partBytes: 8)
      let encoder = try ToyTokenizer.encoder()
      let examples = try data.order(.training, epoch: 0, isShuffled: false).map {
        try encoder.encode(data.content(Int($0))).tokens
      }
      #expect(examples.map { $0.first == ToyTokenizer.begin } == [true, false, false, true])
      #expect(examples.map { $0.last == ToyTokenizer.end } == [false, false, true, true])
    }
  }

  @Test func bytesThatAreNoTextAreRefusedWithTheirPlace() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(
        folder, bytes: Array("fine<|endoftext|>broken ".utf8) + [0xC3] + Array("<|endoftext|>".utf8)
      )
      #expect(
        sentence { _ = try file.data() }
          == "\(file.path) is not valid UTF-8 at byte 24. Convert it to UTF-8 or remove that part.")
    }
  }

  @Test(arguments: ["", " \n", "<|endoftext|>\n<|endoftext|>"])
  func filesWithoutTextAreRefused(_ text: String) throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, text)
      #expect(sentence { _ = try file.data() }.hasPrefix("There is no text in \(file.path)."))
    }
  }

  @Test func filesThatAreNotThereAreNamed() {
    let source = DataSource(path: "/nowhere/data.txt", format: .text)
    let text = sentence { _ = try TrainingData([source], seed: 1) }
    #expect(text.hasPrefix("/nowhere/data.txt cannot be read: No such file"))
  }

  @Test func senselessSettingsAreRefused() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "a<|endoftext|>b")
      #expect(sentence { _ = try file.data(repeats: 0) }.contains("must be at least 1"))
      #expect(sentence { _ = try file.data(.text(separator: "")) }.contains("separator"))
      #expect(sentence { _ = try file.data(heldOut: .share(1)) }.contains("between 0 and 1"))
      #expect(sentence { _ = try file.data(heldOut: .count(2)) }.contains("none"))
      #expect(sentence { _ = try file.data(heldOut: .count(0)) }.contains("at least 1"))
    }
  }

  @Test func theHashKnowsContentFormatAndRepetitions() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "a\n\nb")
      let copy = try ToyFile(folder, "a\n\nb", name: "copy.txt")
      let other = try ToyFile(folder, "a\n\nc", name: "other.txt")
      let hash = try file.data().contentHash()
      #expect(hash.count == 64)
      #expect(try copy.data().contentHash() == hash)
      #expect(try other.data().contentHash() != hash)
      #expect(try file.data(repeats: 2).contentHash() != hash)
      #expect(try file.data(.text(separator: "\n\n")).contentHash() != hash)
    }
  }

  @Test func aFileThatChangesMeanwhileIsNoticed() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "abc<|endoftext|>def")
      let data = try file.data()
      var stream = try TrainingStream(
        data, encoder: ToyTokenizer.encoder(), options: .init(rows: 1, length: 4))
      let handle = try #require(FileHandle(forWritingAtPath: file.path))
      try handle.truncate(atOffset: 5)
      try handle.close()
      #expect(sentence { _ = try stream.next() }.contains("was changed"))
    }
  }
}
