import Checkpoints
import Foundation
import Models
import Quantization
import Text
import Tokenizers

extension RotateStage {
  /// - Returns: what was done, for the report.
  func run(
    model: String, output: String, overwrite: Bool, seed: UInt64, shardByteLimit: Int,
    onProgress: (Compression.Progress) throws -> Void
  ) throws -> JSON {
    let settings = settings(recipeSeed: seed)
    var losses: [Double] = []
    let learned = try learning.map { learning in
      try learn(learning, model, settings) { step, loss in
        losses.append(loss)
        try onProgress(
          .init(
            what: "learning rotations, loss \(loss)", done: step, total: learning.steps,
            isOfBytes: false)
        )
      }
    }
    var run = try RotationRun(model: model, settings: settings, dtype: dtype, learned: learned)
    run.shardByteLimit = shardByteLimit
    try run.run(output: output, overwrite: overwrite, onProgress: onProgress)
    guard case .object(var report) = run.json(output: output) else { return .null }
    if let first = losses.first, let last = losses.last {
      report["first_loss"] = JSON(first)
      report["last_loss"] = JSON(last)
    }
    return .object(report)
  }

  private func learn(
    _ learning: Learning, _ path: String, _ settings: QuaRot,
    _ onStep: (Int, Double) throws -> Void
  ) throws -> LearnedRotations {
    let model = try LanguageModel.load(path)
    let configuration = model.configuration
    let needed = SpinQuant.memoryBytes(configuration, tokens: learning.batch * learning.length)
    if let limit = learning.memoryLimit, needed > limit {
      throw RecipeError.contradiction(
        "learning rotations takes about \(needed / 1_000_000) MB, more than memory_limit_mb; lower "
          + "batch_size or length, or use method: quarot, which holds one tensor at a time",
        line: line)
    }
    let text: Data
    do {
      text = try Data(contentsOf: URL(filePath: learning.data))
    } catch {
      throw RecipeError.unreadable(path: learning.data, reason: error.localizedDescription)
    }
    let tokens = try TrainingRun.tokenizer(model.checkpoint)
      .encode([UInt8](text), addSpecialTokens: false)
    let texts = try TextWindows(samples: learning.samples, length: learning.length)
      .cut(tokens, configuration)
    let batches = stride(from: 0, to: texts.count, by: learning.batch).map { first in
      let part = texts[first..<min(first + learning.batch, texts.count)]
      var segments: [Range<Int>] = []
      for text in part {
        let start = segments.last?.upperBound ?? 0
        segments.append(start..<(start + text.count))
      }
      return (tokens: part.flatMap { $0 }, segments: segments)
    }
    var method = SpinQuant()
    method.start = settings
    method.steps = learning.steps
    method.learningRate = Float(learning.learningRate)
    return try method.learn(
      model, batches: batches, codec: { learning.codec(inputs: $0.inputs) }, onStep: onStep)
  }
}
