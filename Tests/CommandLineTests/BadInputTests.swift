import Checkpoints
import Foundation
import TestSupport
import Testing
import Text

/// One sentence on stderr that names what is wrong, exit code 1, nothing on stdout.
private func expectFailure(
  _ result: PareProcess, naming words: String..., sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(result.code == 1, "\(result.errors)", sourceLocation: sourceLocation)
  #expect(result.output.isEmpty, sourceLocation: sourceLocation)
  for word in words {
    #expect(result.errors.contains(word), "\(result.errors)", sourceLocation: sourceLocation)
  }
  #expect(
    result.errors.split(separator: "\n").count == 1, "\(result.errors)",
    sourceLocation: sourceLocation)
}

private func withCopy(_ body: (_ model: String, _ folder: String) throws -> Void) throws {
  try withTemporaryDirectory { folder in
    try Stories.copy(to: "\(folder)/model")
    try body("\(folder)/model", folder)
  }
}

private func edit(_ path: String, _ change: (inout Data) -> Void) throws {
  var data = try Data(contentsOf: URL(filePath: path))
  change(&data)
  try data.write(to: URL(filePath: path))
}

@Test func truncatedWeightsAreRefused() throws {
  try withCopy { model, folder in
    try edit("\(model)/model.safetensors") { $0.removeLast(1000) }
    expectFailure(
      try .run("quantize", model, "-o", "\(folder)/out"), naming: "model.safetensors")
    try expectOnly(["model"], in: folder)
  }
}

@Test(arguments: [UInt64(1) << 60, 1 << 40])
func aHeaderLengthBeyondTheFileIsRefused(length: UInt64) throws {
  try withCopy { model, _ in
    try edit("\(model)/model.safetensors") { data in
      withUnsafeBytes(of: length.littleEndian) { data.replaceSubrange(0..<8, with: $0) }
    }
    expectFailure(try .run("inspect", model), naming: "model.safetensors")
  }
}

@Test func weightsThatAreNoNumbersNameTheirTensor() throws {
  try withCopy { model, folder in
    // The file's last bytes belong to the last tensor in it; 0xFFFF is a bf16 NaN.
    let last = try #require(Checkpoint.open(model).names.last)
    try edit("\(model)/model.safetensors") { data in
      data.replaceSubrange((data.count - 2)..<data.count, with: [0xFF, 0xFF])
    }
    let result = try PareProcess.run(
      "eval", "perplexity", model, "--file", Stories.text, "--window", "32")
    expectFailure(result, naming: "not finite")
    #expect(!last.isEmpty)
    try expectOnly(["model"], in: folder)
  }
}

@Test func configAndTensorsThatDisagreeAreRefused() throws {
  try withCopy { model, _ in
    try edit("\(model)/config.json") { data in
      let text = String(decoding: data, as: UTF8.self)
        .replacingOccurrences(of: "\"intermediate_size\": 768", with: "\"intermediate_size\": 512")
      data = Data(text.utf8)
    }
    expectFailure(
      try .run("run", model, "--prompt", "x"), naming: "mlp.gate_proj.weight", "768", "512")
  }
}

@Test func anUnknownModelTypeIsNamed() throws {
  try withCopy { model, _ in
    try edit("\(model)/config.json") { data in
      let text = String(decoding: data, as: UTF8.self)
        .replacingOccurrences(of: "\"model_type\": \"llama\"", with: "\"model_type\": \"lama\"")
      data = Data(text.utf8)
    }
    expectFailure(try .run("inspect", model), naming: "\"lama\"")
  }
}

@Test func aMissingShardIsNamed() throws {
  try withTemporaryDirectory { folder in
    let out = "\(folder)/sharded"
    let made = try PareProcess.run("quantize", Stories.model, "-o", out, "--shard-size", "1MB")
    #expect(made.code == 0, "\(made.errors)")
    let shard = try #require(
      try FileManager.default.contentsOfDirectory(atPath: out).filter {
        $0.hasSuffix(".safetensors")
      }.sorted().last)
    try FileManager.default.removeItem(atPath: "\(out)/\(shard)")
    expectFailure(try .run("inspect", out), naming: shard)
  }
}

