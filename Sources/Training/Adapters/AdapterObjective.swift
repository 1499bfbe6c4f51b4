package import Models
package import Tensors

/// Another objective while whose passes the adapters leave some of their inputs out.
package struct AdapterObjective: Objective {
  private var base: any Objective
  private let dropout: AdapterDropout
  private var step = -1
  /// Batches of this step so far: each leaves out other inputs.
  private var batches: UInt64 = 0

  package init(_ base: any Objective, dropout: AdapterDropout) {
    self.base = base
    self.dropout = dropout
  }

  package mutating func accumulate(
    _ model: LanguageModel, _ batch: TrainingBatch, _ context: ObjectiveContext
  ) throws -> [String: Double] {
    if context.step != step { (step, batches) = (context.step, 0) }
    dropout.pass = (UInt64(context.step) << 20) + batches
    defer { dropout.pass = nil }
    batches += 1
    return try base.accumulate(model, batch, context)
  }

  package mutating func didStep(model: LanguageModel, step: Int) {
    base.didStep(model: model, step: step)
  }

  package var parameters: [Parameter] { base.parameters }
  package var state: [(name: String, tensor: Tensor)] { base.state }
  package mutating func restore(from state: [String: Tensor]) throws {
    try base.restore(from: state)
  }
}
