import ArgumentParser
import Evaluation
import Models
import Text

struct EvalDivergence: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "divergence",
    abstract: "How far a model's predictions are from a baseline's on the same text.",
    discussion: """
      KL is of the model's prediction from the baseline's, in nats per token; delta_nll is the
      model's minus the baseline's on the true tokens, paired token by token.

      Examples:
        pare eval divergence smaller --baseline MODEL --file valid.txt
        pare eval divergence smaller --baseline MODEL --file valid.txt --cache cache \\
          --require 'kl_mean<=0.01'

      The baseline always runs exactly, so a model compared with itself at --activations int8 shows
      what those cost:
        pare eval divergence q4.gguf --baseline q4.gguf --activations int8 --file valid.txt

      JSON keys: kl_mean, kl_standard_error, kl_p50, kl_p90, kl_p99, kl_max, same_top,
      same_top_standard_error, delta_nll, delta_nll_standard_error, nll, baseline_nll, tokens,
      protocol, activations, seconds.
      """)

  @OptionGroup var model: ModelArgument

  @Option(help: "Folder of the model to compare with.", completion: .directory)
  var baseline: String

  @OptionGroup var text: TextOptions

  @OptionGroup var runtime: RuntimeOptions
  @OptionGroup var gates: GateOptions
  @OptionGroup var report: ReportOptions

  static let keys = [
    "kl_mean", "kl_standard_error", "kl_p50", "kl_p90", "kl_p99", "kl_max", "same_top",
    "same_top_standard_error", "delta_nll", "delta_nll_standard_error", "nll", "baseline_nll",
    "tokens", "seconds",
  ]

  func validate() throws { try gates.gates.validate(keys: Self.keys) }

  func run() throws {
    let measured = try Self.measure(
      try runtime.loadForMeasuring(model.model), baseline: try LanguageModel.load(baseline), text,
      cache: runtime.cache)
    let result = measured.divergence
    if report.json {
      try Console.print(measured.json)
    } else {
      let percentiles = [0.5, 0.9, 0.99, 1].map { Format.number(result.klPercentile($0), 5) }
      try Console.print(
        """
        KL         \(Format.withError(result.klMean, result.klStandardError, 6)) nats per token
                   median \(percentiles[0]), 90 % \(percentiles[1]), 99 % \(percentiles[2]), \
        max \(percentiles[3])
        same top   \(Format.withError(result.sameTop * 100, result.sameTopStandardError * 100, 2)) %
        delta nll  \(Format.withError(result.deltaNLL, result.deltaNLLStandardError, 5)) nats per token
        tokens     \(Format.count(result.tokens))
        protocol   \(result.protocolName)
        """)
    }
    try gates.gates.check(measured.json)
  }

  struct Measured {
    var divergence: Divergence
    var json: JSON
  }

  static func measure(
    _ model: LanguageModel, baseline: LanguageModel, _ text: TextOptions, cache: String?
  ) throws -> Measured {
    let prepared = try text.prepare(model)
    let start = ContinuousClock.now
    var reference = BaselineLogits(model: baseline)
    if let cache {
      let progress = ProgressLine("baseline", unit: "tokens")
      reference = try BaselineLogits(
        model: baseline, cachedIn: cache, documents: prepared.documents, textName: text.file,
        protocol: prepared.evaluation, onProgress: { progress.update($0, of: $1) })
    }
    let progress = ProgressLine("comparing", unit: "tokens")
    let result = try Divergence.measure(
      model, baseline: reference, documents: prepared.documents, textName: text.file,
      protocol: prepared.evaluation, onProgress: { progress.update($0, of: $1) })
    progress.finish()
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    return Measured(
      divergence: result,
      json: [
        "kl_mean": JSON(result.klMean), "kl_standard_error": JSON(result.klStandardError),
        "kl_p50": JSON(result.klPercentile(0.5)), "kl_p90": JSON(result.klPercentile(0.9)),
        "kl_p99": JSON(result.klPercentile(0.99)), "kl_max": JSON(result.klPercentile(1)),
        "same_top": JSON(result.sameTop),
        "same_top_standard_error": JSON(result.sameTopStandardError),
        "delta_nll": JSON(result.deltaNLL),
        "delta_nll_standard_error": JSON(result.deltaNLLStandardError),
        "nll": JSON(result.nll), "baseline_nll": JSON(result.nll - result.deltaNLL),
        "tokens": JSON(result.tokens), "protocol": JSON(result.protocolName),
        "activations": JSON(model.activations.rawValue),
        "seconds": JSON(seconds),
      ])
  }
}