@Test func aTokenizerWithoutAMergesTokenIsRefused() throws {
  try withCopy { model, _ in
    try edit("\(model)/tokenizer.json") { data in
      let text = String(decoding: data, as: UTF8.self)
        .replacingOccurrences(of: "\"he\":", with: "\"qqq\":")
      data = Data(text.utf8)
    }
    expectFailure(try .run("tokenize", model, "--text", "a"), naming: "tokenizer.json", "merge")
  }
}

@Test func anEmptyTextIsRefused() throws {
  try withTemporaryDirectory { folder in
    let empty = "\(folder)/empty.txt"
    _ = FileManager.default.createFile(atPath: empty, contents: nil)
    expectFailure(
      try .run("eval", "perplexity", Stories.model, "--file", empty), naming: "empty.txt")
    #expect(
      try PareProcess.run("tokenize", Stories.model, "--text", "", "--no-special-tokens").text
        == "\n")
  }
}

/// The stories' tokenizer begins every text with a token of its own; one that does not has nothing
/// to continue.
@Test func anEmptyPromptNeedsATokenThatBegins() throws {
  #expect(try PareProcess.run("run", Stories.model, "--prompt", "", "-n", "3").code == 0)
  try withCopy { model, _ in
    try edit("\(model)/tokenizer.json") { data in
      guard var json = try? JSON.parse([UInt8](data), name: "tokenizer.json").object else { return }
      json["post_processor"] = .null
      data = Data(JSON.object(json).serialized())
    }
    expectFailure(try .run("run", model, "--prompt", ""), naming: "no tokens")
  }
}

@Test func aPromptLongerThanTheContextIsRefused() throws {
  let long = String(repeating: "one two three ", count: 400)
  expectFailure(try .run("run", Stories.model, "--prompt", long), naming: "512")
}

@Test(arguments: ["2048", "-1", "99999999999"])
func idsOutsideTheVocabularyAreRefused(id: String) throws {
  try withTemporaryDirectory { folder in
    expectFailure(
      try .run("logits", Stories.model, "--tokens=1,\(id)", "-o", "\(folder)/l"), naming: id)
    try expectOnly([], in: folder)
  }
  expectFailure(try .run("tokenize", Stories.model, "--decode=\(id)"), naming: id)
}

@Test func pathsThatDoNotExistAreNamed() throws {
  expectFailure(try .run("inspect", "nowhere"), naming: "nowhere")
  expectFailure(
    try .run("eval", "perplexity", Stories.model, "--file", "nowhere.txt"), naming: "nowhere.txt")
  expectFailure(try .run("tokenize", "nowhere", "--text", "a"), naming: "nowhere")
  expectFailure(
    try .run("quantize", Stories.model, "-o", "/nowhere/at/all"), naming: "/nowhere/at")
  expectFailure(
    try .run("compress", Stories.model, "--recipe", "nowhere.yaml", "-o", "x"),
    naming: "nowhere.yaml")
}

@Test func aModelWithoutTokenizerServesWhatNeedsNone() throws {
  try withCopy { model, folder in
    try FileManager.default.removeItem(atPath: "\(model)/tokenizer.json")
    #expect(try PareProcess.run("inspect", model).code == 0)
    #expect(
      try PareProcess.run("logits", model, "--tokens", "1", "-o", "\(folder)/l").code == 0)
    #expect(try PareProcess.run("quantize", model, "-o", "\(folder)/out").code == 0)
    expectFailure(try .run("run", model, "--prompt", "a"), naming: "tokenizer.json")
  }
}

