import Checkpoints
import Foundation
import TestSupport
import Testing

@Suite struct Layouts {
  private let manager = FileManager.default

  private func folder(_ path: String) throws -> String {
    try manager.createDirectory(atPath: path, withIntermediateDirectories: true)
    return path
  }

  private func failure(_ path: String) throws -> CheckpointError {
    try #require(throws: CheckpointError.self) { try Checkpoint.open(path) }
  }

  private func shard(_ names: String...) -> [UInt8] {
    let entries = names.enumerated().map { number, name in
      "\"\(name)\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[\(number),\(number + 1)]}"
    }
    let data = names.map { $0.utf8.first ?? 0 }
    return RawSafetensors("{\(entries.joined(separator: ","))}", data: data).bytes
  }

  @Test func safetensorsArePreferredToPickles() throws {
    try withTemporaryDirectory { folder in
      try write("not looked at", to: "\(folder)/pytorch_model.bin")
      try write(RawSafetensors.valid.bytes, to: "\(folder)/model.safetensors")
      #expect(try Checkpoint.open(folder).format == .safetensors)
      #expect(try Checkpoint.open("\(folder)/model.safetensors").folder == folder)
    }
  }

  @Test func theHubsCacheIsReadThroughItsLinks() throws {
    try withTemporaryDirectory { root in
      let cache = "\(root)/models--org--name"
      let blobs = try folder("\(cache)/blobs")
      for commit in ["aaaa", "bbbb"] {
        let snapshot = try folder("\(cache)/snapshots/\(commit)")
        try write(shard(commit), to: "\(blobs)/w-\(commit)")
        try write("{}", to: "\(blobs)/c-\(commit)")
        try manager.createSymbolicLink(
          atPath: "\(snapshot)/model.safetensors", withDestinationPath: "../../blobs/w-\(commit)")
        try manager.createSymbolicLink(
          atPath: "\(snapshot)/config.json", withDestinationPath: "../../blobs/c-\(commit)")
      }
      #expect(try Checkpoint.open("\(cache)/snapshots/aaaa").names == ["aaaa"])
      guard case .noWeights = try failure(cache) else {
        Issue.record("two snapshots and no reference")
        return
      }
      try write("bbbb\n", to: "\(folder("\(cache)/refs"))/main")
      let checkpoint = try Checkpoint.open(cache)
      #expect(checkpoint.names == ["bbbb"])
      #expect(checkpoint.folder == "\(cache)/snapshots/bbbb")
      #expect(checkpoint.sideFiles == ["config.json"])
      #expect(try checkpoint.readSideFile("config.json") == Array("{}".utf8))
      try manager.removeItem(atPath: "\(blobs)/w-bbbb")
      let error = try failure(cache)
      #expect(
        error
          == .unreadable(
            file: "\(cache)/snapshots/bbbb/model.safetensors", reason: "the link leads nowhere"))
      for outside in ["../../x", "..", "", "/etc"] {
        try write(outside, to: "\(cache)/refs/main")
        guard case .unreadable = try failure(cache) else {
          Issue.record("\(outside) was followed")
          continue
        }
      }
    }
  }

  @Test func aFolderWithoutWeightsSaysWhatWasLookedFor() throws {
    try withTemporaryDirectory { folder in
      try write("{}", to: "\(folder)/config.json")
      try write("", to: "\(folder)/adapter_model.safetensors")
      let message = "\(try failure(folder))"
      for word in [
        "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
        "only adapter_model.safetensors",
      ] { #expect(message.contains(word)) }
    }
  }

  @Test func pathsThatLeadNowhereAreNamed() throws {
    let error = try failure("/no/such/model")
    #expect(
      error
        == .unreadable(file: "/no/such/model", reason: "it does not exist"))
    guard case .unknownFormat = try failure("/dev/null") else {
      Issue.record("/dev/null was read")
      return
    }
  }

  @Test func otherFilesAreRefusedByFormat() throws {
    try withTemporaryDirectory { folder in
      try write("hello", to: "\(folder)/notes.txt")
      guard case .unknownFormat = try failure("\(folder)/notes.txt") else {
        Issue.record("notes.txt was read")
        return
      }
      try write("not what its name says it is", to: "\(folder)/model.gguf")
      guard case .wrongGGUF = try failure("\(folder)/model.gguf") else {
        Issue.record("model.gguf was read")
        return
      }
      try write("hello", to: "\(folder)/model.bin")
      guard case .wrongArchive = try failure("\(folder)/model.bin") else {
        Issue.record("model.bin was read")
        return
      }
      try write("", to: "\(folder)/model.safetensors")
      let error = try failure(folder)
      #expect(
        error
          == .truncated(file: "\(folder)/model.safetensors", expected: 8, actual: 0))
    }
  }

  // MARK: Shards

  private func sharded(
    _ map: String, _ shards: [String: [UInt8]], _ body: (String) throws -> Void
  ) throws {
    try withTemporaryDirectory { folder in
      try write(
        "{\"metadata\":{},\"weight_map\":\(map)}", to: "\(folder)/model.safetensors.index.json")
      for (name, bytes) in shards { try write(bytes, to: "\(folder)/\(name)") }
      try body(folder)
    }
  }

  @Test func tensorsOfAllShardsAreFound() throws {
    let map = #"{"c":"2.safetensors","a":"1.safetensors","b":"1.safetensors"}"#
    try sharded(map, ["1.safetensors": shard("a", "b"), "2.safetensors": shard("c")]) { folder in
      let checkpoint = try Checkpoint.open(folder)
      #expect(checkpoint.names == ["a", "b", "c"])
      #expect(try Array(checkpoint.tensor("c").bytes) == Array("c".utf8))
      #expect(checkpoint.info("c")?.file == "\(folder)/2.safetensors")
    }
  }

  @Test func aMissingShardIsNamed() throws {
    let map = #"{"a":"1.safetensors","c":"2.safetensors"}"#
    try sharded(map, ["1.safetensors": shard("a")]) { folder in
      let error = try failure(folder)
      #expect(
        error
          == .missingShard(
            index: "\(folder)/model.safetensors.index.json", shard: "2.safetensors"))
    }
  }

  @Test func anIndexThatNamesAnAbsentTensorIsRefused() throws {
    let map = #"{"a":"1.safetensors","c":"1.safetensors"}"#
    try sharded(map, ["1.safetensors": shard("a")]) { folder in
      guard case .indexedTensorAbsent(_, "c", _) = try failure(folder) else {
        Issue.record("wrong error")
        return
      }
    }
  }

  @Test func aTensorInTwoShardsIsRefused() throws {
    let map = #"{"a":"1.safetensors","c":"2.safetensors"}"#
    try sharded(map, ["1.safetensors": shard("a"), "2.safetensors": shard("c", "a")]) { folder in
      let error = try failure(folder)
      #expect(
        error
          == .duplicateTensor(
            name: "a", files: ["\(folder)/1.safetensors", "\(folder)/2.safetensors"]))
    }
  }

  @Test(arguments: [
    "{}", "[]", "{\"a\":3}", "{\"a\":\"\"}", "{\"a\":\"../x.safetensors\"}", "{\"a\"",
    "{\"a\":\"1\",\"a\":\"1\"}",
  ])
  func indicesThatMakeNoSenseAreRefused(_ map: String) throws {
    try sharded(map, [:]) { folder in
      guard case .wrongIndex = try failure(folder) else {
        Issue.record("wrong error")
        return
      }
    }
  }

  // MARK: Side files and identity

  @Test func sideFilesAreTheModelsOwn() throws {
    try withTemporaryDirectory { folder in
      try write(RawSafetensors.valid.bytes, to: "\(folder)/model.safetensors")
      let kept = [
        "LICENSE", "added_tokens.json", "chat_template.jinja", "config.json",
        "generation_config.json", "merges.txt", "special_tokens_map.json", "spiece.model",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
      ]
      for name in kept + ["README.md", "train.py", "optimizer.pt"] {
        try write("x", to: "\(folder)/\(name)")
      }
      let checkpoint = try Checkpoint.open(folder)
      #expect(checkpoint.sideFiles == kept)
      for name in ["absent.json", "../config.json"] {
        #expect(throws: CheckpointError.missingSideFile(folder: folder, name: name)) {
          try checkpoint.readSideFile(name)
        }
      }
    }
  }

  @Test func filesAreIdentifiedByTheirSHA256() throws {
    try withTemporaryDirectory { folder in
      try write(RawSafetensors("{}").bytes, to: "\(folder)/model.safetensors")
      try write("abc", to: "\(folder)/config.json")
      let hashes = try Checkpoint.open(folder).fileHashes()
      #expect(hashes.map(\.file) == ["model.safetensors", "config.json"])
      #expect(hashes.map(\.byteCount) == [10, 3])
      #expect(
        hashes.last?.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    }
  }

  @Test(
    .enabled(if: SharedFiles.exists("models/stories260K"), "needs ../shared/models/stories260K"))
  func aPublishedModelOpens() throws {
    let checkpoint = try Checkpoint.open(SharedFiles.path("models/stories260K"))
    #expect(checkpoint.sideFiles.contains("config.json"))
    let parameters = checkpoint.names.compactMap { checkpoint.info($0)?.count }.reduce(0, +)
    #expect((200_000...400_000).contains(parameters))
  }
}
