/// A document as a model learns it.
public struct TrainingExample: Sendable, Equatable {
  public var tokens: [Int]
  /// Whether predicting this token counts; the first token has nothing to be predicted from.
  public var counts: [Bool]

  public init(tokens: [Int], counts: [Bool]) {
    precondition(tokens.count == counts.count)
    self.tokens = tokens
    self.counts = counts
  }

  /// Predictions of one token from those before it.
  var predictions: Int { max(tokens.count - 1, 0) }

  /// The tokens before the first that counts: what a model is asked to continue. Empty for a text.
  public var prompt: ArraySlice<Int> {
    tokens[..<(counts.firstIndex(of: true) ?? tokens.count)]
  }
}
