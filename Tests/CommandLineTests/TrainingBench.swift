import Checkpoints
import Foundation
import TestSupport
import Testing
import Text

/// A folder with a config of a tiny model and a text, and the arguments that train one on the other
/// with the stories' tokenizer.
struct TrainingBench {
  let folder: String
  static let documents = [
    "Tom had a red ball. He threw it up and it came down.", "The cat sat by the door and slept.",
    "Lily made a cake with her mom. It was sweet and warm.", "A bird sang.",
    "Once there was a small boat. It went far over the blue sea, and nobody saw it again.",
  ]

  static func with(_ body: (TrainingBench) throws -> Void) throws {
    try withTemporaryDirectory { folder in
      let config = """
        {"model_type": "llama", "vocab_size": 2048, "hidden_size": 32, "intermediate_size": 64,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "hidden_act": "silu", "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1}
        """
      try write(config, "\(folder)/config.json")
      try write(documents.joined(separator: "<|endoftext|>"), "\(folder)/data.txt")
      let records = documents.map {
        "{\"prompt\": \"What happened?\", \"response\": \"\($0)\"}"
      }
      try write(records.joined(separator: "\n"), "\(folder)/data.jsonl")
      try body(TrainingBench(folder: folder))
    }
  }

  static func write(_ text: String, _ path: String) throws {
    try Data(text.utf8).write(to: URL(filePath: path))
  }

  func arguments(
    _ output: String, steps: Int = 6, length: Int = 16, data: String = "data.txt",
    _ more: String...
  ) -> [String] {
    [
      "train", "\(folder)/config.json", "--tokenizer", Stories.model, "--data",
      "\(folder)/\(data)", "--steps", "\(steps)", "--batch-size", "2", "--length", "\(length)",
      "-o", "\(folder)/\(output)",
    ] + more
  }

  func finetune(
    _ output: String, _ more: String..., model: String = Stories.model, steps: Int = 2
  ) -> [String] {
    [
      "finetune", model, "--data", "\(folder)/data.jsonl", "--steps", "\(steps)", "--batch-size",
      "2", "--length", "32", "-o", "\(folder)/\(output)",
    ] + more
  }

  /// All files of an output by name.
  func files(_ output: String) throws -> [String: Data] {
    var files: [String: Data] = [:]
    for name in try FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(output)") {
      files[name] = try Data(contentsOf: URL(filePath: "\(folder)/\(output)/\(name)"))
    }
    return files
  }

  func exists(_ name: String) -> Bool {
    FileManager.default.fileExists(atPath: "\(folder)/\(name)")
  }

  func checkpoints(_ output: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(output).training")) ?? [])
      .filter { $0.hasPrefix("checkpoint-") }
  }

  /// Starts the program and does something to it once a condition holds.
  /// - Returns: how it ended.
  func interrupt(
    _ arguments: [String], when isDue: () -> Bool, by action: (Process) -> Void
  ) throws -> Process {
    let process = Process()
    process.executableURL = URL(filePath: PareProcess.program)
    process.arguments = arguments
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    while process.isRunning, !isDue() { usleep(500) }
    if process.isRunning { action(process) }
    process.waitUntilExit()
    return process
  }

  func expectTheSame(_ a: String, _ b: String) throws {
    let (a, b) = (try files(a), try files(b))
    #expect(a.keys.sorted() == b.keys.sorted())
    for (name, bytes) in a { #expect(bytes == b[name], "\(name)") }
  }
}

func kill9(_ process: Process) { kill(process.processIdentifier, SIGKILL) }

func expectSuccess(
  _ result: PareProcess, sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(result.code == 0, "\(result.errors)", sourceLocation: sourceLocation)
}

func expectTrainingFailure(
  _ result: PareProcess, naming words: String..., sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(result.code == 1, "\(result.errors)", sourceLocation: sourceLocation)
  for word in words {
    #expect(result.errors.contains(word), "\(result.errors)", sourceLocation: sourceLocation)
  }
}
