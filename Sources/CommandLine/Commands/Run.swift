import ArgumentParser
import Foundation
import Models
import Runtime
import Text
import Tokenizers

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Continue a text.",
    discussion: """
      Examples:
        pare run MODEL --prompt "Once upon a time"
        pare run MODEL --prompt "Once upon a time" --temperature 0.8 --top-p 0.95 --seed 1
        pare run MODEL --prompt "The capital of France is" --max-tokens 8 --json
        pare run MODEL --prompt "Once" --prompt "There was" --stop "."
        pare run MODEL --prompt - --prompt-cache long.cache < long.txt

      At temperature 0, the default, the most probable token is taken each time. Several prompts
      are continued together, each weight read once for all; the second has the seed after the
      first's, and so on.

      Generation ends at the model's end token, a --stop text, --max-tokens or the context's end;
      the context is not shifted.

      --prompt-cache keeps the prompt's keys and values in a file and reuses what the next prompt
      has in common with them. A cache of another model or a damaged one is made anew, with a
      note; a file that is no prompt cache is left alone.

      JSON keys: ids, text, prompt_ids, stop_reason, seconds, seconds_to_first_token,
      tokens_per_second, reused_tokens with --prompt-cache, logprobs with --logprobs (of the
      model itself, before temperature and penalties); with several prompts sequences, each with
      these keys, and seconds.
      """)

  @OptionGroup var model: ModelArgument

  @Option(
    name: .shortAndLong, parsing: .unconditionalSingleValue,
    help: "Text to continue; - reads stdin. May be repeated.")
  var prompt: [String]

  @Option(name: [.customShort("n"), .long], help: "Most tokens to add.")
  var maxTokens = 128

  @Option(help: "0 takes the most probable token; 1 samples as the model predicts.")
  var temperature: Float = 0

  @OptionGroup var sampling: SamplingOptions

  @Option(
    help: ArgumentHelp(
      "Note each token's log-probability and those of the n most probable ones; needs --json.",
      valueName: "n"))
  var logprobs: Int?

  @Option(help: "File that keeps the prompt's keys and values.", completion: .file())
  var promptCache: String?

  @Option(help: "Folder of a PEFT adapter to multiply into the model.", completion: .directory)
  var adapter: String?

  @OptionGroup var runtime: RuntimeOptions
  @OptionGroup var report: ReportOptions

  func validate() throws {
    if maxTokens < 1 { throw ValidationError("--max-tokens must be 1 or more.") }
    try Temperature.check(temperature)
    if let logprobs {
      if logprobs < 0 || logprobs > 1000 {
        throw ValidationError("--logprobs must be between 0 and 1000.")
      }
      if !report.json { throw ValidationError("--logprobs needs --json.") }
    }
    if adapter != nil, promptCache != nil || runtime.cache != nil {
      throw ValidationError("Caches are of a model without adapters; leave them or --adapter out.")
    }
    if promptCache != nil, runtime.kvCache == .int4 {
      throw ValidationError(
        "--prompt-cache cannot keep int4 keys and values, of which the newest are exact for a time. "
          + "Use --kv-cache int8.")
    }
    if prompt.count > 1, promptCache != nil {
      throw ValidationError("--prompt-cache is for one --prompt.")
    }
    if prompt.count(where: { $0 == "-" }) > 1 {
      throw ValidationError("Only one --prompt can be -.")
    }
  }

  func run() throws {
    let start = ContinuousClock.now
    let model = try runtime.loadForUse(model.model, adapter: adapter)
    let tokenizer = try ModelTokenizer.load(model.checkpoint)
    let texts = try prompt.map { $0 == "-" ? [UInt8](try TextFile.read("-")) : Array($0.utf8) }
    let prompts = try texts.map { try tokenizer.encode($0) }
    var generator = Generator(model: model, settings: sampling.settings(temperature: temperature))
    generator.logProbabilities = logprobs
    for prompt in prompts { try generator.check(prompt: prompt) }
    if prompts.count == 1 {
      try runOne(&generator, tokenizer, texts[0], prompts[0], start)
    } else {
      try runAll(generator, tokenizer, texts, prompts, start)
    }
  }

  private func runOne(
    _ generator: inout Generator, _ tokenizer: Tokenizer, _ text: [UInt8], _ ids: [Int],
    _ start: ContinuousClock.Instant
  ) throws {
    var stream = try TextStream(tokenizer, after: ids, stops: sampling.stops)
    func emit(_ bytes: [UInt8]) throws {
      if !report.json, !bytes.isEmpty { try Console.write(bytes) }
    }
    let cache = try promptCache.map {
      try PromptCache.open(
        $0, model: generator.model,
        plannedLength: generator.plannedLength(prompt: ids, maxTokens: maxTokens))
    }
    if let note = cache?.note { Console.note("note: \(note)") }
    let isCached = cache.map { $0.prefix.tokens.starts(with: ids) } ?? true
    if !report.json { try Console.write(text) }
    var result = try generator.generate(prompt: ids, maxTokens: maxTokens, prefix: cache?.prefix) {
      try emit(stream.push($0))
      return !stream.isStopped
    }
    try emit(stream.finish())
    result = result.stopped(by: stream)
    if let cache, !isCached {
      try PromptCache.save(
        cache.prefix, tokens: ids.count, model: generator.model, to: cache.path)
    }
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    if report.json {
      var json = try summary(result, stream.text, ids, tokenizer)
      json["seconds"] = JSON(seconds)
      try Console.print(.object(json))
      return
    }
    try Console.write([10])
    if Console.isErrorTerminal {
      Console.note(
        "\(result.ids.count) tokens, \(Format.number(result.tokensPerSecond, 1)) per second, "
          + "first after \(Format.number(result.secondsToFirstToken, 2)) s")
    }
  }

  private func runAll(
    _ generator: Generator, _ tokenizer: Tokenizer, _ texts: [[UInt8]], _ prompts: [[Int]],
    _ start: ContinuousClock.Instant
  ) throws {
    var streams = try prompts.map {
      try TextStream(tokenizer, after: $0, stops: sampling.stops)
    }
    let settings = prompts.indices.map {
      sampling.settings(temperature: temperature, seed: sampling.seed &+ UInt64($0))
    }
    var results = try generator.generate(prompts: prompts, settings: settings, maxTokens: maxTokens)
    { number, id in
      _ = try streams[number].push(id)
      return !streams[number].isStopped
    }
    for number in streams.indices {
      _ = streams[number].finish()
      results[number] = results[number].stopped(by: streams[number])
    }
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    if report.json {
      var sequences: [JSON] = []
      for (number, result) in results.enumerated() {
        sequences.append(
          .object(try summary(result, streams[number].text, prompts[number], tokenizer)))
      }
      try Console.print(["sequences": .array(sequences), "seconds": JSON(seconds)])
      return
    }
    for (number, stream) in streams.enumerated() {
      try Console.write((number > 0 ? [10] : []) + texts[number] + stream.text + [10])
    }
  }

  private func summary(
    _ result: Generator.Result, _ text: [UInt8], _ prompt: [Int], _ tokenizer: Tokenizer
  ) throws -> JSONObject {
    var json = JSONObject([
      ("ids", .array(result.ids.map { JSON($0) })), ("text", .string(text)),
      ("prompt_ids", .array(prompt.map { JSON($0) })),
      ("stop_reason", JSON(result.stopReason.rawValue)),
      ("seconds_to_first_token", JSON(result.secondsToFirstToken)),
      ("tokens_per_second", JSON(result.tokensPerSecond)),
    ])
    if promptCache != nil { json["reused_tokens"] = JSON(result.reusedTokens) }
    if logprobs != nil {
      func entry(_ entry: LogProbabilities.Entry) -> JSONObject {
        JSONObject([
          ("id", JSON(entry.id)), ("token", .string(tokenizer.token(entry.id) ?? [])),
          ("logprob", JSON(entry.logProbability)),
        ])
      }
      json["logprobs"] = .array(
        result.logProbabilities.map { probabilities in
          var json = entry(probabilities.chosen)
          json["top"] = .array(probabilities.top.map { .object(entry($0)) })
          return .object(json)
        })
    }
    return json
  }
}
