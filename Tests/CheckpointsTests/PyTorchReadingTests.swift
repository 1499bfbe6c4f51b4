import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

/// A golden file; made by Scripts/fixtures/checkpoints.py.
func golden(_ name: String) -> String {
  SharedFiles.packageRoot.appending(path: "Tests/Golden/checkpoints/\(name)").path
}

@Suite struct PyTorchReading {
  @Test(arguments: ["views.bin", "views-protocol4.bin", "wrapped.bin"])
  func everyViewHasTheNumbersThatTorchSees(_ name: String) throws {
    let checkpoint = try Checkpoint.open(golden(name))
    let expected = try Checkpoint.open(golden("views.safetensors"))
    #expect(checkpoint.format == .pytorch)
    #expect(Set(checkpoint.names) == Set(expected.names))
    for name in expected.names {
      let info = try #require(expected.info(name))
      let tensor = try checkpoint.expect(name, shape: info.shape)
      #expect(tensor.dtype == info.dtype, "\(name)")
      #expect(try Array(tensor.bytes) == Array(expected.tensor(name).bytes), "\(name)")
    }
  }

  @Test func rowMajorViewsStayInTheFileAndOthersAreGathered() throws {
    let checkpoint = try Checkpoint.open(golden("views.bin"))
    for name in ["f32", "bf16", "shared.whole", "shared.tail", "shared.middle", "parameter"] {
      #expect(try checkpoint.tensor(name).storage.owner != nil, "\(name)")
    }
    for name in ["transposed", "columns", "every.other", "permuted", "bf16.transposed"] {
      #expect(try checkpoint.tensor(name).storage.owner == nil, "\(name)")
    }
  }

  @Test func aModulesStateIsReadWithoutItsAttributes() throws {
    let checkpoint = try Checkpoint.open(golden("module.bin"))
    let expected = try Checkpoint.open(golden("module.safetensors"))
    #expect(checkpoint.names == ["weight", "bias"])
    #expect(try checkpoint.tensor("weight").array == expected.tensor("weight").array)
  }

  @Test func shardsAreJoinedByTheirIndex() throws {
    for path in ["sharded", "sharded/pytorch_model.bin.index.json"] {
      let checkpoint = try Checkpoint.open(golden(path))
      #expect(checkpoint.names == ["f32", "bf16", "transposed", "i64"])
      #expect(checkpoint.weightFiles.count == 2)
      #expect(checkpoint.info("transposed")?.shape == [7, 5])
    }
  }

  // MARK: Refusals

  private func failure(_ path: String) throws -> CheckpointError {
    try #require(throws: CheckpointError.self) { try Checkpoint.open(path) }
  }

  private func failure(_ bytes: [UInt8]) throws -> CheckpointError {
    try withTemporaryDirectory { folder in
      try write(bytes, to: "\(folder)/pytorch_model.bin")
      return try failure(folder)
    }
  }

  @Test(arguments: [
    ("evil-system.bin", "posix.system"), ("evil-eval.bin", "__builtin__.eval"),
    ("complex.bin", "torch.ComplexFloatStorage"),
  ])
  func functionsAreRefusedByName(_ file: String, _ name: String) throws {
    let error = try failure(golden(file))
    #expect(error == .refusedGlobal(file: golden(file), name: name))
    #expect(!exists("pare-was-here"))
  }

  @Test func theFormerFormatIsRefusedWithAdvice() throws {
    let error = try failure(golden("legacy.bin"))
    #expect(error == .legacyPyTorch(file: golden("legacy.bin")))
    #expect("\(error)".contains("save it again"))
  }

  @Test func bigEndianFilesAreRefused() throws {
    guard
      case .wrongArchive(_, "its numbers are big-endian") = try failure(golden("big-endian.bin"))
    else {
      Issue.record("wrong error")
      return
    }
  }

  @Test func everyTruncationIsRefused() throws {
    let whole = try [UInt8](Data(contentsOf: URL(filePath: golden("module.bin"))))
    for count in stride(from: 0, to: whole.count, by: 7) {
      switch try failure(Array(whole[..<count])) {
      case .wrongArchive, .truncated: break
      case let error: Issue.record("\(count) bytes gave \(error)")
      }
    }
  }

  @Test(arguments: [false, true])
  func archivesMadeByHandAreRead(isZip64: Bool) throws {
    let tensor = RawPickle.tensor(count: 4, shape: [2, 2], strides: [1, 2])
    var archive = RawArchive(
      pickle: RawPickle.table([("x", tensor)]).bytes,
      storages: [[0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64]])
    archive.isZip64 = isZip64
    try withTemporaryDirectory { folder in
      try write(archive.bytes, to: "\(folder)/pytorch_model.bin")
      #expect(try Checkpoint.open(folder).tensor("x").array == [1, 3, 2, 4])
    }
  }