@Test func aFolderWithoutWritePermissionIsNamed() throws {
  try withTemporaryDirectory { folder in
    let locked = "\(folder)/locked"
    try FileManager.default.createDirectory(atPath: locked, withIntermediateDirectories: false)
    try FileManager.default.setAttributes([.posixPermissions: 0o555], ofItemAtPath: locked)
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: folder)
    // The superuser may write anywhere, so the program gives that up first.
    let wrapper =
      getuid() == 0
      ? ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : []
    let result = try PareProcess.run(
      ["quantize", Stories.model, "-o", "\(locked)/out"], wrapper: wrapper)
    expectFailure(result, naming: "\(locked)")
    try expectOnly([], in: locked)
  }
}

@Test func aFullDiskLeavesNothing() throws {
  try withTemporaryDirectory { folder in
    // Blocks of 512 bytes: half a megabyte.
    let result = try PareProcess.run(
      "quantize", Stories.model, "-o", "\(folder)/out", shell: "ulimit -f 1000")
    expectFailure(result, naming: "out")
    try expectOnly([], in: folder)
  }
}

@Test func theLeftoverOfAKilledRunIsRemoved() throws {
  try withTemporaryDirectory { folder in
    // No process has this number: Linux ends at 2²².
    let stale = "\(folder)/.out.pare-partial-99999999"
    try FileManager.default.createDirectory(atPath: stale, withIntermediateDirectories: false)
    _ = FileManager.default.createFile(
      atPath: "\(stale)/model.safetensors", contents: Data(count: 9))
    let result = try PareProcess.run("quantize", Stories.model, "-o", "\(folder)/out")
    #expect(result.code == 0, "\(result.errors)")
    #expect(result.errors.contains("pare-partial"))
    try expectOnly(["out"], in: folder)
  }
}

@Test(.timeLimit(.minutes(1))) func interruptionLeavesNothingAndExitsWith130() throws {
  try withTemporaryDirectory { folder in
    // The interrupt arrives while the 2-bit search runs; a fast machine may have finished.
    let out = "\(folder)/out"
    let process = Process()
    process.executableURL = URL(filePath: PareProcess.program)
    process.arguments = [
      "quantize", Stories.model, "-o", out, "--bits", "2", "--clipping", "mse", "--group-size",
      "16",
    ]
    process.standardError = FileHandle.nullDevice
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    var hasBegun = false
    while process.isRunning, !hasBegun {
      usleep(1000)
      hasBegun = try FileManager.default.contentsOfDirectory(atPath: folder)
        .contains { $0.contains("partial") }
    }
    process.interrupt()
    process.waitUntilExit()
    #expect([0, 130].contains(process.terminationStatus))
    try expectOnly(process.terminationStatus == 0 ? ["out"] : [], in: folder)
  }
}

@Test(arguments: [
  ["quantize", "MODEL"], ["quantize", "MODEL", "-o", "x", "--bits", "7"],
  ["quantize", "MODEL", "-o", "x", "--group-size", "8"],
  ["quantize", "MODEL", "-o", "x", "--strategy", "channel", "--group-size", "64"],
  ["quantize", "MODEL", "-o", "x", "--blocks", "b"],
  ["quantize", "MODEL", "-o", "x", "--shard-size", "many"],
  ["run", "MODEL", "--prompt", "a", "--top-p", "0"], ["run", "MODEL", "--prompt", "a", "-n", "0"],
  ["run", "MODEL", "--prompt", "a", "--temperature=-1"], ["tokenize", "MODEL"],
  ["tokenize", "MODEL", "--text", "a", "--decode", "1"], ["nonsense"],
  ["eval", "perplexity", "MODEL"],
  ["run", "MODEL", "--prompt", "a", "--kv-cache", "int8", "--kv-window", "8"],
  ["run", "MODEL", "--prompt", "a", "--kv-cache", "int4", "--kv-window", "0"],
  ["run", "MODEL", "--prompt", "a", "--kv-cache", "int4", "--prompt-cache", "x"],
])
func wrongUsageEndsWith64(arguments: [String]) throws {
  let result = try PareProcess.run(arguments.map { $0 == "MODEL" ? Stories.model : $0 })
  #expect(result.code == 64, "\(result.errors)")
  #expect(result.output.isEmpty)
}
