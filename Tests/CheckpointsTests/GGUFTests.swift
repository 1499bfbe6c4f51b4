import Checkpoints
import Codecs
import Foundation
import Tensors
import TestSupport
import Testing

@Suite struct GGUFReading {
  /// Opens the bytes as a checkpoint and returns the error.
  private func failure(_ bytes: [UInt8]) throws -> CheckpointError {
    try withTemporaryDirectory { folder in
      let path = "\(folder)/f.gguf"
      try write(bytes, to: path)
      let error = try #require(throws: CheckpointError.self) { try Checkpoint.open(path) }
      #expect(error.description.contains("f.gguf"))
      return error
    }
  }

  private func failure(_ change: (inout RawGGUF) -> Void) throws -> CheckpointError {
    var file = RawGGUF()
    change(&file)
    return try failure(file.bytes)
  }

  private func expect(
    _ words: String, source: SourceLocation = #_sourceLocation,
    _ change: (inout RawGGUF) -> Void
  ) throws {
    let error = try failure(change)
    #expect(error.description.contains(words), "\(error)", sourceLocation: source)
  }

  @Test(arguments: [2, 3] as [UInt32]) func readsMetadataAndTensors(version: UInt32) throws {
    var file = RawGGUF()
    file.version = version
    file.tensors.append(.init(name: "b", sizes: [32, 3], type: 8, offset: 32))
    file.tensors.append(.init(name: "c", sizes: [3], type: 26, offset: 160))
    file.data = [UInt8](repeating: 1, count: 172)
    try withTemporaryDirectory { folder in
      let path = "\(folder)/f.gguf"
      try write(file.bytes, to: path)
      let checkpoint = try Checkpoint.open(path)
      #expect(checkpoint.format == .gguf)
      #expect(checkpoint.names == ["a", "b", "c"])
      let metadata = try #require(checkpoint.gguf)
      #expect(metadata.keys == ["general.architecture", "n", "list"])
      #expect(metadata.architecture == "llama")
      #expect(metadata["n"]?.int == 7)
      #expect(metadata["list"]?.array?.integers == [1, -1])
      #expect(try checkpoint.tensor("a").shape == [2, 2])
      let packed = try #require(checkpoint.info("b"))
      #expect(packed.blockType == .q8_0 && packed.shape == [3, 32] && packed.byteCount == 3 * 34)
      #expect(packed.storage == "Q8_0")
      #expect(try checkpoint.tensor("b").shape == [3, 34])
      #expect(checkpoint.info("c")?.dtype == .int32)
      #expect(try checkpoint.tensor("b").storage.owner != nil, "stays in the mapped file")
      #expect(checkpoint.sideFiles.isEmpty)
    }
  }

  @Test func everyPrefixOfAFileIsRefused() throws {
    let bytes = RawGGUF().bytes
    for count in 0..<bytes.count {
      let error = try failure(Array(bytes[..<count]))
      switch error {
      case .truncated, .wrongGGUF, .wrongMetadata, .wrongTensor: break
      default: Issue.record("\(count) bytes: \(error)")
      }
    }
  }

  @Test func falseHeadersAreNamed() throws {
    try expect("does not begin with") { $0.magic = Array("GGML".utf8) }
    try expect("big-endian") { $0.version = 0x0300_0000 }
    try expect("version is 1") { $0.version = 1 }
    try expect("version is 4") { $0.version = 4 }
    for count in [1 << 60, 1 << 63, UInt64.max, 1 << 21, 100] {
      try expect("states \(count) tensors") { $0.tensorCount = count }
      try expect("states \(count) keys") { $0.keyCount = count }
    }
  }

  @Test func falseMetadataNamesItsKey() throws {
    try expect("unknown type 13") { $0.keys[1].type = 13 }
    try expect("n occurs twice") { $0.keys.append($0.keys[1]) }
    for length in [1 << 60, UInt64.max, 400] {
      try expect("more than the file has") {
        $0.keys[0].value = RawGGUF.string("llama", stated: length)
      }
      try expect("list states \(length) elements") {
        $0.keys[2].value = RawGGUF.number(5 as UInt32) + RawGGUF.number(length)
      }
      try expect("list states") {
        $0.keys[2].value = RawGGUF.number(8 as UInt32) + RawGGUF.number(length)
      }
    }
    try expect("array of arrays") {
      $0.keys[2].value = RawGGUF.number(9 as UInt32) + RawGGUF.number(1 as UInt64)
    }
    for alignment in [0, 24, 1 << 21] as [UInt32] {
      try expect("general.alignment") {
        $0.keys.append(("general.alignment", 4, RawGGUF.number(alignment)))
      }
    }
    try expect("general.alignment") {
      $0.keys.append(("general.alignment", 8, RawGGUF.string("32")))
    }
  }

