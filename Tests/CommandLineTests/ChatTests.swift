import Foundation
import TestSupport
import Testing
import Text

private func chat(_ arguments: String..., input: String) throws -> PareProcess {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/input"
    try input.write(toFile: path, atomically: false, encoding: .utf8)
    return try PareProcess.run(["chat"] + arguments, shell: "exec < '\(path)'")
  }
}

@Test func aModelWithoutATemplateSaysWhatToDo() throws {
  let result = try chat(Stories.model, input: "Hello\n")
  #expect(result.code == 1)
  #expect(result.errors.contains("no chat template") && result.errors.contains("--template"))
}

@Test func eachLineIsAnsweredWhereStdinIsNoTerminal() throws {
  try withTemporaryDirectory { folder in
    let template = "\(folder)/template.jinja"
    try "{{ bos_token }}{% for m in messages %}{{ m.content }} {% endfor %}".write(
      toFile: template, atomically: false, encoding: .utf8)
    let saved = "\(folder)/saved.json"
    let result = try chat(
      Stories.model, "--template", template, "--temperature", "0", "-n", "8", "--system", "Once",
      input: "upon\\\na time\nThe cat\n\n//slash\n/save \(saved)\n/exit\nnever\n")
    #expect(result.code == 0, "\(result.errors)")
    let messages = try #require(
      try JSON.parse([UInt8](Data(contentsOf: URL(filePath: saved))), name: "saved").array)
    #expect(
      messages.compactMap { $0["role"]?.string }
        == ["system", "user", "assistant", "user", "assistant", "user", "assistant"])
    #expect(messages[0]["content"]?.string == "Once")
    #expect(messages[1]["content"]?.string == "upon\na time")
    #expect(messages[5]["content"]?.string == "/slash")
    // What was printed is what was remembered.
    let answers = messages.filter { $0["role"]?.string == "assistant" }
    #expect(
      result.text == answers.compactMap { $0["content"]?.string.map { $0 + "\n" } }.joined())
    // The first answer is what `run` gives for the rendered text.
    let run = try PareProcess.run(
      "run", Stories.model, "--prompt", "Once upon\na time ", "-n", "8", "--json")
    #expect(try run.json()["text"]?.string == answers[0]["content"]?.string)
  }
}

@Test func theSameSeedGivesTheSameConversation() throws {
  func talk(_ seed: String) throws -> String {
    try chat(
      Stories.model, "--template", "plain", "-n", "12", "--seed", seed, input: "Hi\nAnd now?\n"
    ).text
  }
  #expect(try talk("1") == talk("1"))
  #expect(try talk("1") != talk("2"))
}

@Test func aFullContextLosesTheOldestExchanges() throws {
  let long = String(repeating: "the cat sat on the mat and ", count: 12)
  let input = String(repeating: long + "\n", count: 6)
  let result = try chat(
    Stories.model, "--template", "chatml", "--temperature", "0", "-n", "16", input: input)
  #expect(result.code == 0, "\(result.errors)")
  #expect(result.errors.contains("oldest 2 messages are left out"))
  let tooLong = try chat(
    Stories.model, "--template", "chatml", "-n", "4",
    input: String(repeating: long, count: 10) + "\n")
  #expect(tooLong.code == 1)
  #expect(tooLong.errors.contains("context"))
}

@Test func wrongTemplatesAndCommandsEndInASentence() throws {
  try withTemporaryDirectory { folder in
    let template = "\(folder)/template.jinja"
    try "\n{% if %}".write(toFile: template, atomically: false, encoding: .utf8)
    let broken = try chat(Stories.model, "--template", template, input: "Hi\n")
    #expect(broken.code == 1)
    #expect(broken.errors.contains("line 2"))
    try "{{ raise_exception('no ' ~ messages[0].role) }}".write(
      toFile: template, atomically: false, encoding: .utf8)
    let refused = try chat(Stories.model, "--template", template, input: "Hi\n")
    #expect(refused.code == 1)
    #expect(refused.errors.contains("no user"))
    #expect(refused.text.isEmpty)
  }
  let unknown = try chat(Stories.model, "--template", "plain", input: "/nonsense\n")
  #expect(unknown.code == 1)
  #expect(unknown.errors.contains("/nonsense") && unknown.errors.contains("/help"))
  let absent = try chat(Stories.model, "--template", "absent.jinja", input: "Hi\n")
  #expect(absent.errors.contains("absent.jinja"))
}

