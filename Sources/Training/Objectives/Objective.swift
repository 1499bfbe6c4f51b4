package import Models
import Tensors

/// What a training makes smaller: turns a batch into numbers to watch and gradients at the
/// parameters.
package protocol Objective {
  /// Computes the loss of a batch and adds its gradients to the parameters'.
  ///
  /// - Parameters:
  ///   - model: whose parameters are trained.
  ///   - scale: a factor on every token's loss, so that the batches of one step add up to a mean
  ///     over the step's tokens.
  /// - Returns: the loss that the gradients belong to, under `loss`, and whatever else is worth
  ///   watching, each scaled in the same way.
  mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, scale: Double, recomputing: Bool
  ) throws -> [String: Double]
}

/// Predicting the next token of the text.
package struct LanguageModeling: Objective {
  package init() {}

  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, scale: Double, recomputing: Bool
  ) throws -> [String: Double] {
    let hidden = try model.hidden(
      tokens: batch.inputs, segments: batch.segments, recomputing: recomputing)
    let wanted = batch.weights.indices.filter { batch.weights[$0] != 0 }
    let (sum, gradient) = model.headLoss(hidden, wanted: wanted) { rows, logits in
      CrossEntropy.evaluate(
        logits, targets: rows.map { batch.targets[$0] },
        weights: rows.map { batch.weights[$0] * Float(scale) })
    }
    Tape.backward([(hidden, gradient)])
    return ["loss": sum]
  }
}