  @Test func falseTensorsAreNamed() throws {
    try expect("a occurs twice") {
      $0.tensors.append(.init(offset: 32))
      $0.data = [UInt8](repeating: 0, count: 64)
    }
    try expect("alignment 32") { $0.tensors[0].offset = 8 }
    try expect("a and b claim the same bytes") {
      $0.tensors.append(.init(name: "b"))
    }
    for offset in [1 << 60, UInt64.max - 31, 1 << 20] {
      try expect("beyond the end") { $0.tensors[0].offset = offset }
    }
    try expect("cut short") { $0.tensors[0].offset = 32 }
    try expect("5 dimensions") { $0.tensors[0].sizes = [1, 1, 1, 1, 1] }
    for sizes in [[1 << 62, 4], [1 << 32, 1 << 32], [1 << 63]] as [[UInt64]] {
      try expect("a in") { $0.tensors[0].sizes = sizes }
    }
    try expect("not possible for Q8_0") {
      $0.tensors[0].sizes = [33, 1]
      $0.tensors[0].type = 8
    }
    let names: [UInt32: String] = [
      4: "retired", 9: "Q8_1", 16: "IQ2_XXS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
      22: "IQ2_S", 29: "IQ1_M", 31: "retired", 40: "NVFP4", 99: "number 99",
    ]
    for (number, name) in names {
      let error = try failure { $0.tensors[0].type = number }
      guard case .unknownDType(_, "a", let dtype) = error else {
        Issue.record("\(error)")
        continue
      }
      #expect(dtype.contains(name))
      #expect(error.description.contains("not supported"))
    }
  }

  @Test func theAlignmentOfTheFileHolds() throws {
    var file = RawGGUF()
    file.alignment = 64
    file.keys.append(("general.alignment", 4, RawGGUF.number(64 as UInt32)))
    try withTemporaryDirectory { folder in
      let path = "\(folder)/f.gguf"
      try write(file.bytes, to: path)
      #expect(try Checkpoint.open(path).tensor("a").count == 4)
    }
  }

  // MARK: Parts

  private func part(_ number: UInt16, of count: UInt16, tensors total: Int32 = 2) -> RawGGUF {
    var file = RawGGUF()
    file.tensors[0].name = "t\(number)"
    file.keys += [
      ("split.no", 2, RawGGUF.number(number)), ("split.count", 2, RawGGUF.number(count)),
      ("split.tensors.count", 5, RawGGUF.number(total)),
    ]
    return file
  }

  @Test func partsOpenTogetherWhicheverIsNamed() throws {
    try withTemporaryDirectory { folder in
      let paths = (1...2).map { "\(folder)/m-0000\($0)-of-00002.gguf" }
      for (index, path) in paths.enumerated() {
        try write(part(UInt16(index), of: 2).bytes, to: path)
      }
      for path in paths {
        let checkpoint = try Checkpoint.open(path)
        #expect(checkpoint.names == ["t0", "t1"])
        #expect(checkpoint.weightFiles == paths)
      }
    }
  }

  @Test func partsThatDoNotBelongTogetherAreNamed() throws {
    try withTemporaryDirectory { folder in
      let paths = (1...2).map { "\(folder)/m-0000\($0)-of-00002.gguf" }
      func error(_ path: String = paths[0]) throws -> String {
        try #require(throws: CheckpointError.self) { try Checkpoint.open(path) }.description
      }
      try write(part(0, of: 2).bytes, to: paths[0])
      #expect(try error().contains("m-00002-of-00002.gguf"), "a part is missing")
      try write(part(0, of: 2).bytes, to: paths[1])
      #expect(try error().contains("split.no"))
      try write(Array(part(1, of: 2).bytes.dropLast(4)), to: paths[1])
      #expect(try error().contains("cut short"))
      try write(part(1, of: 2, tensors: 9).bytes, to: paths[1])
      try write(part(0, of: 2, tensors: 9).bytes, to: paths[0])
      #expect(try error().contains("split.tensors.count"))
      try write(part(0, of: 2).bytes, to: "\(folder)/renamed.gguf")
      #expect(try error("\(folder)/renamed.gguf").contains("split.count"))
    }
  }
}

@Suite struct GGUFWriting {
  private var metadata: GGUFMetadata {
    var metadata = GGUFMetadata()
    metadata.set("general.architecture", "llama")
    metadata.set("u8", .uint8(200))
    metadata.set("i8", .int8(-3))
    metadata.set("u16", .uint16(60_000))
    metadata.set("i16", .int16(-300))
    metadata.set("u32", 7)
    metadata.set("i32", .int32(-70_000))
    metadata.set("f32", Float(1e-6))
    metadata.set("yes", true)
    metadata.set("u64", .uint64(.max))
    metadata.set("i64", .int64(-1 << 40))
    metadata.set("f64", .float64(0.1))
    metadata.set("bytes", .string([0xff, 0x00]))
    metadata.set("strings", GGUFArray(strings: [[65], [], [0xc3]]))
    metadata.set("floats", GGUFArray([1.5, -2] as [Float]))
    metadata.set("ints", GGUFArray([1, -2] as [Int32]))
    metadata.set("flags", GGUFArray([true, false]))
    return metadata
  }

