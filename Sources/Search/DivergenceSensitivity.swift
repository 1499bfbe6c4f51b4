package import Calibration
import Evaluation
package import Models
import Tensors

/// What replacing one matrix costs: KL(model ‖ changed model), mean over tokens, nats.
///
/// The states before each block are kept, so that a change is followed from its own block on only.
package struct DivergenceSensitivity {
  private let model: LanguageModel
  private let batches: [CalibrationSet.Batch]
  /// Inputs of each block and, last, of the final norm, for each batch.
  private var states: [[Tensor]]

  /// Logits of this many positions are compared, evenly spaced.
  private let wanted: [[Int]]

  /// - Parameters:
  ///   - tokens: of the samples that are used, from the first on.
  ///   - positions: whose predictions are compared.
  package init(
    _ model: LanguageModel, _ set: CalibrationSet, tokens: Int = 4096, positions: Int = 1024
  ) throws {
    self.model = model.detached
    var used: [CalibrationSet.Batch] = []
    for batch in set.batches where used.reduce(0, { $0 + $1.tokens.count }) < tokens {
      try model.check(batch.tokens, batch.segments)
      used.append(batch)
    }
    batches = used
    let count = used.reduce(0) { $0 + $1.tokens.count }
    let step = max(1, count / positions)
    wanted = used.map { Array(stride(from: 0, to: $0.tokens.count, by: step)) }
    states = [
      used.map {
        model.embedding($0.tokens, positions: $0.segments.flatMap { 0..<$0.count })
      }
    ]
    for index in model.blocks.indices {
      states.append(pass(self.model.blocks[index], index, states[index]))
    }
  }

  /// Bytes that the states of a model take.
  package static func byteCount(_ configuration: ModelConfiguration, tokens: Int = 4096) -> Int {
    (configuration.blocks.count + 2) * tokens * configuration.hiddenSize * 4
  }

  private func pass(_ block: Block, _ index: Int, _ inputs: [Tensor]) -> [Tensor] {
    zip(batches, inputs).map { batch, x in
      block.forward(x, model.context(of: batch.segments, block: index))
    }
  }

  /// - Parameter blocks: the changed ones by index; the others are the model's.
  package func divergence(_ blocks: [Int: Block]) -> Double {
    guard let first = blocks.keys.min() else { return 0 }
    var changed = states[first]
    for index in first..<model.blocks.count {
      changed = pass(blocks[index] ?? model.blocks[index], index, changed)
    }
    return divergence(from: states[model.blocks.count], to: changed)
  }

  /// With another head or embedding too.
  package func divergence(of other: LanguageModel) -> Double {
    var changed = batches.map {
      other.embedding($0.tokens, positions: $0.segments.flatMap { 0..<$0.count })
    }
    for (index, block) in other.blocks.enumerated() { changed = pass(block, index, changed) }
    return divergence(from: states[model.blocks.count], to: changed, head: other)
  }

  private func divergence(from original: [Tensor], to changed: [Tensor], head: LanguageModel? = nil)
    -> Double
  {
    var (sum, count) = (0.0, 0)
    for (batch, rows) in wanted.enumerated() {
      for start in stride(from: 0, to: rows.count, by: model.headRows) {
        let part = Array(rows[start..<min(start + model.headRows, rows.count)])
        let reference = logits(model, original[batch].rows(at: part))
        let logits = logits(head ?? model, changed[batch].rows(at: part))
        for row in Divergence.compare(logits, reference, targets: part.map { _ in 0 }) {
          sum += row.kl
        }
        count += part.count
      }
    }
    return sum / Double(max(count, 1))
  }

  private func logits(_ model: LanguageModel, _ states: Tensor) -> Tensor {
    model.logits(model.finalNorm?(states) ?? states)
  }
}
