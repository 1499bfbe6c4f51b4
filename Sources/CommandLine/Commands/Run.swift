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

      At temperature 0, the default, the most probable token is taken each time.

      JSON keys: ids, text, prompt_ids, stop_reason, seconds, seconds_to_first_token,
      tokens_per_second.
      """)

  @OptionGroup var model: ModelArgument

  @Option(name: .shortAndLong, help: "Text to continue; - reads stdin.")
  var prompt: String

  @Option(name: [.customShort("n"), .long], help: "Most tokens to add.")
  var maxTokens = 128

  @Option(help: "0 takes the most probable token; 1 samples as the model predicts.")
  var temperature: Float = 0

  @Option(help: "Sample among the k most probable tokens; 0 takes all.")
  var topK = 0

  @Option(help: "Sample among the fewest tokens that have this probability together.")
  var topP: Float = 1

  @Option(help: "Leave out tokens below this share of the most probable one's probability.")
  var minP: Float = 0

  @Option(help: "Seed of the sampling.")
  var seed: UInt64 = 0

  @OptionGroup var report: ReportOptions

  func validate() throws {
    if maxTokens < 1 { throw ValidationError("--max-tokens must be 1 or more.") }
    if !(temperature >= 0 && temperature.isFinite) {
      throw ValidationError("--temperature must be 0 or more.")
    }
    if topK < 0 { throw ValidationError("--top-k must be 0 or more.") }
    if !(topP > 0 && topP <= 1) { throw ValidationError("--top-p must be above 0, at most 1.") }
    if !(minP >= 0 && minP <= 1) { throw ValidationError("--min-p must be between 0 and 1.") }
  }

  func run() throws {
    let start = ContinuousClock.now
    let model = try model.load()
    let tokenizer = try ModelTokenizer.load(model.checkpoint)
    let text = prompt == "-" ? [UInt8](try TextFile.read("-")) : Array(prompt.utf8)
    let ids = try tokenizer.encode(text)
    var generator = Generator(
      model: model,
      settings: .init(temperature: temperature, topK: topK, topP: topP, minP: minP, seed: seed))
    var decoder = tokenizer.streamingDecoder()
    // Through the same decoder, so that a leading space of the first new token survives.
    for id in ids { _ = try decoder.push(id) }
    var output: [UInt8] = []
    func emit(_ bytes: [UInt8]) throws {
      output += bytes
      if !report.json, !bytes.isEmpty { try Console.write(bytes) }
    }
    try generator.check(prompt: ids)
    if !report.json { try Console.write(text) }
    let result = try generator.generate(prompt: ids, maxTokens: maxTokens) { id in
      try emit(decoder.push(id))
      return true
    }
    try emit(decoder.finish())
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    if report.json {
      try Console.print([
        "ids": .array(result.ids.map { JSON($0) }), "text": .string(output),
        "prompt_ids": .array(ids.map { JSON($0) }), "stop_reason": JSON(result.stopReason.rawValue),
        "seconds": JSON(seconds), "seconds_to_first_token": JSON(result.secondsToFirstToken),
        "tokens_per_second": JSON(result.tokensPerSecond),
      ])
    } else {
      try Console.write([10])
      if Console.isErrorTerminal {
        Console.note(
          "\(result.ids.count) tokens, \(Format.number(result.tokensPerSecond, 1)) per second, "
            + "first after \(Format.number(result.secondsToFirstToken, 2)) s")
      }
    }
  }
}
