import ArgumentParser
import Checkpoints
import Evaluation
import Foundation
import Models
import Recipes
import Text

/// What `quantize` and `compress` share: a recipe is planned, shown or carried out, and reported.
struct CompressionOptions: ParsableArguments {
  @Option(help: "Engine meant to open the result; the plan notes what it could not open.")
  var consumer = Consumer.transformers

  @Flag(help: "Print the plan, one row per tensor, and write nothing.")
  var dryRun = false

  @Option(
    help: "Text on which the result is compared with the original before it appears.",
    completion: .file())
  var evaluate: String?

  @Option(
    help: ArgumentHelp(
      "Memory that a calibrated run may use; activations past it go to disk: 4GB.",
      valueName: "size"),
    transform: ByteSize.parse)
  var memoryLimit: Int?

  @Flag(help: "Go on with an unfinished calibrated run.")
  var resume = false

  @OptionGroup var gates: GateOptions
  @OptionGroup var report: ReportOptions

  private static let keys = [
    "parameters", "bytes", "bits_per_weight", "bits_per_compressed_weight", "seconds",
    "peak_resident_bytes",
  ]

  func validateGates() throws {
    try gates.gates.validate(keys: Self.keys + (evaluate == nil ? [] : EvalDivergence.keys))
    if dryRun, !gates.gates.isEmpty { throw ValidationError("--dry-run has nothing to --require.") }
  }

  func run(_ recipe: Recipe, model: String, output: OutputOptions) throws {
    guard recipe.isOnePass else { return try runPasses(recipe, model: model, output: output) }
    let progress = ProgressLine("quantizing", unit: "MB")
    var recipe = recipe
    var allocation: JSON?
    if recipe.needsAllocation {
      let found = try recipe.allocatingBits(model: model, consumer: consumer) { step in
        progress.update(step.done, of: step.total, scale: 0, detail: step.what)
      }
      progress.finish()
      (recipe, allocation) = (found.recipe, found.report)
    }
    var compression = try Compression(recipe, model: model, consumer: consumer)
    compression.shardByteLimit = output.shardSize
    compression.walkSettings.memoryLimit = memoryLimit
    compression.walkSettings.resumes = resume
    if dryRun {
      let estimate = try compression.estimate()
      try report.json
        ? Console.print(compression.plan.json(with: estimate))
        : Console.print(
          PlanText.table(compression.plan, estimate, calibration: compression.calibrationText))
      return
    }
    if let seconds = try compression.selfWritingSeconds(), let text = compression.calibrationText {
      Console.note("calibration: \(text); at most \(Format.number(seconds, 0)) s to write.")
    }
    compression.allocation = allocation
    let result = try compression.run(
      output: output.output, overwrite: output.overwrite,
      onProgress: { step in
        progress.update(
          step.done, of: step.total, scale: step.isOfBytes ? 1e6 : 0, detail: step.what)
      },
      evaluate: { path in
        progress.finish()
        return try evaluate.map { try measure(path, against: model, on: $0) }
      })
    progress.finish()
    for note in result.notes { Console.note(note) }
    let json = result.json(withTimings: true)
    try report.json ? Console.print(json) : Console.print(PlanText.summary(result))
    try gates.gates.check(Self.flattened(json))
  }

  /// A recipe that cuts or distills besides.
  private func runPasses(_ recipe: Recipe, model: String, output: OutputOptions) throws {
    guard !dryRun, evaluate == nil, gates.gates.isEmpty else {
      throw ValidationError(
        "--dry-run, --evaluate and --require are for recipes that only quantize. Measure the result "
          + "with pare eval divergence.")
    }
    var run = RecipeRun(recipe, model: model)
    run.consumer = consumer
    run.shardByteLimit = output.shardSize
    run.walkSettings.memoryLimit = memoryLimit
    run.walkSettings.resumes = resume
    let progress = ProgressLine("recipe", unit: "steps")
    let result = try Interruption.capturing {
      try run.run(output: output.output, overwrite: output.overwrite) { step in
        switch step {
        case .quantizing(let step):
          progress.update(step.done, of: step.total, scale: 0, detail: step.what)
        case .training(let metrics, let steps):
          progress.update(
            metrics.step, of: steps, detail: String(format: "loss %.4f", metrics.loss))
        }
        return !Interruption.isRequested
      }
    }
    progress.finish()
    guard let result else { throw ExitCode(130) }
    if report.json { return try Console.print(result) }
    try Console.print("wrote        \(output.output)")
    for stage in result["stages"]?.array ?? [] {
      let loss = stage["held_out_loss"]?.double ?? stage["loss"]?.double
      let name = stage["command"]?.string ?? "quantize"
      let detail =
        loss.map { String(format: "loss %.4f", $0) }
        ?? stage["bits_per_weight"]?.double.map { String(format: "%.2f bits per weight", $0) }
        ?? ""
      try Console.print(name.padding(toLength: 13, withPad: " ", startingAt: 0) + detail)
      for note in stage["notes"]?.array ?? [] { Console.note(note.string ?? "") }
    }
  }

  private func measure(_ path: String, against model: String, on file: String) throws -> JSON {
    let text = try TextOptions.parse(["--file", file])
    return try EvalDivergence.measure(
      try LanguageModel.load(path), baseline: try LanguageModel.load(model), text, cache: nil
    ).json
  }

  /// Gates may also name what was measured.
  private static func flattened(_ report: JSON) -> JSON {
    guard var fields = report.object, let measured = report["measurements"]?.object else {
      return report
    }
    for key in measured.keyStrings { fields[key] = measured[key] }
    return .object(fields)
  }
}
