import Checkpoints
import Foundation
import TestSupport
import Testing
import Text

// MARK: - Adapters

@Test func adaptersMergedAndApartSayTheSame() throws {
  try TrainingBench.with { bench in
    let options = ["--lora", "--learning-rate", "1e-2", "--target", "attention.*"]
    expectSuccess(try .run(bench.finetune("merged", "--dtype", "float32", steps: 12) + options))
    expectSuccess(try .run(bench.finetune("adapter", "--save", "adapter", steps: 12) + options))
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
  try TrainingBench.with { bench in
    let model = "\(bench.folder)/model.gguf"
    expectSuccess(try .run("convert", Stories.model, "--to", "gguf", "--type", "q4_0", "-o", model))
    expectTrainingFailure(
      try .run(bench.finetune("full", model: model)), naming: "model.gguf", "convert")
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
  try TrainingBench.with { bench in
    try TrainingBench.write(
      """
      {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
      """, "\(bench.folder)/data.jsonl")
    expectTrainingFailure(try .run(bench.finetune("out")), naming: "data.jsonl:1", "chat template")
    #expect(!bench.exists("out.training"))
    expectSuccess(try .run(bench.finetune("out", "--chat-template", "plain")))
  }
}

@Test func adaptersOnCodesTrainMergeAndGoOn() throws {
  try TrainingBench.with { bench in
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
  try TrainingBench.with { bench in
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
  try TrainingBench.with { bench in
    let path = "\(bench.folder)/config.json"
    var text = try String(contentsOfFile: path, encoding: .utf8)
    for (found, replacement) in [
      ("\"hidden_size\": 32", "\"hidden_size\": 320"),
      ("\"intermediate_size\": 64", "\"intermediate_size\": 896"),
      ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 6"),
    ] {
      text = text.replacingOccurrences(of: found, with: replacement)
    }
    try TrainingBench.write(text, path)
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
