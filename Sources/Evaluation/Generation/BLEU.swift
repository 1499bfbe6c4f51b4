#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// How many of a generated text's word runs, up to four words long, its references have. Papineni et
/// al. 2002, "BLEU: a method for automatic evaluation of machine translation", with sacreBLEU's
/// tokenization and smoothing (Post 2018, arXiv:1804.08771).
public struct BLEU: Sendable, Equatable {
  public static let maximumOrder = 4

  /// What the score is made of; those of several texts add up to those of a corpus.
  public struct Counts: Sendable, Equatable {
    /// Words of the generated text.
    public var predictedLength = 0
    /// Words of the reference whose length is closest, the shorter of two that are equally close.
    public var referenceLength = 0
    /// Runs of 1 … 4 words that a reference has too, each at most as often as the reference that
    /// has it most often.
    public var matches = [Int](repeating: 0, count: maximumOrder)
    public var totals = [Int](repeating: 0, count: maximumOrder)

    public init() {}

    /// - Parameter references: at least one.
    public init(_ prediction: String, references: [String], lowercased: Bool = false) {
      let words = WordTokenization.mteval13a(prediction, lowercased: lowercased)
      let expected = references.map { WordTokenization.mteval13a($0, lowercased: lowercased) }
      predictedLength = words.count
      let lengths = expected.map(\.count)
      referenceLength =
        lengths.min { a, b in
          (abs(a - words.count), a) < (abs(b - words.count), b)
        } ?? 0
      for order in 1...maximumOrder {
        var allowed = NGrams()
        for reference in expected { allowed.formMaximum(NGrams(reference, n: order)) }
        let grams = NGrams(words, n: order)
        matches[order - 1] = grams.overlap(allowed)
        totals[order - 1] = grams.total
      }
    }

    public static func += (sum: inout Counts, other: Counts) { sum.combine(other, +) }

    static func - (sum: Counts, other: Counts) -> Counts {
      var difference = sum
      difference.combine(other, -)
      return difference
    }

    private mutating func combine(_ other: Counts, _ operation: (Int, Int) -> Int) {
      predictedLength = operation(predictedLength, other.predictedLength)
      referenceLength = operation(referenceLength, other.referenceLength)
      for order in matches.indices {
        matches[order] = operation(matches[order], other.matches[order])
        totals[order] = operation(totals[order], other.totals[order])
      }
    }
  }

  /// 0 … 100.
  public let score: Double
  /// Share of matching runs for each length, in percent, after smoothing.
  public let precisions: [Double]
  public let brevityPenalty: Double
  public let counts: Counts

  /// - Parameter effectiveOrder: averages over the run lengths that the text has only. For single
  ///   texts; without it one of fewer than four words scores 0.
  public init(_ counts: Counts, effectiveOrder: Bool = false) {
    self.counts = counts
    let (c, r) = (Double(counts.predictedLength), Double(counts.referenceLength))
    brevityPenalty = c >= r ? 1 : c > 0 ? exp(1 - r / c) : 0
    var precisions = [Double](repeating: 0, count: Self.maximumOrder)
    guard counts.matches.contains(where: { $0 > 0 }) else {
      (score, self.precisions) = (0, precisions)
      return
    }
    // Exponential smoothing: the k-th length without a match counts as 2⁻ᵏ matches.
    var smoothing = 1.0
    var orders = Self.maximumOrder
    for n in 0..<Self.maximumOrder {
      let total = Double(counts.totals[n])
      guard total > 0 else { break }
      if effectiveOrder { orders = n + 1 }
      if counts.matches[n] > 0 {
        precisions[n] = 100 * Double(counts.matches[n]) / total
      } else {
        smoothing *= 2
        precisions[n] = 100 / (smoothing * total)
      }
    }
    let used = precisions.prefix(orders)
    score =
      used.contains(0)
      ? 0 : brevityPenalty * exp(used.reduce(0) { $0 + log($1) } / Double(orders))
    self.precisions = precisions
  }

  /// One text by itself.
  public init(sentence prediction: String, references: [String], lowercased: Bool = false) {
    self.init(
      Counts(prediction, references: references, lowercased: lowercased), effectiveOrder: true)
  }

  /// Standard error of a corpus's score, by leaving out one text after the other (jackknife).
  public static func standardError(_ texts: [Counts]) -> Double {
    guard texts.count > 1 else { return 0 }
    var sum = Counts()
    for text in texts { sum += text }
    let scores = texts.map { BLEU(sum - $0).score }
    let mean = Statistics.mean(scores)
    let squares = scores.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    return (squares * Double(texts.count - 1) / Double(texts.count)).squareRoot()
  }

  /// - Parameter references: how many each text has; nil where they differ.
  public static func protocolName(references: Int?, lowercased: Bool) -> String {
    "BLEU nrefs:\(references.map(String.init) ?? "var")|case:\(lowercased ? "lc" : "mixed")"
      + "|eff:no|tok:13a|smooth:exp (sacreBLEU)"
  }
}