  @Test(arguments: [
    RawPickle.tensor(count: 4, shape: [5], strides: [1]),
    RawPickle.tensor(count: 4, offset: 1, shape: [4], strides: [1]),
    RawPickle.tensor(count: 4, offset: -1, shape: [4], strides: [1]),
    RawPickle.tensor(count: 4, shape: [2], strides: [-1]),
    RawPickle.tensor(count: 4, shape: [2], strides: [.max]),
    RawPickle.tensor(count: 4, shape: [3, 3], strides: [.max, .max]),
    RawPickle.tensor(count: 4, shape: [-1], strides: [1]),
    RawPickle.tensor(count: 4, shape: [.max, .max], strides: [0, 0]),
    RawPickle.tensor(count: 4, shape: [1 << 40], strides: [0]),
    RawPickle.tensor(count: 5, shape: [4], strides: [1]),
    RawPickle.tensor(count: .max, shape: [4], strides: [1]),
    RawPickle.tensor(count: 4, shape: [4], strides: [1], key: "7"),
    RawPickle.tensor(count: 4, shape: [4], strides: [1], key: "../data.pkl"),
  ])
  func viewsBeyondTheirStorageAreRefused(_ tensor: RawPickle) throws {
    let archive = RawArchive(
      pickle: RawPickle.table([("x", tensor)]).bytes, storages: [[UInt8](repeating: 0, count: 16)])
    guard case .wrongTensor(_, "x", _) = try failure(archive.bytes) else {
      Issue.record("wrong error")
      return
    }
  }

  /// Deep, cyclic, endless or senseless programs end in an error, not in a crash.
  @Test func senselessPicklesAreRefused() throws {
    let many = 3_000_000
    let deepTuple = [UInt8](repeating: 0x85, count: many)  // TUPLE1 around TUPLE1 ...
    let programs: [RawPickle] = [
      RawPickle(),
      RawPickle().op("."),
      RawPickle().op("("),
      RawPickle().op("t"),
      RawPickle().op("N").op("."),
      RawPickle().op("}").op("."),
      RawPickle().op("}").op("N").op("s").op("."),
      RawPickle().op("N").op("N").op("a").op("."),
      RawPickle().op("N").op("N").op("R").op("."),
      RawPickle().op("h").raw([9]).op("."),
      RawPickle().op("X").raw([255, 255, 255, 255]),
      RawPickle().raw([0x8d, 255, 255, 255, 255, 255, 255, 255, 255]),
      RawPickle().raw([0x8a, 255]),
      RawPickle().op("i"),
      RawPickle().op(")").raw(deepTuple).op("."),
      RawPickle().raw([UInt8](repeating: UInt8(ascii: "}"), count: 5_000_000)),
      RawPickle().raw([UInt8](repeating: UInt8(ascii: "("), count: 5_000_000)),
      // A list in itself.
      RawPickle().op("]").op("q").raw([0]).op("h").raw([0]).op("a").op("."),
      // A table that wraps itself as its "model".
      RawPickle().op("}").op("q").raw([0]).string("model").op("h").raw([0]).op("s").op("."),
    ]
    for (number, program) in programs.enumerated() {
      switch try failure(RawArchive(pickle: program.bytes).bytes) {
      case .wrongPickle: break
      case let error: Issue.record("program \(number) gave \(error)")
      }
    }
  }

  @Test func compressedAndDamagedEntriesAreRefused() throws {
    let table = RawPickle.table([])
    var compressed = RawArchive(pickle: table.bytes)
    compressed.method = 8
    var twice = RawArchive(pickle: table.bytes)
    twice.entries.append(twice.entries[0])
    var flipped = RawArchive(pickle: table.bytes).bytes
    flipped[30 + 16] ^= 1  // the first byte of data.pkl
    for bytes in [compressed.bytes, twice.bytes, flipped] {
      guard case .wrongArchive = try failure(bytes) else {
        Issue.record("wrong error")
        continue
      }
    }
  }

  @Test func namesFromTheStackAreRefusedToo() throws {
    let evil = RawPickle().string("os").string("system").raw([0x93]).op(".")  // STACK_GLOBAL
    guard case .refusedGlobal(_, "os.system") = try failure(RawArchive(pickle: evil.bytes).bytes)
    else {
      Issue.record("wrong error")
      return
    }
  }

  @Test func hostileNamesCannotMoveTheCursor() throws {
    let evil = RawPickle().global("os\u{1b}[2J\nsystem\n").op(".")
    let error = try failure(RawArchive(pickle: evil.bytes).bytes)
    guard case .refusedGlobal(_, "os?[2J.system") = error else {
      Issue.record("\(error)")
      return
    }
  }

  @Test func checksumsAgreeWithTheStandard() {
    // The check value of the CRC catalogue.
    #expect(Array("123456789".utf8).withUnsafeBytes { CRC32.of($0) } == 0xcbf4_3926)
  }
}