  private let declarations = [
    GGUFDeclaration(name: "matrix", type: .f16, shape: [3, 5]),
    GGUFDeclaration(name: "empty", type: .f32, shape: [0, 4]),
    GGUFDeclaration(name: "packed", type: .q4_0, shape: [2, 64]),
    GGUFDeclaration(name: "last", type: .f32, shape: [1]),
  ]

  private func bytes(_ declaration: GGUFDeclaration) -> Tensor {
    Tensor(dtype: .uint8, shape: [declaration.byteCount ?? 0]) { target in
      for index in target.indices { target[index] = UInt8(truncatingIfNeeded: index * 7 + 1) }
    }
  }

  private func write(to path: String, pieces: Int = 1) throws -> [String: String] {
    var writer = try GGUFWriter(file: path, metadata: metadata, tensors: declarations)
    for declaration in declarations where declaration.name != "empty" {
      let all = bytes(declaration)
      let count = all.count
      for piece in 0..<pieces {
        let range = (count * piece / pieces)..<(count * (piece + 1) / pieces)
        let rows = all.reshaped([count, 1]).rows(range)
        try writer.append(declaration.name, rows)
      }
    }
    return try writer.finish()
  }

  @Test func whatIsWrittenIsReadBack() throws {
    try withTemporaryDirectory { folder in
      let path = "\(folder)/f.gguf"
      let digests = try write(to: path)
      let checkpoint = try Checkpoint.open(path)
      let read = try #require(checkpoint.gguf)
      #expect(read.keys == metadata.keys)
      for key in metadata.keys {
        #expect("\(read[key]?.type as Any)" == "\(metadata[key]?.type as Any)")
      }
      #expect(read["u8"]?.int == 200 && read["i8"]?.int == -3 && read["i64"]?.int == -1 << 40)
      #expect(read["u16"]?.int == 60_000 && read["i16"]?.int == -300 && read["u32"]?.int == 7)
      #expect(read["u64"]?.int == nil && read["f32"]?.double == 1e-6)
      #expect(read["f64"]?.double == 0.1 && read["yes"]?.bool == true)
      #expect(read["bytes"]?.bytes == [0xff, 0x00])
      #expect(read["strings"]?.array?.strings == [[65], [], [0xc3]])
      #expect(read["floats"]?.array?.floats == [1.5, -2])
      #expect(read["ints"]?.array?.integers == [1, -2])
      #expect(read["flags"]?.array?.bools == [true, false])
      for declaration in declarations {
        let info = try #require(checkpoint.info(declaration.name))
        #expect(info.shape == declaration.shape)
        let (stored, written) = (try checkpoint.tensor(info.name), bytes(declaration))
        withExtendedLifetime((stored, written)) {
          #expect(stored.bytes.elementsEqual(written.bytes))
        }
        #expect(try checkpoint.digest(of: info.name) == digests[info.name])
      }
    }
  }

  @Test func theBytesDependOnlyOnWhatIsWritten() throws {
    try withTemporaryDirectory { folder in
      _ = try write(to: "\(folder)/a.gguf")
      _ = try write(to: "\(folder)/b.gguf", pieces: 5)
      let files = try ["a", "b"].map { try Data(contentsOf: URL(filePath: "\(folder)/\($0).gguf")) }
      #expect(files[0] == files[1])
      #expect(files[0].count % 32 == 0)
    }
  }

  @Test func whatDoesNotFitTheDeclarationIsRefused() throws {
    try withTemporaryDirectory { folder in
      func refuse(_ tensors: [GGUFDeclaration], _ key: String = "k") {
        #expect(throws: CheckpointError.self) {
          var metadata = GGUFMetadata()
          metadata.set(key, 1)
          let writer = try GGUFWriter(
            file: "\(folder)/x.gguf", metadata: metadata, tensors: tensors)
          _ = try writer.finish()
        }
      }
      let one = GGUFDeclaration(name: "a", type: .f32, shape: [1])
      refuse([one])  // never appended
      refuse([one, one])
      refuse([GGUFDeclaration(name: "a", type: .q4_0, shape: [2, 31])])
      refuse([GGUFDeclaration(name: "a", type: .f32, shape: [1, 1, 1, 1, 0])])
      refuse([GGUFDeclaration(name: String(repeating: "n", count: 64), type: .f32, shape: [0])])
      refuse([], "general.alignment")
      #expect(throws: CheckpointError.self) {
        var writer = try GGUFWriter(
          file: "\(folder)/x.gguf", metadata: GGUFMetadata(), tensors: [one])
        try writer.append("b", Tensor([1], shape: [1]))
      }
      #expect(throws: CheckpointError.self) {
        var writer = try GGUFWriter(
          file: "\(folder)/x.gguf", metadata: GGUFMetadata(), tensors: [one])
        try writer.append("a", Tensor([1, 2], shape: [2]))
      }
    }
  }
}
