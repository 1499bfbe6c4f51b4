import Checkpoints
import Foundation
import TestSupport
import Testing

@Suite struct Outputs {
  private let manager = FileManager.default

  private func contents(_ path: String) throws -> String {
    try String(contentsOfFile: path, encoding: .utf8)
  }

  private func failure(_ body: () throws -> Void) throws -> CheckpointError {
    try #require(throws: CheckpointError.self, performing: body)
  }

  @Test func aFolderAppearsOnlyWhenWhole() throws {
    try withTemporaryDirectory { folder in
      let target = "\(folder)/smaller"
      let output = try OutputDirectory(target, overwrite: false)
      try output.write("config.json", Array("{}".utf8))
      #expect(!exists(target))
      #expect(try names(in: folder) == [".smaller.pare-partial-\(getpid())"])
      try output.finish()
      #expect(try names(in: folder) == ["smaller"])
      #expect(try contents("\(target)/config.json") == "{}")
    }
  }

  @Test func whatIsNotFinishedLeavesNothing() throws {
    try withTemporaryDirectory { folder in
      do {
        let output = try OutputDirectory("\(folder)/a", overwrite: false)
        try output.write("x", [1])
        try manager.createDirectory(
          atPath: "\(output.path)/deep/er", withIntermediateDirectories: true)
        try manager.createSymbolicLink(
          atPath: "\(output.path)/link", withDestinationPath: folder)
        let file = try OutputFile("\(folder)/b.safetensors", overwrite: false)
        try file.write([1])
      }
      #expect(try names(in: folder).isEmpty)
    }
  }

