import Checkpoints
import Foundation
import Tensors
import TestSupport
import Testing

@Suite struct SafetensorsWriting {
  /// One tensor of every element type, with odd sizes, a scalar and an empty one.
  private func sample(seed: UInt64) -> [(TensorDeclaration, [UInt8])] {
    var generator = SeededGenerator(seed: seed)
    let shapes = [[3, 5], [], [7], [2, 0], [1, 3, 1]]
    return DType.allCases.enumerated().map { number, dtype in
      let shape = shapes[number % shapes.count]
      let count = shape.reduce(1, *) * dtype.byteCount
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
      return (TensorDeclaration(name: "t\(number).\"q\" é", dtype: dtype, shape: shape), bytes)
    }
  }

  private func writeAll(
    _ sample: [(TensorDeclaration, [UInt8])], to folder: String, limit: Int
  ) throws -> [String: String] {
    var writer = try SafetensorsWriter(
      folder: folder, tensors: sample.map(\.0), shardByteLimit: limit)
    for (tensor, bytes) in sample {
      try bytes.withUnsafeBytes { raw throws in try writer.append(tensor.name, raw) }
    }
    return try writer.finish()
  }

  @Test(arguments: [Int.max, 100, 1])
  func everyElementTypeReadsBackAsWritten(limit: Int) throws {
    let sample = sample(seed: 11)
    try withTemporaryDirectory { folder in
      let digests = try writeAll(sample, to: folder, limit: limit)
      let checkpoint = try Checkpoint.open(folder)
      #expect(Set(checkpoint.names) == Set(sample.map(\.0.name)))
      for (tensor, bytes) in sample {
        let read = try checkpoint.expect(tensor.name, shape: tensor.shape)
        #expect(read.dtype == tensor.dtype)
        #expect(Array(read.bytes) == bytes)
        #expect(try checkpoint.digest(of: tensor.name) == digests[tensor.name])
        // Whatever the mix of types, what we write can be read in place.
        #expect(Int(bitPattern: read.rawPointer) % tensor.dtype.byteCount == 0)
      }
      #expect(checkpoint.metadata == ["format": "pt"])
      #expect(exists("\(folder)/model.safetensors.index.json") == (limit != .max))
    }
  }

  @Test func theSameInputGivesTheSameBytes() throws {
    let sample = sample(seed: 12)
    try withTemporaryDirectory { folder in
      var contents: [[Data]] = []
      for run in ["first", "second"] {
        let path = "\(folder)/\(run)"
        try FileManager.default.createDirectory(
          atPath: path, withIntermediateDirectories: false)
        _ = try writeAll(sample, to: path, limit: 64)
        contents.append(
          try names(in: path).map { try Data(contentsOf: URL(filePath: "\(path)/\($0)")) })
      }
      #expect(contents[0] == contents[1])
    }
  }

  @Test func shardsAreNamedAndCountedFromTheStart() throws {
    let sample = (0..<5).map {
      (
        TensorDeclaration(name: "w\($0)", dtype: .uint8, shape: [40]),
        [UInt8](repeating: 1, count: 40)
      )
    }
    try withTemporaryDirectory { folder in
      _ = try writeAll(sample, to: folder, limit: 80)
      #expect(
        try names(in: folder) == [
          "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
          "model-00003-of-00003.safetensors", "model.safetensors.index.json",
        ])
      let index = try String(
        contentsOfFile: "\(folder)/model.safetensors.index.json", encoding: .utf8)
      #expect(index.contains("\"total_size\": 200"))
    }
  }

  @Test func piecesOfATensorAddUp() throws {
    try withTemporaryDirectory { folder in
      let count = 5_000_000  // more than one buffer
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
      let declared = [
        TensorDeclaration(name: "small", dtype: .uint8, shape: [3]),
        TensorDeclaration(name: "large", dtype: .bfloat16, shape: [count / 2]),
      ]
      var writer = try SafetensorsWriter(file: "\(folder)/out.safetensors", tensors: declared)
      try [UInt8]([1, 2, 3]).withUnsafeBytes { raw throws in try writer.append("small", raw) }
      for start in stride(from: 0, to: count, by: 777_777) {
        try bytes[start..<min(start + 777_777, count)].withUnsafeBytes { raw throws in
          try writer.append("large", raw)
        }
      }
      _ = try writer.finish()
      let checkpoint = try Checkpoint.open("\(folder)/out.safetensors")
      #expect(try checkpoint.tensor("large").bytes.elementsEqual(bytes))
      // The wider type lies first, though it was declared second.
      #expect(checkpoint.names == ["large", "small"])
    }
  }

  @Test func departuresFromTheDeclarationAreRefused() throws {
    try withTemporaryDirectory { folder in
      let declared = ["a", "b"].map { TensorDeclaration(name: $0, dtype: .uint8, shape: [2]) }
      let path = "\(folder)/out.safetensors"
      func attempt(
        _ body: (inout SafetensorsWriter) throws -> Void
      ) throws -> CheckpointError? {
        var writer = try SafetensorsWriter(file: path, tensors: declared)
        do throws(any Error) {
          try body(&writer)
          _ = try writer.finish()
          return nil
        } catch {
          return error as? CheckpointError
        }
      }
      let two = [UInt8](repeating: 0, count: 2)
      func append(_ writer: inout SafetensorsWriter, _ name: String, _ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { raw throws in try writer.append(name, raw) }
      }
      let wrongOrder = try attempt { try append(&$0, "b", two) }
      let tooLong = try attempt { try append(&$0, "a", two + two) }
      let unfinished = try attempt { try append(&$0, "a", two) }
      let wrongShape = try attempt { try $0.append("a", Tensor([1, 2], shape: [2])) }
      for error in [wrongOrder, tooLong, unfinished, wrongShape] {
        guard case .wrongDeclaration = error else {
          Issue.record("\(String(describing: error))")
          continue
        }
      }
    }
    #expect(throws: CheckpointError.self) {
      _ = try SafetensorsWriter(
        file: "/dev/null",
        tensors: [
          TensorDeclaration(name: "x", dtype: .float64, shape: [1 << 62, 4])
        ]
      ).finish()
    }
  }

  @Test func aFullDiskIsNamed() throws {
    // /dev/full accepts opening and fails every write with ENOSPC.
    try #require(exists("/dev/full"))
    let declared = [TensorDeclaration(name: "x", dtype: .uint8, shape: [4])]
    #expect(throws: CheckpointError.diskFull(file: "/dev/full")) {
      var writer = try SafetensorsWriter(file: "/dev/full", tensors: declared)
      try [UInt8](repeating: 0, count: 4).withUnsafeBytes { raw throws in
        try writer.append("x", raw)
      }
      _ = try writer.finish()
    }
  }

  @Test func sha256AgreesWithTheStandard() {
    // FIPS 180-4 examples, and one that crosses blocks.
    let cases = [
      ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
      ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
      (
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
      ),
    ]
    for (text, digest) in cases {
      #expect(Array(text.utf8).withUnsafeBytes { SHA256.digest($0) } == digest)
    }
    let million = [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000)
    #expect(
      million.withUnsafeBytes { SHA256.digest($0) }
        == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
  }
}
