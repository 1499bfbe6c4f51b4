import ArgumentParser
import Foundation
import Recipes
import Text
import Training

/// A training's plan, course and result in words.
enum TrainingText {
  static func plan(_ run: TrainingRun) -> String {
    let settings = run.request.settings
    let (data, memory) = (run.dataSummary, run.memory)
    let seen = settings.steps * settings.batchSize * settings.length
    func megabytes(_ bytes: Int) -> String { String(format: "%.0f MB", Double(bytes) / 1e6) }
    var lines = [
      "parameters   \(run.parameterCount) trained, \(settings.parameterType.rawValue)",
      "data         \(data.documents) documents, \(megabytes(data.bytes)), about "
        + "\(data.estimatedTrainingTokens) tokens, \(data.distinctTokens) different ones in a sample",
      "steps        \(settings.steps) of \(settings.batchSize) × \(settings.length) tokens: \(seen), "
        + String(format: "%.2f passes", Double(seen) / Double(max(data.estimatedTrainingTokens, 1))),
      "memory       about \(megabytes(memory.total)): weights \(megabytes(memory.weightBytes)), "
        + "gradients \(megabytes(memory.gradientBytes)), optimizer "
        + "\(megabytes(memory.optimizerBytes)), activations \(megabytes(memory.activationBytes))",
      "seed         \(settings.seed)",
    ]
    if data.skippedDocuments > 0 {
      lines.append("skipped      \(data.skippedDocuments) documents without text")
    }
    if data.heldOutDocuments > 0 {
      lines.append("held out     \(data.heldOutDocuments) documents")
    }
    return lines.joined(separator: "\n")
  }

  static func planJSON(_ run: TrainingRun) -> JSON {
    let memory = run.memory
    return [
      "trained_parameters": JSON(run.parameterCount),
      "settings": .object(run.request.settings.identity),
      "documents": JSON(run.dataSummary.documents),
      "estimated_training_tokens": JSON(run.dataSummary.estimatedTrainingTokens),
      "distinct_tokens": JSON(run.dataSummary.distinctTokens),
      "estimated_resident_bytes": JSON(memory.total),
      "weight_bytes": JSON(memory.weightBytes), "gradient_bytes": JSON(memory.gradientBytes),
      "optimizer_bytes": JSON(memory.optimizerBytes),
      "activation_bytes": JSON(memory.activationBytes),
    ]
  }

  static func summary(_ report: TrainingReport) -> String {
    var lines = [
      "wrote        \(report.output)",
      // A distillation's loss is a sum of its own making, which has no perplexity.
      String(format: "loss         %.4f", report.loss)
        + (report.command == "distill"
          ? "" : String(format: " nats per token, perplexity %.4g", exp(report.loss))),
    ]
    if let loss = report.heldOutLoss {
      lines.append(
        String(format: "held out     %.4f nats per token, perplexity %.4g", loss, exp(loss)))
    }
    lines.append(
      String(
        format: "trained on   %d tokens in %d steps, %.0f tokens/s, %.1f s", report.tokens,
        report.steps, report.tokensPerSecond, report.seconds))
    if let step = report.resumedFrom { lines.append("resumed      from step \(step)") }
    if let peak = report.peakResidentBytes {
      lines.append(String(format: "peak memory  %.0f MB", Double(peak) / 1e6))
    }
    lines.append("curve        \(report.output)/loss.svg")
    return lines.joined(separator: "\n")
  }
}

/// Runs a training with its progress on stderr and its report on stdout.
enum TrainingCommand {
  /// - Parameters:
  ///   - reports: whether the report is printed: of a chain of runs, the last one's only.
  ///   - train: carries the run out; hands each step on.
  static func run(
    _ run: TrainingRun, _ options: TrainingOptions, reports: Bool = true,
    train: (@escaping (TrainingMetrics) -> Bool) throws -> TrainingReport?
  ) throws {
    if options.dryRun {
      return try options.report.json
        ? Console.print(TrainingText.planJSON(run)) : Console.print(TrainingText.plan(run))
    }
    Console.note(TrainingText.plan(run))
    let progress = ProgressLine("training", unit: "tokens")
    let perStep = run.request.settings.batchSize * run.request.settings.length
    let steps = run.request.settings.steps
    let report = try Interruption.capturing {
      try train { metrics in
        var detail = String(format: "step %d  loss %.4f", metrics.step, metrics.loss)
        if let bytes = metrics.residentBytes {
          detail += String(format: "  %.0f MB", Double(bytes) / 1e6)
        }
        progress.update(
          metrics.step * perStep, of: steps * perStep, detail: detail)
        if let heldOut = metrics.heldOutLoss {
          progress.finish()
          Console.note(
            String(
              format: "step %d  loss %.4f  held out %.4f", metrics.step, metrics.loss, heldOut))
        }
        return !Interruption.isRequested
      }
    }
    progress.finish()
    guard let report else {
      Console.note(
        "Stopped after a checkpoint in \(run.request.workFolder). Go on with --resume.")
      throw ExitCode(130)
    }
    for note in report.notes { Console.note(note) }
    guard reports else { return }
    try options.report.json
      ? Console.print(report.json(withTimings: true)) : Console.print(TrainingText.summary(report))
  }
}
