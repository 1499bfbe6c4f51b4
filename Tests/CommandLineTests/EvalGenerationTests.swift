import Foundation
import TestSupport
import Testing
import Text

private func write(_ text: String, _ path: String) throws {
  try text.write(toFile: path, atomically: false, encoding: .utf8)
}

@Test func finishedTextsAreComparedWithTheirReferences() throws {
  try withTemporaryDirectory { folder in
    try write("the cat sat on the mat\n\nanother line\n", "\(folder)/p.txt")
    try write("the cat sat on the mat\nan empty one\nanother line\n", "\(folder)/a.txt")
    try write("a cat sat\nempty\nline\n", "\(folder)/b.txt")
    let result = try PareProcess.run(
      "eval", "generation", "--predictions", "\(folder)/p.txt", "--references", "\(folder)/a.txt",
      "--references", "\(folder)/b.txt", "--json")
    #expect(result.code == 0, "\(result.errors)")
    let json = try result.json()
    // Two of three texts are their reference; the empty one has nothing in common with its own.
    #expect(abs((json["rouge_1_f1"]?.double ?? 0) - 2.0 / 3) < 1e-12)
    #expect(json["texts"]?.int == 3 && json["words"]?.int == 8)
    #expect(json["protocol"]?.string?.contains("nrefs:2") == true)
    #expect(json["teacher_log_likelihood"] == nil && json["tokens"] == nil)

    let table = try PareProcess.run(
      "eval", "generation", "--predictions", "\(folder)/p.txt", "--references", "\(folder)/a.txt",
      "--stem", "--lowercase")
    for words in ["ROUGE-L", "BLEU", "distinct", "Porter", "case:lc"] {
      #expect(table.text.contains(words), "\(table.text)")
    }
  }
}

