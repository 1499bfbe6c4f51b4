/// Generated texts against references: ROUGE, BLEU and variety, each with its protocol's name.
public struct GenerationQuality: Sendable {
  /// A generated text and what it is compared with.
  public struct Sample: Sendable, Equatable {
    public var prediction: String
    public var references: [String]

    public init(prediction: String, references: [String]) {
      self.prediction = prediction
      self.references = references
    }
  }

  public struct Settings: Sendable, Equatable {
    /// ROUGE compares Porter stems.
    public var stemmed = false
    /// BLEU ignores case; ROUGE always does.
    public var lowercased = false

    public init(stemmed: Bool = false, lowercased: Bool = false) {
      self.stemmed = stemmed
      self.lowercased = lowercased
    }
  }

  /// Of every text, in order.
  public let rouge: [ROUGE]
  public let bleu: BLEU
  public let bleuStandardError: Double
  public let distinct: Distinct
  /// Metric by metric.
  public let protocolNames: [String]

  /// - Throws: `EvaluationError.noSamples`, `.sampleWithoutReference`.
  public static func measure(
    _ samples: [Sample], settings: Settings = Settings()
  ) throws(EvaluationError) -> GenerationQuality {
    guard !samples.isEmpty else { throw .noSamples }
    if let index = samples.firstIndex(where: { $0.references.isEmpty }) {
      throw .sampleWithoutReference(index + 1)
    }
    var sum = BLEU.Counts()
    let counts = samples.map {
      BLEU.Counts(
        $0.prediction, references: $0.references, lowercased: settings.lowercased)
    }
    for count in counts { sum += count }
    let references = Set(samples.map(\.references.count))
    return GenerationQuality(
      rouge: samples.map {
        ROUGE($0.prediction, references: $0.references, stemmed: settings.stemmed)
      },
      bleu: BLEU(sum), bleuStandardError: BLEU.standardError(counts),
      distinct: Distinct(samples.map(\.prediction)),
      protocolNames: [
        ROUGE.protocolName(stemmed: settings.stemmed),
        BLEU.protocolName(
          references: references.count == 1 ? references.first : nil,
          lowercased: settings.lowercased),
        Distinct.protocolName,
      ])
  }

  /// Mean over texts of one of ROUGE's figures, with its standard error.
  public func mean(_ figure: (ROUGE) -> Double) -> (value: Double, standardError: Double) {
    let values = rouge.map(figure)
    return (Statistics.mean(values), Statistics.standardError(values))
  }
}
