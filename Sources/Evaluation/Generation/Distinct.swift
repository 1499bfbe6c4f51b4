/// How varied generated texts are: different runs of `n` words among all runs of the texts together.
/// Li et al. 2016, arXiv:1510.03055, section 5. 1 where nothing repeats; falls with the amount of
/// text, so only equal amounts compare.
public struct Distinct: Sendable, Equatable {
  /// For runs of one, two and three words; 0 where there is none.
  public let ratios: [Double]
  /// Words in all.
  public let words: Int

  public init(_ texts: [String]) {
    let words = texts.map { WordTokenization.mteval13a($0) }
    self.words = words.reduce(0) { $0 + $1.count }
    ratios = (1...3).map { n in
      var grams = NGrams()
      // Runs do not cross from one text to the next.
      for text in words { grams.add(text, n: n) }
      return Double(grams.distinct) / Double(max(grams.total, 1))
    }
  }

  public static let protocolName = "distinct word runs of all texts together, tok:13a, case kept"
}
