import Checkpoints
import Foundation
import TestSupport
import Testing
import Text

/// A folder with a config of a tiny model and a text, and the arguments that train one on the other
/// with the stories' tokenizer.
private struct Bench {
  let folder: String
  static let documents = [
    "Tom had a red ball. He threw it up and it came down.", "The cat sat by the door and slept.",
    "Lily made a cake with her mom. It was sweet and warm.", "A bird sang.",
    "Once there was a small boat. It went far over the blue sea, and nobody saw it again.",
  ]

  static func with(_ body: (Bench) throws -> Void) throws {
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
      try body(Bench(folder: folder))
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

private func kill9(_ process: Process) { kill(process.processIdentifier, SIGKILL) }

private func expectSuccess(
  _ result: PareProcess, sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(result.code == 0, "\(result.errors)", sourceLocation: sourceLocation)
}

private func expectFailure(
  _ result: PareProcess, naming words: String..., sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(result.code == 1, "\(result.errors)", sourceLocation: sourceLocation)
  for word in words {
    #expect(result.errors.contains(word), "\(result.errors)", sourceLocation: sourceLocation)
  }
}

// MARK: - Reports

@Test(arguments: ["train", "finetune"])
func trainingReportsEveryKeyThatHelpNames(command: String) throws {
  try Bench.with { bench in
    let help = try PareProcess.run(command, "--help").text
    let start = try #require(help.range(of: "JSON keys:"))
    let end = try #require(help[start.upperBound...].firstIndex(of: "."))
    let keys = help[start.upperBound..<end].replacingOccurrences(of: "\n", with: " ")
      .split(separator: ",").compactMap { $0.split(separator: " ").first }.map(String.init)
    #expect(keys.count > 10)
    let result = try PareProcess.run(
      command == "train"
        ? bench.arguments("out", "--json") : bench.finetune("out", "--lora", "--json"))
    expectSuccess(result)
    let json = try result.json()
    for key in keys { #expect(json[key] != nil, "\(key)") }
    for key in ["loss", "tokens_per_second", "peak_resident_bytes"] {
      #expect((json[key]?.double ?? 0) > 0, "\(key)")
    }
    try expectOnly(["config.json", "data.jsonl", "data.txt", "out"], in: bench.folder)
    let files = try bench.files("out")
    for name in ["pare.json", "loss.svg", "metrics.jsonl", "model.safetensors", "tokenizer.json"] {
      #expect(files[name] != nil, "\(name)")
    }
    // What was written runs.
    expectSuccess(try .run("run", "\(bench.folder)/out", "--prompt", "Once", "-n", "3"))
  }
}

@Test func aDryRunOfATrainingWritesAndRemovesNothing() throws {
  try Bench.with { bench in
    let result = try PareProcess.run(bench.arguments("out", "--dry-run", "--json"))
    expectSuccess(result)
    #expect((try result.json()["estimated_resident_bytes"]?.int ?? 0) > 0)
    try expectOnly(["config.json", "data.jsonl", "data.txt"], in: bench.folder)
    // An unfinished run is left alone.
    let killed = try bench.interrupt(
      bench.arguments("out", steps: 5000, "--checkpoint-every", "2"),
      when: { !bench.checkpoints("out").isEmpty }, by: kill9)
    #expect(killed.terminationReason == .uncaughtSignal)
    let before = bench.checkpoints("out").sorted()
    for option in ["--resume", "--overwrite"] {
      expectSuccess(
        try .run(
          bench.arguments("out", steps: 5000, "--checkpoint-every", "2", "--dry-run", option)))
      #expect(bench.checkpoints("out").sorted() == before)
    }
  }
}

// MARK: - Durability

@Test(.timeLimit(.minutes(10))) func aTrainingKilledAtRandomMomentsEndsInTheSameBytes() throws {
  try Bench.with { bench in
    let steps = longTestsAreOn ? 400 : 100
    func arguments(_ output: String, _ more: String...) -> [String] {
      bench.arguments(output, steps: steps, "--checkpoint-every", "7", "--ema", "0.9") + more
    }
    let clock = ContinuousClock()
    let began = clock.now
    expectSuccess(try .run(arguments("whole")))
    let whole = (clock.now - began) / .seconds(1)
    var random = SystemRandomNumberGenerator()
    let kills = longTestsAreOn ? 20 : 3
    var done = 0, attempts = 0
    while done < kills, !bench.exists("killed"), attempts < 5 * kills {
      attempts += 1
      let wait = Double.random(in: 0..<whole * 1.5 / Double(kills), using: &random)
      let start = clock.now
      let process = try bench.interrupt(
        arguments("killed") + (bench.exists("killed.training") ? ["--resume"] : []),
        when: { (clock.now - start) / .seconds(1) > wait }, by: kill9)
      if process.terminationReason == .uncaughtSignal { done += 1 }
    }
    if !bench.exists("killed") {
      expectSuccess(
        try .run(
          arguments("killed") + (bench.exists("killed.training") ? ["--resume"] : [])))
    }
    try bench.expectTheSame("whole", "killed")
  }
}

@Test(.timeLimit(.minutes(2))) func ctrlCStopsATrainingAfterACheckpoint() throws {
  try Bench.with { bench in
    let events = "metrics.jsonl"
    let arguments = bench.arguments("out", steps: 200, "--checkpoint-every", "1000")
    let process = try bench.interrupt(
      arguments, when: { bench.exists("out.training/\(events)") }, by: { $0.interrupt() })
    #expect(process.terminationStatus == 130)
    #expect(bench.checkpoints("out").count == 1)
    #expect(!bench.exists("out"))
    let result = try PareProcess.run(arguments + ["--resume", "--json"])
    expectSuccess(result)
    #expect((try result.json()["resumed_from"]?.int ?? 0) > 0)
    expectSuccess(
      try .run(bench.arguments("whole", steps: 200, "--checkpoint-every", "1000")))
    try bench.expectTheSame("whole", "out")
  }
}

@Test func theNumberOfThreadsChangesNoByteOfATraining() throws {
  try Bench.with { bench in
    expectSuccess(try .run(bench.arguments("one", "--threads", "1")))
    expectSuccess(try .run(bench.arguments("three", "--threads", "3")))
    try bench.expectTheSame("one", "three")
  }
}

@Test(.timeLimit(.minutes(2))) func aFullDiskLeavesTheCheckpointBefore() throws {
  try Bench.with { bench in
    let arguments = bench.arguments("out", steps: 3000, "--checkpoint-every", "3")
    _ = try bench.interrupt(
      arguments, when: { !bench.checkpoints("out").isEmpty }, by: kill9)
    let before = bench.checkpoints("out")
    // 512-byte blocks: enough for the model, too few for the optimizer's state.
    let full = try PareProcess.run(arguments + ["--resume"], shell: "ulimit -f 1000")
    expectFailure(full, naming: "training_state.safetensors")
    #expect(!before.isEmpty && bench.checkpoints("out") == before)
    #expect(!bench.exists("out"))
    // Another attempt with room goes on from there.
    let process = try bench.interrupt(
      arguments + ["--resume"],
      when: { bench.checkpoints("out").sorted() != before.sorted() }, by: { $0.interrupt() })
    #expect(process.terminationStatus == 130)
  }
}

@Test func aRunGoesOnlyOnWithItsOwnSettingsAndData() throws {
  try Bench.with { bench in
    func arguments(_ more: [String] = []) -> [String] {
      bench.arguments("out", steps: 5000, "--checkpoint-every", "2", "--resume") + more
    }
    expectFailure(try .run(arguments()), naming: "no checkpoint", "out.training")
    _ = try bench.interrupt(
      arguments().dropLast(), when: { !bench.checkpoints("out").isEmpty }, by: kill9)
    let before = bench.checkpoints("out").sorted()
    for (option, value, name) in [
      ("--learning-rate", "1e-5", "optimizer"), ("--seed", "3", "seed"),
      ("--train", "norm", "train"),
      ("--validation", "0.2", "validation"), ("--chat-template", "chatml", "chat_template"),
    ] {
      // A new seed or fewer tensors show first in what was saved under the old.
      expectFailure(try .run(arguments([option, value])), naming: name)
    }
    expectFailure(
      try .run(bench.arguments("out", steps: 5000, "--checkpoint-every", "2")),
      naming: "unfinished run", "--resume", "--overwrite")
    try Bench.write("Other words.", "\(bench.folder)/data.txt")
    expectFailure(try .run(arguments()), naming: "data")
    #expect(bench.checkpoints("out").sorted() == before)
  }
}

@Test func anOutputIsReplacedOnlyWhenAsked() throws {
  try Bench.with { bench in
    expectSuccess(try .run(bench.arguments("out")))
    let before = try bench.files("out")
    expectFailure(try .run(bench.arguments("out", "--seed", "2")), naming: "out", "--overwrite")
    #expect(try bench.files("out") == before)
    #expect(!bench.exists("out.training"))
    expectSuccess(try .run(bench.arguments("out", "--seed", "2", "--overwrite")))
    #expect(try bench.files("out")["model.safetensors"] != before["model.safetensors"])
    // Known before the work: the output would take the place of what is read.
    let model = "\(bench.folder)/out"
    var arguments = bench.finetune("out", "--overwrite", model: model)
    expectFailure(try .run(arguments), naming: model)
    arguments[arguments.count - 2] = "/nowhere/at/all"
    expectFailure(try .run(arguments), naming: "/nowhere/at")
    #expect(!bench.exists("out.training"))
  }
}

// MARK: - Bad input

@Test func aDivergingTrainingSaysWhereAndLeavesNoOutput() throws {
  try Bench.with { bench in
    let result = try PareProcess.run(
      bench.arguments(
        "out", steps: 200, "--learning-rate", "1e6", "--optimizer", "sgd", "--clip-norm", "0",
        "--schedule", "constant", "--checkpoint-every", "1"))
    expectFailure(result, naming: "Step ", "not finite", "--learning-rate")
    #expect(!bench.exists("out"))
  }
}

@Test func aBatchThatCannotFitSaysWhatWould() throws {
  try Bench.with { bench in
    var arguments = bench.arguments("out", length: 128, "--memory-limit", "100MB")
    arguments[arguments.firstIndex(of: "--batch-size").map { $0 + 1 } ?? 0] = "1024"
    let result = try PareProcess.run(arguments)
    expectFailure(result, naming: "MiB", "--micro-batch-size")
    try expectOnly(["config.json", "data.jsonl", "data.txt"], in: bench.folder)
    let words = result.errors.split(separator: " ")
    let rows = try #require(
      words.firstIndex(of: "--micro-batch-size").map { words[$0 + 1].filter(\.isNumber) })
    expectSuccess(try .run(arguments + ["--micro-batch-size", rows, "--dry-run"]))
  }
}

@Test func textsWithoutTokensAreRefusedAndShortOnesServe() throws {
  try Bench.with { bench in
    let path = "\(bench.folder)/data.txt"
    for text in ["", " \n", "<|endoftext|>\n<|endoftext|>"] {
      try Bench.write(text, path)
      expectFailure(try .run(bench.arguments("out")), naming: "no text", "data.txt")
    }
    // One token between the tokens that begin and end a document, and an empty document beside it.
    try Bench.write("a<|endoftext|><|endoftext|>a", path)
    let result = try PareProcess.run(bench.arguments("out", "--json"))
    expectSuccess(result)
    #expect(try result.json()["data"]?["skipped_documents"]?.int == 1)
    try FileManager.default.removeItem(atPath: path)
    expectFailure(try .run(bench.arguments("other")), naming: "data.txt")
    #expect(!bench.exists("other.training"))
  }
}

@Test(arguments: [
  ("\"llama\"", "\"lama\"", "\"lama\""), ("2048", "1000", "vocab_size"),
  ("\"hidden_size\": 32", "\"hidden_size\": 33", "33"), ("{", "[", "config.json"),
])
func aConfigThatCannotBeIsRefused(found: String, replacement: String, named: String) throws {
  try Bench.with { bench in
    let path = "\(bench.folder)/config.json"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    try Bench.write(text.replacingOccurrences(of: found, with: replacement), path)
    expectFailure(try .run(bench.arguments("out")), naming: named)
    try expectOnly(["config.json", "data.jsonl", "data.txt"], in: bench.folder)
  }
}

@Test(arguments: [
  ["--rank", "4"], ["--quantize-base", "nf4"], ["--save", "adapter"],
  ["--lora", "--precision", "bfloat16"], ["--lora", "--save", "nothing"],
  ["--optimizer", "adam"], ["--optimizer-bits", "4"],
])
func wrongUsageOfFinetuneEndsWith64(options: [String]) throws {
  try Bench.with { bench in
    let result = try PareProcess.run(bench.finetune("out") + options)
    #expect(result.code == 64, "\(result.errors)")
  }
}

@Test(arguments: [
  (["--lora", "--rank", "0"], "rank"), (["--lora", "--target", "nowhere"], "--target"),
  (["--lora", "--target", "embedding"], "embedding"), (["--lora", "--alpha", "0"], "alpha"),
  (["--dora", "--lora-dropout", "1"], "dropout"), (["--target", "nowhere"], "nowhere"),
])
func adaptersThatCannotBeAreRefused(options: [String], named: String) throws {
  try Bench.with { bench in
    expectFailure(try .run(bench.finetune("out") + options), naming: named)
    #expect(!bench.exists("out") && !bench.exists("out.training"))
  }
}

// MARK: - Adapters

@Test func adaptersMergedAndApartSayTheSame() throws {
  try Bench.with { bench in
    let options = ["--lora", "--learning-rate", "1e-2", "--target", "attention.*"]
    expectSuccess(try .run(bench.finetune("merged", "--dtype", "float32") + options))
    expectSuccess(try .run(bench.finetune("adapter", "--save", "adapter") + options))
    let names = try bench.files("adapter").keys
    #expect(
      Set(names).isSuperset(of: ["adapter_config.json", "adapter_model.safetensors", "pare.json"]))
    func text(_ arguments: String...) throws -> String {
      let result = try PareProcess.run(["run"] + arguments + ["--prompt", "Tom", "-n", "12"])
      expectSuccess(result)
      return result.text
    }
    let apart = try text(Stories.model, "--adapter", "\(bench.folder)/adapter")
    #expect(try text("\(bench.folder)/merged") == apart)
    #expect(try text(Stories.model) != apart)
  }
}

/// Codes that a Hugging Face folder has no place for stay what they are unless adapters are merged
/// into them; that shows before the training.
@Test func aModelOfOtherCodesTakesAdaptersOrIsRefusedAtOnce() throws {
  try Bench.with { bench in
    let model = "\(bench.folder)/model.gguf"
    expectSuccess(try .run("convert", Stories.model, "--to", "gguf", "--type", "q4_0", "-o", model))
    expectFailure(try .run(bench.finetune("full", model: model)), naming: "model.gguf", "convert")
    #expect(!bench.exists("full") && !bench.exists("full.training"))
    expectSuccess(try .run(bench.finetune("merged", "--lora", model: model)))
    // Groups of compressed-tensors become dense too, and the config says so.
    let groups = "\(bench.folder)/groups"
    expectSuccess(try .run("quantize", Stories.model, "-o", groups))
    expectSuccess(try .run(bench.finetune("dense", "--lora", model: groups)))
    let config = String(decoding: try bench.files("dense")["config.json"] ?? Data(), as: UTF8.self)
    #expect(!config.contains("quantization_config"))
    for output in ["merged", "dense"] {
      expectSuccess(try .run("run", "\(bench.folder)/\(output)", "--prompt", "Tom", "-n", "3"))
    }
    expectSuccess(try .run(bench.finetune("full", model: groups)))
    #expect(try bench.files("full")["config.json"]?.isEmpty == false)
  }
}

@Test func aConversationNeedsATemplate() throws {
  try Bench.with { bench in
    try Bench.write(
      """
      {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
      """, "\(bench.folder)/data.jsonl")
    expectFailure(try .run(bench.finetune("out")), naming: "data.jsonl:1", "chat template")
    #expect(!bench.exists("out.training"))
    expectSuccess(try .run(bench.finetune("out", "--chat-template", "plain")))
  }
}

@Test func adaptersOnCodesTrainMergeAndGoOn() throws {
  try Bench.with { bench in
    func arguments(_ output: String, _ more: String...) -> [String] {
      bench.finetune(
        output, "--dora", "--quantize-base", "nf4", "--lora-dropout", "0.1",
        "--checkpoint-every", "1", "--recompute", steps: 6) + more
    }
    let result = try PareProcess.run(arguments("whole", "--json"))
    expectSuccess(result)
    #expect(try result.json()["adapters"]?["quantized_base"]?.string == "nf4")
    expectSuccess(try .run("run", "\(bench.folder)/whole", "--prompt", "Tom", "-n", "3"))
    _ = try bench.interrupt(
      arguments("killed"), when: { !bench.checkpoints("killed").isEmpty }, by: kill9)
    if !bench.exists("killed") { expectSuccess(try .run(arguments("killed", "--resume"))) }
    try bench.expectTheSame("whole", "killed")
  }
}

@Test func promptsCountOnlyWhenAsked() throws {
  try Bench.with { bench in
    func tokens(_ options: String...) throws -> Int {
      let result = try PareProcess.run(bench.finetune("out", "--json", "--overwrite") + options)
      expectSuccess(result)
      return try #require(try result.json()["tokens"]?.int)
    }
    let (masked, all) = (try tokens(), try tokens("--no-mask-prompt"))
    #expect(masked < all)
  }
}

// MARK: - Memory

/// Not a promise to the byte: what an allocator keeps and a system maps is beyond it.
@Test(arguments: [
  ["train"], ["train", "--recompute"], ["train", "--optimizer-bits", "8"],
  ["train", "--precision", "bfloat16", "--optimizer", "muon"], ["train", "--ema", "0.99"],
  ["finetune", "--lora"], ["finetune", "--dora"],
  ["finetune", "--lora", "--quantize-base", "nf4", "--recompute"],
])
func estimatedMemoryIsNearWhatIsUsed(options: [String]) throws {
  try Bench.with { bench in
    let path = "\(bench.folder)/config.json"
    var text = try String(contentsOfFile: path, encoding: .utf8)
    for (found, replacement) in [
      ("\"hidden_size\": 32", "\"hidden_size\": 320"),
      ("\"intermediate_size\": 64", "\"intermediate_size\": 896"),
      ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 6"),
    ] {
      text = text.replacingOccurrences(of: found, with: replacement)
    }
    try Bench.write(text, path)
    var arguments = bench.arguments("out", steps: 2, length: 128, "--json")
    arguments[arguments.firstIndex(of: "--batch-size").map { $0 + 1 } ?? 0] = "8"
    if options[0] == "finetune" {
      expectSuccess(try .run(bench.arguments("model", steps: 1)))
      arguments.removeAll { $0 == "--tokenizer" || $0 == Stories.model }
      (arguments[0], arguments[1]) = ("finetune", "\(bench.folder)/model")
    }
    arguments += options.dropFirst()
    let estimate = try #require(
      try PareProcess.run(arguments + ["--dry-run"]).json()["estimated_resident_bytes"]?.int)
    let result = try PareProcess.run(arguments)
    expectSuccess(result)
    let peak = try #require(try result.json()["peak_resident_bytes"]?.int)
    let ratio = Double(estimate) / Double(peak)
    print("\(options): estimated \(estimate >> 20) MiB, used \(peak >> 20) MiB")
    #expect(ratio > 0.65 && ratio < 1.35, "estimated \(estimate >> 20), used \(peak >> 20) MiB")
  }
}
