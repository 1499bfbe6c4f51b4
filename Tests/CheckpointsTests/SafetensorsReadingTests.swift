import Checkpoints
import Tensors
import TestSupport
import Testing

@Suite struct SafetensorsReading {
  @Test func readsNamesShapesAndNumbersInStoredOrder() throws {
    try withTemporaryDirectory { folder in
      let path = "\(folder)/model.safetensors"
      try write(RawSafetensors.valid.bytes, to: path)
      let checkpoint = try Checkpoint.open(path)
      #expect(checkpoint.names == ["a", "b"])
      #expect(checkpoint.format == .safetensors)
      #expect(checkpoint.info("a")?.shape == [2, 2])
      #expect(checkpoint.info("b")?.byteCount == 3)
      #expect(try checkpoint.tensor("a").array == [1, 2, 3, 4])
      #expect(try Array(checkpoint.tensor("b").bytes) == [7, 8, 9])
      try checkpoint.checkIntact()
    }
  }

  @Test func tensorsStayInTheMappedFile() throws {
    try withTemporaryDirectory { folder in
      let path = "\(folder)/model.safetensors"
      try write(RawSafetensors.valid.bytes, to: path)
      // The header of `valid` has an odd length, so `b` lies anywhere and `a` unaligned.
      let checkpoint = try Checkpoint.open(path)
      #expect(try checkpoint.tensor("b").storage.owner != nil)
      #expect(try checkpoint.tensor("a").storage.owner == nil)
      var aligned = RawSafetensors.valid
      while aligned.header.utf8.count % 8 != 0 { aligned.header += " " }
      try write(aligned.bytes, to: path)
      #expect(try Checkpoint.open(path).tensor("a").storage.owner != nil)
    }
  }

