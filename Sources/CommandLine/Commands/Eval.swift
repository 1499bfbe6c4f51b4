import ArgumentParser
import Evaluation
import Models
import Text

struct Eval: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure a model on a text.",
    subcommands: [EvalPerplexity.self, EvalDivergence.self, EvalGeneration.self])
}

struct EvalPerplexity: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "perplexity",
    abstract: "Perplexity of a text, with its error and its protocol.",
    discussion: """
      Examples:
        pare eval perplexity MODEL --file valid.txt
        pare eval perplexity MODEL --file wiki.test.raw --window 2048 --stride 512
        pare eval perplexity MODEL --file stories.txt --documents --bos --require 'perplexity<=4'

      Perplexities compare only under the same protocol, which is printed with them.

      What a smaller cache of keys and values costs:
        pare eval perplexity MODEL --file valid.txt --kv-cache int4 --kv-window 32

      JSON keys: perplexity, perplexity_standard_error, nll, nll_standard_error (nats per token),
      tokens, bits_per_byte, protocol, activations, kv_cache, kv_cache_bytes_per_token (of a long
      text), seconds, tokens_per_second.
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup var text: TextOptions
  @OptionGroup var runtime: RuntimeOptions
  @OptionGroup var gates: GateOptions
  @OptionGroup var report: ReportOptions

  private func window(of model: LanguageModel) -> String {
    model.cacheType == .int4 ? ", the newest \(model.cacheWindow) tokens float16" : ""
  }

  static let keys = [
    "perplexity", "perplexity_standard_error", "nll", "nll_standard_error", "tokens",
    "bits_per_byte", "seconds", "tokens_per_second",
  ]

  func validate() throws { try gates.gates.validate(keys: Self.keys) }

  func run() throws {
    let model = try runtime.loadForMeasuring(model.model)
    let prepared = try text.prepare(model)
    let progress = ProgressLine("scoring", unit: "tokens")
    let start = ContinuousClock.now
    let result = try Perplexity.measure(
      model, documents: prepared.documents, textBytes: prepared.bytes, textName: text.file,
      protocol: prepared.evaluation, onProgress: { progress.update($0, of: $1) })
    progress.finish()
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    let json: JSON = [
      "perplexity": JSON(result.perplexity),
      "perplexity_standard_error": JSON(result.perplexityStandardError),
      "nll": JSON(result.nll), "nll_standard_error": JSON(result.nllStandardError),
      "tokens": JSON(result.tokens), "bits_per_byte": JSON(result.bitsPerByte),
      "protocol": JSON(result.protocolName), "activations": JSON(model.activations.rawValue),
      "kv_cache": JSON(model.cacheType.rawValue),
      "kv_cache_bytes_per_token": JSON(model.cacheBytesPerToken),
      "seconds": JSON(seconds),
      "tokens_per_second": JSON(Double(result.tokens) / seconds),
    ]
    if report.json {
      try Console.print(json)
    } else {
      let (value, error) = (result.perplexity, result.perplexityStandardError)
      try Console.print(
        """
        perplexity     \(Format.withError(value, error, 4))
        nll            \(Format.withError(result.nll, result.nllStandardError, 5)) nats per token
        bits per byte  \(Format.number(result.bitsPerByte, 4))
        tokens         \(Format.count(result.tokens)) scored, \
        \(Format.number(Double(result.tokens) / seconds, 0)) per second
        protocol       \(result.protocolName); \(model.activations.rawValue) activations
        cache          \(model.cacheType.rawValue), \
        \(Format.number(model.cacheBytesPerToken, 0)) bytes per token\(window(of: model))
        """)
    }
    try gates.gates.check(json)
  }
}