  @Test func anExistingOutputIsRefusedWithoutOverwrite() throws {
    try withTemporaryDirectory { folder in
      let target = "\(folder)/model"
      try manager.createDirectory(atPath: target, withIntermediateDirectories: false)
      #expect(
        try failure { _ = try OutputDirectory(target, overwrite: false) }
          == .outputExists(path: target))
      #expect(
        try failure { _ = try OutputDirectory(target + "/", overwrite: false) }
          == .outputExists(path: target))
      try write("x", to: "\(folder)/f")
      #expect(
        try failure { _ = try OutputFile("\(folder)/f", overwrite: false) }
          == .outputExists(path: "\(folder)/f"))
    }
  }

  @Test func overwritingExchangesTheWholeFolder() throws {
    try withTemporaryDirectory { folder in
      let target = "\(folder)/model"
      for version in ["old", "new"] {
        let output = try OutputDirectory(target, overwrite: true)
        try output.write("config.json", Array(version.utf8))
        try output.write("only-\(version)", [])
        try output.finish()
      }
      #expect(try contents("\(target)/config.json") == "new")
      #expect(try names(in: target) == ["config.json", "only-new"])
      #expect(try names(in: folder) == ["model"])

      let discarded = try OutputDirectory(target, overwrite: true)
      try discarded.write("config.json", Array("newer".utf8))
      discarded.discard()
      #expect(try contents("\(target)/config.json") == "new")
      #expect(throws: CheckpointError.outputDiscarded(path: target)) { try discarded.finish() }
    }
  }

  @Test func aFileIsOverwrittenWhole() throws {
    try withTemporaryDirectory { folder in
      let target = "\(folder)/logits.safetensors"
      for version in ["old", "new"] {
        let output = try OutputFile(target, overwrite: true)
        try output.write(Array(version.utf8))
        try output.finish()
        #expect(try contents(target) == version)
      }
      #expect(try names(in: folder) == ["logits.safetensors"])
    }
  }

  @Test func whatAppearedMeanwhileIsNotReplaced() throws {
    try withTemporaryDirectory { folder in
      let output = try OutputDirectory("\(folder)/model", overwrite: false)
      try manager.createDirectory(atPath: "\(folder)/model", withIntermediateDirectories: false)
      #expect(throws: CheckpointError.outputExists(path: "\(folder)/model")) {
        try output.finish()
      }
      output.discard()
      #expect(try names(in: folder) == ["model"])
    }
  }

  @Test func aFolderThatIsNoModelIsNeverOverwritten() throws {
    try withTemporaryDirectory { folder in
      try write("dear diary", to: "\(folder)/diary.txt")
      guard
        case .outputNotReplaceable = try failure({
          _ = try OutputDirectory(folder, overwrite: true)
        })
      else {
        Issue.record("wrong error")
        return
      }
      #expect(exists("\(folder)/diary.txt"))
    }
  }

  @Test func filesAndFoldersDoNotReplaceEachOther() throws {
    try withTemporaryDirectory { folder in
      try write("x", to: "\(folder)/f")
      try manager.createSymbolicLink(
        atPath: "\(folder)/dangling", withDestinationPath: "nowhere")
      let attempts: [() throws -> Void] = [
        { _ = try OutputDirectory("\(folder)/f", overwrite: true) },
        { _ = try OutputFile(folder, overwrite: true) },
        { _ = try OutputFile("/dev/null", overwrite: true) },
        { _ = try OutputFile("\(folder)/dangling", overwrite: true) },
      ]
      for attempt in attempts {
        guard case .outputNotReplaceable = try failure(attempt) else {
          Issue.record("wrong error")
          continue
        }
      }
    }
  }

  @Test func theInputIsNeverTheOutput() throws {
    try withTemporaryDirectory { root in
      let input = "\(root)/models/input"
      try manager.createDirectory(atPath: input, withIntermediateDirectories: true)
      try write(RawSafetensors.valid.bytes, to: "\(root)/blob")
      try manager.createSymbolicLink(
        atPath: "\(input)/model.safetensors", withDestinationPath: "\(root)/blob")
      try manager.createSymbolicLink(atPath: "\(root)/alias", withDestinationPath: input)
      let inputs = try Checkpoint.open(input).inputPaths
      for target in [input, "\(input)/../input/", "\(root)/models", "\(root)/alias", root] {
        guard
          case .outputTouchesInput = try failure({
            _ = try OutputDirectory(target, overwrite: true, inputs: inputs)
          })
        else {
          Issue.record("\(target) was accepted")
          continue
        }
      }
      guard
        case .outputTouchesInput = try failure({
          _ = try OutputFile("\(root)/blob", overwrite: true, inputs: inputs)
        })
      else {
        Issue.record("the blob was accepted")
        return
      }
      // Beside the input, or with a name that begins like it, is fine.
      _ = try OutputDirectory("\(input)-smaller", overwrite: false, inputs: inputs)
    }
  }

  @Test func placesThatCannotBeWrittenAreNamed() throws {
    for target in ["/no/such/folder/model", "", "/proc/model", "/dev/null/model"] {
      switch try failure({ _ = try OutputDirectory(target, overwrite: false) }) {
      case .unwritable: break
      case let error: Issue.record("\(target) gave \(error)")
      }
    }
    #expect(throws: CheckpointError.self) {
      try OutputDirectory("/tmp/" + String(repeating: "x", count: 250), overwrite: false)
    }
  }

  @Test func twoRunsOfOneProcessDoNotShareAnOutput() throws {
    try withTemporaryDirectory { folder in
      let first = try OutputDirectory("\(folder)/m", overwrite: false)
      #expect(
        try failure { _ = try OutputDirectory("\(folder)/m", overwrite: false) }
          == .outputBusy(path: "\(folder)/m"))
      try first.finish()
    }
  }

  @Test func leftoversOfKilledRunsAreRemovedAndNoted() async throws {
    let folder = NSTemporaryDirectory() + "pare-test-\(UUID())"
    try manager.createDirectory(atPath: folder, withIntermediateDirectories: false)
    defer { try? manager.removeItem(atPath: folder) }
    await #expect(processExitsWith: .signal(SIGKILL)) { [folder = folder as String] in
      let output = try OutputDirectory("\(folder)/m", overwrite: false)
      try output.write("x", [1])
      kill(getpid(), SIGKILL)
    }
    #expect(try names(in: folder).count == 1)
    // Work in progress of a living process, and names that only look alike, stay.
    let living = ".m.pare-partial-1"
    for name in [living, ".m.pare-partial-x", ".mm.pare-partial-999999"] {
      try manager.createDirectory(atPath: "\(folder)/\(name)", withIntermediateDirectories: false)
    }
    let output = try OutputDirectory("\(folder)/m", overwrite: false)
    #expect(output.notes.count == 1)
    #expect(output.notes[0].contains("left behind by a run that was killed"))
    try output.finish()
    #expect(
      try names(in: folder) == [living, ".m.pare-partial-x", ".mm.pare-partial-999999", "m"])
  }

  /// In a container the next run often has the id of the killed one.
  @Test func aLeftoverWithOurOwnIdIsRecognisedByItsLock() throws {
    try withTemporaryDirectory { folder in
      let leftover = "\(folder)/.m.pare-partial-\(getpid())"
      try manager.createDirectory(atPath: leftover, withIntermediateDirectories: false)
      try write("x", to: "\(leftover)/x")
      let output = try OutputDirectory("\(folder)/m", overwrite: false)
      #expect(output.notes.count == 1)
      #expect(try names(in: output.path).isEmpty)
    }
  }

  @Test func interruptionDiscardsEverythingUnderWay() throws {
    try withTemporaryDirectory { folder in
      let real = try #require(realpath(folder, nil).map { String(cString: $0) })
      let directory = try OutputDirectory("\(folder)/m", overwrite: false)
      let file = try OutputFile("\(folder)/f", overwrite: false)
      try directory.write("x", [1])
      OutputDirectory.discardActive(below: real)
      #expect(try names(in: folder).isEmpty)
      #expect(throws: CheckpointError.outputDiscarded(path: "\(real)/m")) {
        try directory.finish()
      }
      #expect(throws: CheckpointError.outputDiscarded(path: "\(real)/f")) { try file.finish() }
    }
  }

  @Test func aFileSizeLimitIsAFullDisk() async {
    await #expect(processExitsWith: .success) {
      try withTemporaryDirectory { folder in
        var limit = rlimit(rlim_cur: 1 << 20, rlim_max: 1 << 20)
        setrlimit(__rlimit_resource_t(1), &limit)  // RLIMIT_FSIZE
        let output = try OutputDirectory("\(folder)/m", overwrite: false)
        let error = #expect(throws: CheckpointError.self) {
          let count = 3 << 20
          var writer = try SafetensorsWriter(
            folder: output.path,
            tensors: [TensorDeclaration(name: "w", dtype: .uint8, shape: [count])])
          try [UInt8](repeating: 1, count: count).withUnsafeBytes { raw throws in
            try writer.append("w", raw)
          }
          _ = try writer.finish()
        }
        #expect(error == .diskFull(file: "\(output.path)/model.safetensors"))
        output.discard()
        #expect(try names(in: folder).isEmpty)
      }
    }
  }

  /// Root ignores permissions, so the child becomes nobody first.
  @Test func aFolderWithoutPermissionIsNamed() async throws {
    let folder = NSTemporaryDirectory() + "pare-test-\(UUID())"
    try manager.createDirectory(atPath: folder, withIntermediateDirectories: false)
    defer { try? manager.removeItem(atPath: folder) }
    chmod(folder, 0o555)
    await #expect(processExitsWith: .success) { [folder = folder as String] in
      if geteuid() == 0 { try #require(setuid(65534) == 0) }
      let error = #expect(throws: CheckpointError.self) {
        try OutputDirectory("\(folder)/m", overwrite: false)
      }
      guard case .unwritable(_, "Permission denied") = error else {
        Issue.record("\(String(describing: error))")
        return
      }
    }
  }
}
