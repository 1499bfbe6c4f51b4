/// What a data set holds, as a plan shows it before training starts.
public struct DataSummary: Sendable, Equatable {
  /// Documents, before long ones are cut; empty ones are not among them.
  public var documents: Int
  /// Documents left out because they hold no text.
  public var skippedDocuments: Int
  /// Documents, and parts of long ones, repetitions counted.
  public var trainingDocuments: Int
  public var heldOutDocuments: Int
  public var bytes: Int
  /// Tokens of an epoch, from the sample.
  public var estimatedTrainingTokens: Int
  public var estimatedHeldOutTokens: Int
  /// The share of tokens whose prediction counts, in the sample.
  public var countedShare: Double
  /// Documents tokenized for the estimates.
  public var sampledDocuments: Int
  public var sampledTokens: Int
  /// Different tokens in the sample.
  public var distinctTokens: Int
  /// The longest document of the sample, in tokens.
  public var longestDocument: Int
}

extension TrainingData {
  /// - Parameter sample: documents to tokenize, spread evenly over all.
  /// - Throws: `TrainingError` for a document that the tokenizer or template refuses.
  public func summary(
    _ encoder: ExampleEncoder, sample: Int = 256
  ) throws(TrainingError) -> DataSummary {
    let count = min(max(sample, 1), distinctDocuments)
    let numbers = (0..<count).map { $0 * distinctDocuments / count }
    var loader = ExampleLoader(self, encoder)
    let examples = try loader.load(numbers)
    let tokens = examples.reduce(0) { $0 + $1.tokens.count }
    let counted = examples.reduce(0) { $0 + $1.counts.dropFirst().count { $0 } }
    let perDocument = Double(tokens) / Double(count)
    return DataSummary(
      documents: wholeDocuments, skippedDocuments: skippedDocuments,
      trainingDocuments: self.count(.training), heldOutDocuments: self.count(.heldOut),
      bytes: bytes,
      estimatedTrainingTokens: Int((perDocument * Double(self.count(.training))).rounded()),
      estimatedHeldOutTokens: Int((perDocument * Double(self.count(.heldOut))).rounded()),
      countedShare: Double(counted) / Double(max(tokens, 1)), sampledDocuments: count,
      sampledTokens: tokens, distinctTokens: Set(examples.flatMap(\.tokens)).count,
      longestDocument: examples.map(\.tokens.count).max() ?? 0)
  }
}
