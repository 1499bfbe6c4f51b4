/// How much of a reference a generated text repeats. Lin 2004, "ROUGE: A package for automatic
/// evaluation of summaries", as the package `rouge-score` computes it.
public struct ROUGE: Sendable, Equatable {
  public struct Score: Sendable, Equatable {
    public var precision = 0.0
    public var recall = 0.0

    /// Harmonic mean of both.
    public var f1: Double {
      precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0
    }

    public init(precision: Double = 0, recall: Double = 0) {
      self.precision = precision
      self.recall = recall
    }

    /// - Parameters:
    ///   - predicted: units of the generated text.
    ///   - expected: units of the reference.
    init(overlap: Int, predicted: Int, expected: Int) {
      precision = Double(overlap) / Double(max(predicted, 1))
      recall = Double(overlap) / Double(max(expected, 1))
    }
  }

  /// Shared words.
  public var rouge1 = Score()
  /// Shared pairs of neighbouring words.
  public var rouge2 = Score()
  /// The longest common subsequence of words.
  public var rougeL = Score()

  /// One text against its references; for each measure the reference with the highest F1 counts,
  /// the first among equals.
  ///
  /// - Parameter stemmed: compares stems (Porter) instead of words.
  public init(_ prediction: String, references: [String], stemmed: Bool = false) {
    let predicted = WordTokenization.alphanumeric(prediction, stemmed: stemmed)
    let grams = (NGrams(predicted, n: 1), NGrams(predicted, n: 2))
    for (index, reference) in references.enumerated() {
      let expected = WordTokenization.alphanumeric(reference, stemmed: stemmed)
      let scores = (
        Self.score(grams.0, NGrams(expected, n: 1)), Self.score(grams.1, NGrams(expected, n: 2)),
        Score(
          overlap: Self.longestCommonSubsequence(predicted, expected),
          predicted: predicted.count, expected: expected.count)
      )
      if index == 0 || scores.0.f1 > rouge1.f1 { rouge1 = scores.0 }
      if index == 0 || scores.1.f1 > rouge2.f1 { rouge2 = scores.1 }
      if index == 0 || scores.2.f1 > rougeL.f1 { rougeL = scores.2 }
    }
  }

  public static func protocolName(stemmed: Bool) -> String {
    "ROUGE of lower-cased ASCII letters and digits, \(stemmed ? "Porter stems" : "no stemming"), "
      + "best reference by F1, mean over texts (rouge-score)"
  }

  private static func score(_ predicted: NGrams, _ expected: NGrams) -> Score {
    Score(
      overlap: predicted.overlap(expected), predicted: predicted.total, expected: expected.total)
  }

  /// Length of the longest sequence of elements that both have in this order, gaps allowed.
  /// Takes time in the product of the lengths, memory in the shorter of them.
  package static func longestCommonSubsequence<Element: Hashable>(_ a: [Element], _ b: [Element])
    -> Int
  {
    let (outer, inner) = a.count >= b.count ? (a, b) : (b, a)
    // Numbers compare faster than words.
    var numbers: [Element: Int] = [:]
    func number(_ element: Element) -> Int {
      if let known = numbers[element] { return known }
      numbers[element] = numbers.count
      return numbers.count - 1
    }
    let row = inner.map(number)
    // lengths[j + 1]: of the outer elements so far and the first j + 1 inner ones.
    var lengths = [Int](repeating: 0, count: row.count + 1)
    for element in outer.map(number) {
      var diagonal = 0
      for (j, other) in row.enumerated() {
        let above = lengths[j + 1]
        lengths[j + 1] = element == other ? diagonal + 1 : max(above, lengths[j])
        diagonal = above
      }
    }
    return lengths[row.count]
  }
}