@Test func stopStringsEndTheTextAndAreLeftOut() throws {
  let free = try PareProcess.run(
    "run", Stories.model, "--prompt", "Once upon a time", "-n", "40", "--json"
  ).json()
  let text = try #require(free["text"]?.string)
  let stop = String(text.dropFirst(9).prefix(6))
  let stopped = try PareProcess.run(
    "run", Stories.model, "--prompt", "Once upon a time", "-n", "40", "--json", "--stop", stop,
    "--stop", "never there"
  ).json()
  #expect(stopped["stop_reason"]?.string == "stop_string")
  let before = try #require(text.range(of: stop)).lowerBound
  #expect(stopped["text"]?.string == String(text[..<before]))
}

@Test func severalPromptsAreAnsweredAsEachAlone() throws {
  let prompts = ["Once upon a time", "The dog", "Lily and her mom"]
  let options = ["-n", "10", "--temperature", "0.8", "--json"]
  let together = try PareProcess.run(
    ["run", Stories.model, "--seed", "4"] + prompts.flatMap { ["--prompt", $0] } + options
  ).json()
  let sequences = try #require(together["sequences"]?.array)
  #expect(sequences.count == 3)
  for (number, prompt) in prompts.enumerated() {
    let alone = try PareProcess.run(
      ["run", Stories.model, "--prompt", prompt, "--seed", String(4 + number)] + options
    ).json()
    #expect(alone["ids"] == sequences[number]["ids"])
    #expect(alone["text"] == sequences[number]["text"])
  }
  let plain = try PareProcess.run(
    ["run", Stories.model, "-n", "3"] + prompts.flatMap { ["--prompt", $0] })
  #expect(plain.text.hasPrefix("Once upon a time"))
  #expect(plain.text.contains("\n\nThe dog"))
}

@Test func logprobsAreReportedOnRequest() throws {
  let json = try PareProcess.run(
    "run", Stories.model, "--prompt", "Once upon", "-n", "4", "--json", "--logprobs", "2"
  ).json()
  let entries = try #require(json["logprobs"]?.array)
  #expect(entries.count == 4)
  for (entry, id) in zip(entries, json["ids"]?.array ?? []) {
    #expect(entry["id"] == id)
    #expect(entry["top"]?.array?.count == 2)
    // Greedy: the chosen token is the first of the top.
    #expect(entry["top"]?.array?[0]["logprob"] == entry["logprob"])
    #expect((entry["logprob"]?.double ?? 1) <= 0)
  }
  #expect(
    try PareProcess.run("run", Stories.model, "--prompt", "x", "--logprobs", "2").code == 64)
}

@Test func aPromptCacheFileIsMadeReusedAndGuarded() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/prompt.cache"
    func run(_ prompt: String) throws -> PareProcess {
      try PareProcess.run(
        "run", Stories.model, "--prompt", prompt, "-n", "6", "--json", "--prompt-cache", path)
    }
    let first = try run("Once upon a time there was a cat").json()
    #expect(first["reused_tokens"]?.int == 0)
    try expectOnly(["prompt.cache"], in: folder)
    let second = try run("Once upon a time there was a cat").json()
    #expect((second["reused_tokens"]?.int ?? 0) > 3)
    #expect(second["ids"] == first["ids"])
    try "a diary".write(toFile: path, atomically: false, encoding: .utf8)
    let guarded = try run("Once")
    #expect(guarded.code == 1)
    #expect(guarded.errors.contains("no prompt cache"))
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "a diary")
  }
}
