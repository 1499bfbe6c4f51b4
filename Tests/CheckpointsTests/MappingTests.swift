import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@Suite struct Mappings {
  private func withFile(_ bytes: [UInt8], _ body: (String) throws -> Void) throws {
    try withTemporaryDirectory { folder in
      try write(bytes, to: "\(folder)/file")
      try body("\(folder)/file")
    }
  }

  private let large = [UInt8](repeating: 1, count: 1 << 20)

  @Test func aFileThatShrinksIsAnErrorAndNotTheEnd() throws {
    try withFile(large) { path in
      let file = try MappedFile(path: path)
      #expect(file.bytes[0] == 1)
      #expect(!file.isDamaged)
      #expect(truncate(path, 5000) == 0)
      // Pages beyond the new end would raise SIGBUS.
      #expect(file.bytes[1 << 19] == 0)
      #expect(file.bytes.reduce(0) { $0 + Int($1) } == 5000)
      #expect(file.isDamaged)
    }
  }

  @Test func aCheckpointThatShrinksNamesItsFile() throws {
    try withTemporaryDirectory { folder in
      let path = "\(folder)/model.safetensors"
      var writer = try SafetensorsWriter(
        file: path, tensors: [TensorDeclaration(name: "w", dtype: .uint8, shape: [1 << 20])])
      try large.withUnsafeBytes { raw throws in try writer.append("w", raw) }
      _ = try writer.finish()
      let checkpoint = try Checkpoint.open(folder)
      try checkpoint.checkIntact()
      #expect(truncate(path, 4096) == 0)
      let sum = try checkpoint.tensor("w").bytes.reduce(0) { $0 + Int($1) }
      #expect(sum < 1 << 20)
      #expect(throws: CheckpointError.damagedWhileReading(file: path)) {
        try checkpoint.checkIntact()
      }
      #expect(throws: CheckpointError.damagedWhileReading(file: path)) {
        try checkpoint.digest(of: "w")
      }
    }
  }

  @Test func onlyTheShrunkenFileIsDamaged() throws {
    try withTemporaryDirectory { folder in
      // More than one chunk of the registry.
      let files = try (0..<300).map { number in
        try write([1, 2, 3], to: "\(folder)/\(number)")
        return try MappedFile(path: "\(folder)/\(number)")
      }
      #expect(truncate("\(folder)/299", 0) == 0)
      #expect(files[299].bytes[2] == 0)
      #expect(files.filter(\.isDamaged).map(\.path) == ["\(folder)/299"])
    }
  }

  @Test func writingIntoAMappedFileIsNoticed() throws {
    try withFile(large) { path in
      let file = try MappedFile(path: path)
      let handle = try #require(FileHandle(forWritingAtPath: path))
      usleep(20_000)  // file times advance in steps of a few milliseconds
      try handle.write(contentsOf: Data([9]))
      #expect(file.isDamaged)
    }
  }

  @Test func aFileReplacedByAnotherOfItsNameIsNotDamaged() throws {
    try withFile(large) { path in
      let file = try MappedFile(path: path)
      try write([1], to: path + ".new")
      #expect(rename(path + ".new", path) == 0)
      #expect(!file.isDamaged)
      #expect(file.bytes.last == 1)
    }
  }

  @Test func pagesGivenBackReturn() throws {
    try withFile(large) { path in
      let file = try MappedFile(path: path)
      #expect(file.bytes.allSatisfy { $0 == 1 })
      file.giveBack(0..<large.count)
      #expect(file.bytes.allSatisfy { $0 == 1 })
      #expect(!file.isDamaged)
    }
  }

  @Test func onlyRegularFilesAreMapped() throws {
    try withTemporaryDirectory { folder in
      #expect(mkfifo("\(folder)/pipe", 0o600) == 0)
      for path in ["\(folder)/pipe", folder, "/dev/zero", "\(folder)/absent"] {
        #expect(throws: MappingError.self) { try MappedFile(path: path) }
      }
      try write([UInt8](), to: "\(folder)/empty")
      #expect(try MappedFile(path: "\(folder)/empty").byteCount == 0)
    }
  }

  /// A fault elsewhere still ends the process, as it did before we installed a handler.
  @Test func faultsThatAreNotOursEndTheProcess() async {
    await #expect(processExitsWith: .signal(SIGBUS)) {
      let path = "/tmp/pare-test-\(getpid())"
      try write([UInt8](repeating: 1, count: 8192), to: path)
      _ = try MappedFile(path: path)  // installs the handler
      let descriptor = open(path, O_RDONLY)
      let foreign = mmap(nil, 8192, PROT_READ, MAP_PRIVATE, descriptor, 0)
      truncate(path, 0)
      unlink(path)
      let byte = foreign?.load(fromByteOffset: 4096, as: UInt8.self)
      print("read \(String(describing: byte)) beyond the end of a file")
    }
  }
}
