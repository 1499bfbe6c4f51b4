package import Tensors

/// Makes hidden states of a student like those of a teacher, through learned projections where the
/// widths differ.
///
/// FitNets (Romero et al. 2015, arXiv:1412.6550, eq. 3), TinyBERT's hidden and embedding losses
/// (Jiao et al. 2020, arXiv:1909.10351, eqs. 8 and 9), the cosine loss of DistilBERT (Sanh et al.
/// 2019, arXiv:1910.01108, section 3), MobileBERT's feature map transfer (Sun et al. 2020,
/// arXiv:2004.02984, section 3.4). The value is a mean over pairs of states, rows and channels,
/// where some of the papers sum over layers.
package struct HiddenStateLoss: StateLoss {
  package enum Measure: String, Sendable, Equatable, CaseIterable {
    /// Mean of squared differences.
    case squaredError = "mse"
    /// The same after both states' rows are given mean 0 and variance 1, so that layers of
    /// different sizes count alike.
    case normalizedSquaredError = "normalized-mse"
    /// 1 − cos of the two rows.
    case cosine
  }

  package struct Settings: Sendable, Equatable {
    package var measure: Measure
    /// nil: no blocks.
    package var layers: LayerMap?
    package var comparesEmbeddings: Bool
    /// The states after the final norm.
    package var comparesFinal: Bool
    /// One projection for all blocks, instead of one for each pair. Embeddings have their own.
    package var sharesProjection: Bool
    /// Of the projections' first values.
    package var seed: UInt64

    package init(
      measure: Measure = .squaredError, layers: LayerMap? = .uniform,
      comparesEmbeddings: Bool = false, comparesFinal: Bool = false,
      sharesProjection: Bool = false, seed: UInt64 = 0
    ) {
      self.measure = measure
      self.layers = layers
      self.comparesEmbeddings = comparesEmbeddings
      self.comparesFinal = comparesFinal
      self.sharesProjection = sharesProjection
      self.seed = seed
    }

    /// A hint from the middle of the teacher.
    package static let fitNets = Settings(layers: .middle)
    /// Embeddings and uniformly mapped layers, one projection for the layers.
    package static let tinyBERT = Settings(comparesEmbeddings: true, sharesProjection: true)
    /// Directions of the last states.
    package static let distilBERT = Settings(
      measure: .cosine, layers: nil, comparesFinal: true)
    /// Layer by layer, normalized.
    package static let mobileBERT = Settings(measure: .normalizedSquaredError)
  }

  private struct Comparison {
    var student: StatePlace
    var teacher: StatePlace
    /// `[teacher's width, student's width]`; nil where the widths agree.
    var projection: Parameter?
  }

  package let name: String
  package let needsAttention = false
  package let settings: Settings
  private let comparisons: [Comparison]

  /// - Parameters:
  ///   - name: also the beginning of the projections' names.
  /// - Throws: `layerOutOfRange`, `noLayers` for a map that does not fit the models, or settings
  ///   that compare nothing.
  package init(
    _ settings: Settings, student: StateShape, teacher: StateShape, name: String = "hidden"
  ) throws(DistillationError) {
    self.name = name
    self.settings = settings
    var random = Xoshiro256(seed: settings.seed)
    func projection(_ label: String) -> Parameter? {
      guard student.width != teacher.width else { return nil }
      // Keeps the variance of what passes.
      let deviation = 1 / Double(student.width).squareRoot()
      let values = (0..<student.width * teacher.width).map { _ in
        Float(deviation * random.normal())
      }
      return Parameter(
        name: "\(name).projection.\(label)",
        initial: Tensor(values, shape: [teacher.width, student.width]), decays: true,
        isBlockMatrix: false)
    }
    var comparisons: [Comparison] = []
    if settings.comparesEmbeddings {
      comparisons.append(
        Comparison(
          student: .embedding, teacher: .embedding, projection: projection("embedding")))
    }
    if let layers = settings.layers {
      let shared = settings.sharesProjection ? projection("blocks") : nil
      for pair in try layers.pairs(student: student.layers, teacher: teacher.layers) {
        comparisons.append(
          Comparison(
            student: .block(pair.student), teacher: .block(pair.teacher),
            projection: settings.sharesProjection
              ? shared : projection("\(pair.student)-\(pair.teacher)")))
      }
    }
    if settings.comparesFinal {
      comparisons.append(
        Comparison(student: .final, teacher: .final, projection: projection("final")))
    }
    guard !comparisons.isEmpty else {
      throw .badSetting(
        name, value: "nothing", expected: "layers, embeddings or final states to compare")
    }
    self.comparisons = comparisons
  }

  package var parameters: [Parameter] {
    var seen: Set<ObjectIdentifier> = []
    return comparisons.compactMap(\.projection).filter {
      seen.insert(ObjectIdentifier($0)).inserted
    }
  }

  package func value(
    student: PassStates, teacher: PassStates, segments: [Range<Int>], weights: [Float]
  ) throws -> Tensor {
    guard let rows = RowShares(weights) else { return .noLoss }
    let shares = rows.of(0..<weights.count, times: 1 / Double(comparisons.count))
    var sum: Tensor?
    for comparison in comparisons {
      var state = try student.state(at: comparison.student)
      let target = try teacher.state(at: comparison.teacher).detached
      if let projection = comparison.projection {
        guard projection.shape[1] == state.columns else {
          throw DistillationError.widthsDiffer(
            student: state.columns, teacher: target.columns, of: "hidden states")
        }
        state = state.multiplied(byTransposeOf: projection.tensor)
      }
      guard state.columns == target.columns else {
        throw DistillationError.widthsDiffer(
          student: state.columns, teacher: target.columns, of: "hidden states")
      }
      let value = compared(state, target, shares)
      sum = sum.map { $0 + value } ?? value
    }
    return sum ?? .noLoss
  }

  private func compared(_ state: Tensor, _ target: Tensor, _ shares: [Float]) -> Tensor {
    switch settings.measure {
    case .squaredError: state.squaredError(to: target, weights: shares)
    case .normalizedSquaredError:
      state.layerNormalized(weight: nil, bias: nil, epsilon: 1e-6).squaredError(
        to: target.layerNormalized(weight: nil, bias: nil, epsilon: 1e-6), weights: shares)
    case .cosine: state.cosineError(to: target, weights: shares)
    }
  }
}
