package import Models
package import Tensors

/// What a training makes smaller: turns a batch into numbers to watch and gradients at the
/// parameters.
package protocol Objective {
  /// Computes the loss of a batch and adds its gradients to the parameters'.
  ///
  /// - Parameter model: whose parameters are trained.
  /// - Returns: the loss that the gradients belong to, under `loss`, and whatever else is worth
  ///   watching, each times the context's scale.
  mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double]

  /// Told after the optimizer has changed the parameters.
  /// - Parameter model: with the new parameters, recording nothing.
  mutating func didStep(model: LanguageModel, step: Int)

  /// Tensors of its own that are trained too: projections between a student and its teacher.
  var parameters: [Parameter] { get }

  /// Whatever a later step depends on besides the model, for checkpoints.
  var state: [(name: String, tensor: Tensor)] { get }
  mutating func restore(from state: [String: Tensor]) throws
}

extension Objective {
  package mutating func didStep(model: LanguageModel, step: Int) {}
  package var parameters: [Parameter] { [] }
  package var state: [(name: String, tensor: Tensor)] { [] }
  package mutating func restore(from state: [String: Tensor]) throws {}
}

/// Where in a training an objective is asked.
package struct ObjectiveContext: Sendable {
  /// A factor on every token's loss, so that the batches of one step add up to a mean over the
  /// step's tokens.
  package var scale: Double
  /// Steps done, of how many.
  package var step: Int
  package var steps: Int
  package var seed: UInt64
  /// Whether blocks keep their inputs only.
  package var recomputes: Bool

  package init(
    scale: Double, step: Int = 0, steps: Int = 1, seed: UInt64 = 0, recomputes: Bool = false
  ) {
    self.scale = scale
    self.step = step
    self.steps = steps
    self.seed = seed
    self.recomputes = recomputes
  }
}

/// Predicting the next token of the text.
package struct LanguageModeling: Objective {
  package init() {}

  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    let hidden = try model.hidden(
      tokens: batch.inputs, segments: batch.segments, recomputing: context.recomputes)
    // A head's way back needs its logits only where they are capped.
    let overwriting = model.configuration.head.softCap == nil
    let (sum, gradient) = model.headLoss(hidden, wanted: batch.wantedRows) { rows, logits in
      CrossEntropy.evaluate(
        logits, targets: rows.map { batch.targets[$0] },
        weights: rows.map { batch.weights[$0] * Float(context.scale) }, overwriting: overwriting)
    }
    Tape.backward([(hidden, gradient)])
    return ["loss": sum]
  }

  /// −log p of every token that counts, summed, nats.
  /// - Parameter model: records nothing.
  package static func summedLoss(_ model: LanguageModel, _ batch: TrainingBatch) throws -> Double {
    let hidden = try model.hidden(tokens: batch.inputs, segments: batch.segments)
    let rows = batch.wantedRows
    var sum = 0.0
    for first in stride(from: 0, to: rows.count, by: model.headRows) {
      let chunk = Array(rows[first..<min(first + model.headRows, rows.count)])
      let logits = model.logits(hidden.rows(at: chunk))
      let sums = logits.logSumExpRows()
      for (index, row) in chunk.enumerated() {
        sum += sums[index] - Double(logits.floats[index * logits.columns + batch.targets[row]])
      }
    }
    return sum
  }
}

extension TrainingBatch {
  /// The places whose prediction counts.
  package var wantedRows: [Int] { weights.indices.filter { weights[$0] != 0 } }
}
