package import Training

extension TrainingBatch {
  /// What a model may be asked to continue in this batch.
  ///
  /// Of an instruction: all before the first token that counts. Of a text, which counts from its
  /// start: its first tokens, at most half of it.
  ///
  /// - Parameter longest: prompts of more tokens are left out.
  /// - Returns: the prompts of the first segments that have one.
  package func prompts(_ settings: ContinuationSettings, longest: Int = .max) -> [[Int]] {
    var prompts: [[Int]] = []
    for segment in segments where prompts.count < settings.prompts ?? rows {
      guard segment.count > 1, let first = segment.first(where: { weights[$0] != 0 }) else {
        continue
      }
      let end =
        first > segment.lowerBound
        ? first + 1 : segment.lowerBound + min(settings.promptTokens, (segment.count + 1) / 2)
      guard end - segment.lowerBound <= longest else { continue }
      prompts.append(Array(inputs[segment.lowerBound..<end]))
    }
    return prompts
  }

  /// How much the batch counts in all.
  var weight: Double { weights.reduce(0.0) { $0 + Double($1) } }
}

extension ObjectiveContext {
  /// For a batch that takes the place of another: its tokens count together as the other's would.
  func replacing(_ batch: TrainingBatch, by other: TrainingBatch) -> ObjectiveContext {
    var context = self
    context.scale = scale * batch.weight / other.weight
    return context
  }
}
