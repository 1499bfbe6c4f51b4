import ArgumentParser
import Evaluation
import Models
import Recipes
import Tensors
import Text
import Training

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

      With --teacher-cache the baseline's most probable tokens are kept in a file, far smaller than
      --cache, and the KL is over those and the rest as one (kl_topk, at most the KL):
        pare eval divergence student --baseline TEACHER --teacher-cache teacher.top --file valid.txt
      JSON keys are then kl_topk_mean, kl_topk_standard_error, k, tokens, protocol, seconds.

      JSON keys: kl_mean, kl_standard_error, kl_p50, kl_p90, kl_p99, kl_max, same_top,
      same_top_standard_error, delta_nll, delta_nll_standard_error, nll, baseline_nll, tokens,
      protocol, activations, seconds.
      """)

  @OptionGroup var model: ModelArgument

  @Option(help: "Folder of the model to compare with.", completion: .directory)
  var baseline: String

  @Option(
    help: "Keep the baseline's most probable tokens here, or read them.", completion: .file())
  var teacherCache: String?

  @Option(help: "Tokens that --teacher-cache keeps at each position.")
  var cacheTop = 128

  @OptionGroup var text: TextOptions

  @OptionGroup var runtime: RuntimeOptions
  @OptionGroup var gates: GateOptions
  @OptionGroup var report: ReportOptions

  static let keys = [
    "kl_mean", "kl_standard_error", "kl_p50", "kl_p90", "kl_p99", "kl_max", "same_top",
    "same_top_standard_error", "delta_nll", "delta_nll_standard_error", "nll", "baseline_nll",
    "tokens", "seconds",
  ]
  private static let topKeys = [
    "kl_topk_mean", "kl_topk_standard_error", "k", "tokens", "seconds",
  ]

  func validate() throws {
    try gates.gates.validate(keys: teacherCache == nil ? Self.keys : Self.topKeys)
    if teacherCache != nil, text.stride != nil || text.bos {
      throw ValidationError(
        "--teacher-cache reads documents back to back; leave --stride and --bos out.")
    }
  }

  func run() throws {
    if let teacherCache { return try compareTop(teacherCache) }
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

  private func compareTop(_ cache: String) throws {
    if let threads = runtime.threads { Parallel.threads = threads }
    let start = ContinuousClock.now
    let context = try LanguageModel.load(model.model).configuration.contextLength ?? 2048
    let progress = ProgressLine("comparing", unit: "batches")
    let result = try TopComparison.measure(
      model: model.model, baseline: baseline,
      source: DataSource(path: text.file, format: .text(separator: text.separator)),
      window: text.window ?? min(context, 2048), cache: cache, top: cacheTop,
      onProgress: { progress.update($0, of: 0) })
    progress.finish()
    let json: JSON = [
      "kl_topk_mean": JSON(result.klMean), "kl_topk_standard_error": JSON(result.klStandardError),
      "k": JSON(result.k), "tokens": JSON(result.tokens), "protocol": JSON(result.protocolName),
      "seconds": JSON((ContinuousClock.now - start) / .seconds(1)),
    ]
    try report.json
      ? Console.print(json)
      : Console.print(
        """
        KL top-\(result.k)  \(Format.withError(result.klMean, result.klStandardError, 6)) nats per token
        tokens     \(Format.count(result.tokens))
        protocol   \(result.protocolName)
        """)
    try gates.gates.check(json)
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