@Test func aModelContinuesDocumentsAndATeacherJudgesThem() throws {
  try withTemporaryDirectory { folder in
    let file = "\(folder)/texts.jsonl"
    let arguments = [
      "eval", "generation", Stories.model, "--prompts", Stories.text, "--limit", "5",
      "--prompt-tokens", "16", "-n", "12", "--batch-size", "2", "--teacher", Stories.model,
      "--json",
    ]
    let result = try PareProcess.run(arguments + ["-o", file])
    #expect(result.code == 0, "\(result.errors)")
    let json = try result.json()
    #expect(json["texts"]?.int == 5)
    #expect(json["tokens"]?.int == 60 && json["teacher_tokens"]?.int == 60)
    // Greedy text is what the model itself finds likely.
    let likelihood = json["teacher_log_likelihood"]?.double ?? -99
    #expect(likelihood < 0 && likelihood > -2)
    let documented = [
      "rouge_1_f1", "rouge_2_precision", "rouge_l_recall", "rouge_l_f1_standard_error", "bleu",
      "bleu_standard_error", "brevity_penalty", "distinct_1", "distinct_2", "distinct_3", "words",
      "teacher_log_likelihood_standard_error", "tokens_per_second", "seconds",
    ]
    for key in documented { #expect(json[key]?.double != nil, "\(key)") }

    // What was written is read again, to the same scores.
    let again = try PareProcess.run(
      "eval", "generation", "--predictions", file, "--teacher", Stories.model, "--json"
    ).json()
    for key in documented where !key.contains("second") { #expect(again[key] == json[key]) }
    #expect(abs((again["teacher_log_likelihood"]?.double ?? 0) - likelihood) < 0.2)
    #expect(try PareProcess.run(arguments + ["-o", file]).code == 1)

    // The same seed gives the same texts, another one others.
    func texts(_ extra: String...) throws -> [UInt8] {
      let result = try PareProcess.run(arguments + ["-o", file, "--overwrite"] + extra)
      #expect(result.code == 0, "\(result.errors)")
      return try [UInt8](Data(contentsOf: URL(filePath: file)))
    }
    let greedy = try texts()
    let sampled = try texts("--temperature", "1")
    #expect(sampled != greedy)
    #expect(try texts("--temperature", "1") == sampled)
    #expect(try texts("--temperature", "1", "--seed", "7") != sampled)
  }
}

@Test func promptsMayBeRecordsWithReferencesOrWithout() throws {
  try withTemporaryDirectory { folder in
    let file = "\(folder)/prompts.jsonl"
    func run(_ text: String, _ extra: String...) throws -> PareProcess {
      try write(text, file)
      return try .run(
        ["eval", "generation", Stories.model, "--prompts", file, "-n", "4", "--json"] + extra)
    }
    let plain = try run("{\"prompt\":\"Once upon a time\"}\n\n{\"prompt\":\"One day\"}\n")
    #expect(plain.code == 0, "\(plain.errors)")
    #expect(try plain.json()["bleu"] == nil)
    #expect(try plain.json()["texts"]?.int == 2)
    // A gate on what cannot be measured is no success.
    #expect(try run("{\"prompt\":\"Once\"}", "--require", "bleu>=0").code == 64)
    let both = try run(
      "{\"prompt\":\"Once\",\"references\":[\"a\",\"b\"]}\n{\"prompt\":\"One\",\"reference\":\"c\"}"
    )
    #expect(try both.json()["protocol"]?.string?.contains("nrefs:var") == true)
    #expect(try run("{\"prompt\":\"Once\",\"reference\":\"x\"}", "--require", "bleu<=1").code == 0)
    let failed = try run(
      "{\"prompt\":\"Once\",\"reference\":\"x\"}", "--require", "rouge_l_f1>=0.9")
    #expect(failed.code == 3 && failed.errors.contains("rouge_l_f1"))
  }
}

@Test(arguments: [
  ("{\"prompt\":1}", "line 1"), ("{\"prompt\":\"a\"}\nnonsense", "line 2"), ("{}", "\"prompt\""),
  ("", "no text"), ("{\"prompt\":\"a\",\"references\":\"b\"}", "references"),
  ("{\"prompt\":\"a\",\"references\":[1]}", "references"),
  ("{\"prompt\":\"a\",\"reference\":2}", "reference"),
  ("{\"prompt\":\"a\",\"reference\":\"b\"}\n{\"prompt\":\"a\"}", "text 2"),
])
func promptsThatAreNoneAreRefused(content: String, words: String) throws {
  try withTemporaryDirectory { folder in
    try write(content, "\(folder)/prompts.jsonl")
    let result = try PareProcess.run(
      "eval", "generation", Stories.model, "--prompts", "\(folder)/prompts.jsonl", "-n", "2", "-o",
      "\(folder)/out.jsonl")
    #expect(result.code == 1, "\(result.errors)")
    #expect(result.errors.contains(words), "\(result.errors)")
    #expect(result.output.isEmpty && result.errors.split(separator: "\n").count == 1)
  }
}

@Test func textsThatDoNotFitEachOtherAreRefused() throws {
  try withTemporaryDirectory { folder in
    try write("one\ntwo\n", "\(folder)/p.txt")
    try write("one\n", "\(folder)/r.txt")
    try write("too short", "\(folder)/short.txt")
    func refused(_ arguments: String..., naming words: String...) throws {
      let result = try PareProcess.run(["eval", "generation"] + arguments)
      #expect(result.code == 1 && result.output.isEmpty, "\(result.errors)")
      for word in words { #expect(result.errors.contains(word), "\(result.errors)") }
    }
    try refused(
      "--predictions", "\(folder)/p.txt", "--references", "\(folder)/r.txt", naming: "r.txt", "1",
      "2")
    try refused("--predictions", "\(folder)/nowhere", naming: "nowhere")
    try refused(
      Stories.model, "--prompts", "\(folder)/short.txt", naming: "short.txt", "--prompt-tokens")
    try refused(
      "--predictions", "\(folder)/p.txt", "--teacher", "\(folder)/nowhere", naming: "nowhere")
    try refused(
      Stories.model, "--prompts", Stories.text, "--prompt-tokens", "8", "-n", "2", "--limit", "1",
      "-o", "\(folder)/no/such/folder", naming: "no/such")
  }
}

@Test(arguments: [
  [], ["MODEL"], ["--prompts", "x"], ["MODEL", "--predictions", "x"],
  ["MODEL", "--prompts", "x", "--predictions", "y"], ["--predictions", "x", "--batch-size", "0"],
  ["--predictions", "x", "--limit", "0"], ["--predictions", "x", "--temperature=-1"],
  ["--predictions", "x", "--require", "perplexity<=1"], ["--predictions", "x", "--separator", ""],
])
func contradictingInputsEndWith64(arguments: [String]) throws {
  let result = try PareProcess.run(
    ["eval", "generation"] + arguments.map { $0 == "MODEL" ? Stories.model : $0 })
  #expect(result.code == 64, "\(result.errors)")
  #expect(result.output.isEmpty)
}
