import Checkpoints
import Foundation
import TestSupport
import Testing
import Text

// MARK: - Reports

@Test(arguments: ["train", "finetune"])
func trainingReportsEveryKeyThatHelpNames(command: String) throws {
  try TrainingBench.with { bench in
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
  try TrainingBench.with { bench in
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

// MARK: - Bad input

@Test func aDivergingTrainingSaysWhereAndLeavesNoOutput() throws {
  try TrainingBench.with { bench in
    let result = try PareProcess.run(
      bench.arguments(
        "out", steps: 200, "--learning-rate", "1e6", "--optimizer", "sgd", "--clip-norm", "0",
        "--schedule", "constant", "--checkpoint-every", "1"))
    expectTrainingFailure(result, naming: "Step ", "not finite", "--learning-rate")
    #expect(!bench.exists("out"))
  }
}

@Test func aBatchThatCannotFitSaysWhatWould() throws {
  try TrainingBench.with { bench in
    var arguments = bench.arguments("out", length: 128, "--memory-limit", "100MB")
    arguments[arguments.firstIndex(of: "--batch-size").map { $0 + 1 } ?? 0] = "1024"
    let result = try PareProcess.run(arguments)
    expectTrainingFailure(result, naming: "MiB", "--micro-batch-size")
    try expectOnly(["config.json", "data.jsonl", "data.txt"], in: bench.folder)
    let words = result.errors.split(separator: " ")
    let rows = try #require(
      words.firstIndex(of: "--micro-batch-size").map { words[$0 + 1].filter(\.isNumber) })
    expectSuccess(try .run(arguments + ["--micro-batch-size", rows, "--dry-run"]))
  }
}

@Test func textsWithoutTokensAreRefusedAndShortOnesServe() throws {
  try TrainingBench.with { bench in
    let path = "\(bench.folder)/data.txt"
    for text in ["", " \n", "<|endoftext|>\n<|endoftext|>"] {
      try TrainingBench.write(text, path)
      expectTrainingFailure(try .run(bench.arguments("out")), naming: "no text", "data.txt")
    }
    // One token between the tokens that begin and end a document, and an empty document beside it.
    try TrainingBench.write("a<|endoftext|><|endoftext|>a", path)
    let result = try PareProcess.run(bench.arguments("out", "--json"))
    expectSuccess(result)
    #expect(try result.json()["data"]?["skipped_documents"]?.int == 1)
    try FileManager.default.removeItem(atPath: path)
    expectTrainingFailure(try .run(bench.arguments("other")), naming: "data.txt")
    #expect(!bench.exists("other.training"))
  }
}

@Test(arguments: [
  ("\"llama\"", "\"lama\"", "\"lama\""), ("2048", "1000", "vocab_size"),
  ("\"hidden_size\": 32", "\"hidden_size\": 33", "33"), ("{", "[", "config.json"),
])
func aConfigThatCannotBeIsRefused(found: String, replacement: String, named: String) throws {
  try TrainingBench.with { bench in
    let path = "\(bench.folder)/config.json"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    try TrainingBench.write(text.replacingOccurrences(of: found, with: replacement), path)
    expectTrainingFailure(try .run(bench.arguments("out")), naming: named)
    try expectOnly(["config.json", "data.jsonl", "data.txt"], in: bench.folder)
  }
}

@Test(arguments: [
  ["--rank", "4"], ["--quantize-base", "nf4"], ["--save", "adapter"],
  ["--lora", "--precision", "bfloat16"], ["--lora", "--save", "nothing"],
  ["--optimizer", "adam"], ["--optimizer-bits", "4"],
])
func wrongUsageOfFinetuneEndsWith64(options: [String]) throws {
  try TrainingBench.with { bench in
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
  try TrainingBench.with { bench in
    expectTrainingFailure(try .run(bench.finetune("out") + options), naming: named)
    #expect(!bench.exists("out") && !bench.exists("out.training"))
  }
}
