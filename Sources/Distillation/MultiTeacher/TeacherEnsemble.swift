import Tensors
package import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Several teachers as one: their probabilities averaged at each position. Teachers may be of any
/// size and kind that predicts the student's vocabulary; their inner states have no mean.
package final class TeacherEnsemble: Teacher {
  /// How much each teacher counts at a position.
  package enum Weighting: Sendable, Equatable {
    /// As given; nil for all alike.
    case fixed([Double]?)
    /// In proportion to exp(−H/τ) of the entropy H of a teacher's prediction, nats: who is sure
    /// leads.
    case entropy(temperature: Double = 1)
    /// By how well each predicts the true token: (1 − exp(CE_k) / Σ_j exp(CE_j)) / (K − 1) (Zhang
    /// et al. 2022, arXiv:2201.00007, equation 3, with softmax over teachers).
    case likelihood
  }

  private let teachers: [any Teacher]
  package let weighting: Weighting
  private var targets: [Int] = []

  /// - Throws: `badSetting`, `vocabulariesDiffer`.
  package init(_ teachers: [any Teacher], _ weighting: Weighting = .fixed(nil))
    throws(DistillationError)
  {
    try Self.check(teachers)
    switch weighting {
    case .fixed(let weights?):
      guard weights.count == teachers.count, weights.allSatisfy({ $0 >= 0 && $0.isFinite }),
        weights.contains(where: { $0 > 0 })
      else {
        throw .badSetting(
          "the list of teachers' weights", value: "\(weights)",
          expected: "\(teachers.count) numbers of at least 0, one of them above 0")
      }
    case .entropy(let temperature):
      guard temperature > 0, temperature.isFinite else {
        throw .badSetting(
          "the temperature of entropies", value: "\(temperature)", expected: "above 0")
      }
    case .fixed(nil), .likelihood: break
    }
    self.teachers = teachers
    self.weighting = weighting
  }

  /// - Throws: `badSetting` without teachers, `vocabulariesDiffer`.
  static func check(_ teachers: [any Teacher]) throws(DistillationError) {
    guard let first = teachers.first else {
      throw .badSetting("the number of teachers", value: "0", expected: "at least 1")
    }
    for teacher in teachers where teacher.vocabularySize != first.vocabularySize {
      throw .cannotCombine(
        first.vocabularySize, teacher.vocabularySize, use: "several teachers")
    }
  }

  package var vocabularySize: Int { teachers[0].vocabularySize }

  /// - Throws: `noCommonStates` where states are wanted of more than one.
  package func begin(_ batch: TrainingBatch, wanting wish: StateWish) throws -> PassStates? {
    guard wish == .none || teachers.count == 1 else {
      throw DistillationError.noCommonStates(teachers: teachers.count)
    }
    targets = batch.targets
    var states: PassStates?
    for teacher in teachers { states = try teacher.begin(batch, wanting: wish) }
    return states
  }

  /// The logarithm of the averaged probabilities, a row of logits like any other.
  /// - Throws: `partialTeacher` for a teacher that keeps its most probable tokens only.
  package func rows(_ places: [Int]) throws -> TeacherRows {
    let vocabulary = vocabularySize
    let logits = try teachers.map {
      try $0.rows(places).full(vocabulary: vocabulary, "several teachers")
    }
    let normalizers = logits.map { $0.logSumExpRows() }
    let sources = logits.map { Unshared($0.floats) }
    let (weighting, trueTokens) = (weighting, places.map { self.targets[$0] })
    let mixed = withExtendedLifetime(logits) {
      Tensor(shape: [places.count, vocabulary]) { target in
        guard let base = target.baseAddress else { return }
        let target = Unshared(base)
        Parallel.forEach(places.count) { row in
          let rows = sources.indices.map { teacher in
            LogProbabilityRow(
              logits: sources[teacher].value + row * vocabulary, count: vocabulary,
              normalizer: normalizers[teacher][row])
          }
          let weights = weighting.weights(rows, target: trueTokens[row])
          for token in 0..<vocabulary {
            var sum = 0.0
            for (weight, row) in zip(weights, rows) { sum += weight * exp(row[token]) }
            // Finite, so that a loss may multiply it by a probability of zero.
            target.value[row * vocabulary + token] = Float(log(max(sum, .leastNormalMagnitude)))
          }
        }
      }
    }
    return .logits(mixed)
  }
}

/// One teacher's prediction at one position.
private struct LogProbabilityRow {
  let logits: UnsafePointer<Float>
  let count: Int
  let normalizer: Double

  subscript(token: Int) -> Double { Double(logits[token]) - normalizer }

  /// Nats.
  var entropy: Double {
    (0..<count).reduce(0) { sum, token in
      let value = self[token]
      return value == -.infinity ? sum : sum - exp(value) * value
    }
  }
}

extension TeacherEnsemble.Weighting {
  /// Weights that sum to 1.
  fileprivate func weights(_ rows: [LogProbabilityRow], target: Int) -> [Double] {
    switch self {
    case .fixed(let weights):
      let weights = weights ?? rows.map { _ in 1 }
      let total = weights.reduce(0, +)
      return weights.map { $0 / total }
    case .entropy(let temperature):
      return Self.softmax(rows.map { -$0.entropy / temperature })
    case .likelihood:
      guard rows.count > 1 else { return [1] }
      return Self.softmax(rows.map { -$0[target] }).map { (1 - $0) / Double(rows.count - 1) }
    }
  }

  private static func softmax(_ values: [Double]) -> [Double] {
    // A target without any probability has an infinite loss, which takes all.
    let best = values.max() ?? 0
    let powers = values.map { $0 == best ? 1 : exp($0 - best) }
    let total = powers.reduce(0, +)
    return powers.map { $0 / total }
  }
}
