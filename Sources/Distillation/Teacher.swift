package import Models
package import Tensors
package import Training

/// What a student learns from: for each batch its own states and, some rows at a time, its
/// predictions.
package protocol Teacher: AnyObject {
  var vocabularySize: Int { get }

  /// Takes the batch whose rows are asked for next.
  /// - Parameter wanting: whether inner states are asked for, and attention among them.
  /// - Returns: the states, if wanted.
  func begin(_ batch: TrainingBatch, wanting: StateWish) throws -> PassStates?

  /// Predictions at some places of the batch.
  func rows(_ places: [Int]) throws -> TeacherRows
}

package enum StateWish: Sendable, Comparable {
  case none, states, attention
}

/// A model as teacher.
package final class ModelTeacher: Teacher {
  /// Records nothing.
  package let model: LanguageModel
  private var hidden: Tensor?

  package init(_ model: LanguageModel) { self.model = model.detached }

  package var vocabularySize: Int { model.configuration.vocabularySize }

  package func begin(_ batch: TrainingBatch, wanting wish: StateWish) throws -> PassStates? {
    let (hidden, states) = try model.states(batch, wanting: wish, recomputing: false)
    self.hidden = hidden
    return wish == .none ? nil : states
  }

  package func rows(_ places: [Int]) throws -> TeacherRows {
    guard let hidden else { preconditionFailure("a batch begins before its rows are asked for") }
    return .logits(model.logits(hidden.rows(at: places)))
  }
}

extension LanguageModel {
  /// One pass over a batch, with the states that losses compare.
  package func states(_ batch: TrainingBatch, wanting wish: StateWish, recomputing: Bool) throws
    -> (hidden: Tensor, states: PassStates)
  {
    var states = PassStates()
    var observer = PassObserver()
    if wish >= .states {
      observer.onEmbedding = { states.embedding = $0 }
      observer.onBlock = { states.blocks.append($1) }
    }
    if wish == .attention {
      observer.onAttention = { block, queries, keys, values in
        let attention = self.blocks[block].configuration.attention
        states.attention.append(
          .init(
            queries: queries, keys: keys, values: values, heads: attention.heads,
            keyValueHeads: attention.keyValueHeads))
      }
    }
    let hidden = try hidden(
      tokens: batch.inputs, segments: batch.segments, recomputing: recomputing, observer: observer)
    states.final = hidden
    return (hidden, states)
  }
}