  @Test func emptyTensorsAndScalarsAreLegal() throws {
    let file = RawSafetensors(
      #"{"__metadata__":{"format":"pt"},"e":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},"#
        + #""s":{"dtype":"I8","shape":[],"data_offsets":[0,1]},"#
        + #""f":{"dtype":"F16","shape":[3,0],"data_offsets":[1,1]}}"#, data: [5])
    try withTemporaryDirectory { folder in
      try write(file.bytes, to: "\(folder)/model.safetensors")
      let checkpoint = try Checkpoint.open(folder)
      #expect(try checkpoint.tensor("e").count == 0)
      #expect(try Array(checkpoint.tensor("s").bytes) == [5])
      #expect(checkpoint.metadata == ["format": "pt"])
    }
  }

  @Test func aFileWithoutTensorsIsLegal() throws {
    try withTemporaryDirectory { folder in
      try write(RawSafetensors("{}").bytes, to: "\(folder)/model.safetensors")
      #expect(try Checkpoint.open(folder).names.isEmpty)
    }
  }

  @Test func expectingTellsMissingFromWronglyShaped() throws {
    try withTemporaryDirectory { folder in
      let path = "\(folder)/model.safetensors"
      try write(RawSafetensors.valid.bytes, to: path)
      let checkpoint = try Checkpoint.open(path)
      #expect(try checkpoint.expect("a", shape: [2, 2]).count == 4)
      #expect(throws: CheckpointError.wrongShape(name: "a", expected: [4], actual: [2, 2])) {
        try checkpoint.expect("a", shape: [4])
      }
      #expect(throws: CheckpointError.missingTensors(["c"], in: path)) {
        try checkpoint.expect("c", shape: [1])
      }
    }
  }

  // MARK: Damage

  /// Opens the bytes as a checkpoint and returns the error.
  private func failure(_ bytes: [UInt8]) throws -> CheckpointError {
    try withTemporaryDirectory { folder in
      let path = "\(folder)/model.safetensors"
      try write(bytes, to: path)
      return try #require(throws: CheckpointError.self) { try Checkpoint.open(path) }
    }
  }

  private func failure(_ header: String, _ dataCount: Int) throws -> CheckpointError {
    try failure(RawSafetensors(header, data: [UInt8](repeating: 0, count: dataCount)).bytes)
  }

  @Test func everyTruncationIsRefused() throws {
    let whole = RawSafetensors.valid.bytes
    for count in 0..<whole.count {
      let error = try failure(Array(whole[..<count]))
      switch error {
      case .truncated, .headerTooLong: break
      default: Issue.record("\(count) bytes gave \(error)")
      }
    }
  }

  @Test(arguments: [UInt64(20), 1 << 32, 1 << 60, 1 << 63, .max])
  func headerLengthsBeyondTheFileAreRefused(_ length: UInt64) throws {
    guard
      case .headerTooLong(_, length, 10) = try failure(
        RawSafetensors("{}", statedLength: length).bytes)
    else {
      Issue.record("wrong error")
      return
    }
  }

  @Test func overlapsNameBothTensors() throws {
    let error = try failure(
      #"{"x":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"#
        + #""y":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}"#, 12)
    guard case .overlap(_, "x", "y") = error else {
      Issue.record("\(error)")
      return
    }
  }

  @Test func gapsAreRefused() throws {
    let error = try failure(
      #"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"#
        + #""y":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}"#, 12)
    guard case .wrongTensor(_, "y", _) = error else {
      Issue.record("\(error)")
      return
    }
  }

  @Test func bytesAfterTheLastTensorAreRefused() throws {
    let error = try failure(#"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 5)
    guard case .wrongHeader = error else {
      Issue.record("\(error)")
      return
    }
  }

  @Test(arguments: [
    #"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,400]}}"#,
    #"{"x":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#,
    #"{"x":{"dtype":"U8","shape":[4],"data_offsets":[-4,0]}}"#,
    #"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0]}}"#,
    #"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4.5]}}"#,
    #"{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,1e30]}}"#,
    #"{"x":{"dtype":"U8","shape":[5],"data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"U8","shape":[-2,-2],"data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"U8","shape":"4","data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"F64","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}"#,
    #"{"x":{"dtype":"U8","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,1]}}"#,
    #"{"x":{"shape":[4],"data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"U8","data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"U8","shape":[4]}}"#,
    #"{"x":7}"#,
  ])
  func aTensorThatDoesNotAddUpIsNamed(_ header: String) throws {
    let error = try failure(header, 4)
    guard case .wrongTensor(_, "x", _) = error else {
      Issue.record("\(error)")
      return
    }
    #expect("\(error)".contains("model.safetensors"))
  }

  @Test func aRangeBeyondTheFileIsATruncation() throws {
    let error = try failure(#"{"x":{"dtype":"U8","shape":[40],"data_offsets":[0,40]}}"#, 39)
    guard case .truncated = error else {
      Issue.record("\(error)")
      return
    }
  }

  @Test func unknownElementTypesAreNamed() throws {
    let error = try failure(#"{"x":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}"#, 3)
    guard case .unknownDType(_, "x", "F6_E2M3") = error else {
      Issue.record("\(error)")
      return
    }
  }

  @Test func duplicateNamesAreRefused() throws {
    let entry = #"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#
    let error = try failure("{\"x\":\(entry),\"x\":\(entry)}", 1)
    guard case .duplicateTensor("x", _) = error else {
      Issue.record("\(error)")
      return
    }
  }

  /// "é" as one scalar and as two: different bytes, equal for Swift, so no table can hold both.
  @Test func namesThatSwiftCallsEqualAreRefused() throws {
    let first = #"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#
    let second = #"{"dtype":"U8","shape":[1],"data_offsets":[1,2]}"#
    let error = try failure("{\"\u{e9}\":\(first),\"e\u{301}\":\(second)}", 2)
    guard case .duplicateTensor = error else {
      Issue.record("\(error)")
      return
    }
  }

  @Test(arguments: ["", " {}", "[]", "{", "null", "{} x", "{\"__metadata__\":[]}", "{\"a\" 1}"])
  func headersThatAreNoObjectAreRefused(_ header: String) throws {
    let error = try failure(header, 0)
    guard case .wrongHeader = error else {
      Issue.record("\(error)")
      return
    }
  }
}
