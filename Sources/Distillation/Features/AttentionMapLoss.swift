package import Tensors

/// Makes a student attend to what its teacher attends to, layer by layer.
///
/// TinyBERT (Jiao et al. 2020, arXiv:1909.10351, eq. 7) compares scores before the softmax by their
/// squared difference, MobileBERT (Sun et al. 2020, arXiv:2004.02984, section 3.4) distributions by
/// their divergence. A decoder's row sees the tokens up to its own; the value is a mean over
/// layers, heads and rows, each row's over the columns that it sees.
///
/// Matrices `[tokens, tokens]` exist for one head of one text at a time, or for all heads of one
/// text where heads are averaged.
package struct AttentionMapLoss: StateLoss {
  package enum Measure: String, Sendable, Equatable, CaseIterable {
    /// Squared differences of scores before the softmax.
    case scores = "mse-scores"
    /// Squared differences of probabilities.
    case probabilities = "mse"
    /// KL(teacher ‖ student).
    case divergence = "kl"
  }

  package enum Heads: String, Sendable, Equatable, CaseIterable {
    /// Head by head; refused where their numbers differ.
    case matched
    /// The mean map of all heads.
    case averaged
  }

  package struct Settings: Sendable, Equatable {
    package var measure: Measure
    package var layers: LayerMap
    package var heads: Heads

    package init(
      measure: Measure = .divergence, layers: LayerMap = .uniform, heads: Heads = .matched
    ) {
      self.measure = measure
      self.layers = layers
      self.heads = heads
    }

    package static let tinyBERT = Settings(measure: .scores)
    package static let mobileBERT = Settings(measure: .divergence)
  }

  package let name: String
  package let needsAttention = true
  package let parameters: [Parameter] = []
  package let settings: Settings
  private let pairs: [LayerPair]

  /// - Throws: `layerOutOfRange`, `noLayers` for a map that does not fit the models.
  package init(
    _ settings: Settings, student: StateShape, teacher: StateShape,
    name: String = "attention"
  ) throws(DistillationError) {
    self.name = name
    self.settings = settings
    pairs = try settings.layers.pairs(student: student.layers, teacher: teacher.layers)
  }

  package func value(
    student: PassStates, teacher: PassStates, segments: [Range<Int>], weights: [Float]
  ) throws -> Tensor {
    guard let rows = RowShares(weights) else { return .noLoss }
    let segments = rows.counted(segments)
    var sum: Tensor?
    for pair in pairs {
      let layer = MapComparison(
        student: try student.attention(of: pair.student),
        teacher: try teacher.attention(of: pair.teacher), measure: settings.measure,
        segments: segments, rows: rows, factor: 1 / Double(pairs.count))
      let value =
        switch settings.heads {
        case .matched: try layer.headByHead(loss: name)
        case .averaged: layer.averaged()
        }
      sum = sum.map { $0 + value } ?? value
    }
    return sum ?? .noLoss
  }
}

extension PassStates.AttentionStates {
  /// One head's scores in one text as attention has them before its softmax, `[tokens, tokens]`.
  ///
  /// - Parameters:
  ///   - queries, keys: those of these states, or the same as leaves.
  func scores(_ head: Int, queries: Tensor, keys: Tensor, of segment: Range<Int>) -> Tensor {
    let shared = head / (heads / keyValueHeads)
    let q = queries.rows(segment).columns(head * headDim..<(head + 1) * headDim)
    let k = keys.rows(segment).columns(shared * headDim..<(shared + 1) * headDim)
    var scores = Tensor.matmul(q, transposing: k).scaled(by: mask.scale)
    if let cap = mask.softCap { scores = scores.softCapped(cap) }
    guard let slope = mask.alibiSlopes?[head] else { return scores }
    let distances = Tensor(shape: scores.shape) { target in
      for i in target.indices {
        let (query, key) = (i / segment.count, i % segment.count)
        target.initializeElement(at: i, to: slope * Float(key - query))
      }
    }
    return scores + distances
  }
}

/// The maps of one layer of each model.
struct MapComparison {
  var student: PassStates.AttentionStates
  var teacher: PassStates.AttentionStates
  var measure: AttentionMapLoss.Measure
  /// Those that count.
  var segments: [Range<Int>]
  var rows: RowShares
  var factor: Double

  /// Where one model's window is narrower, only what both see is compared.
  private var span: RowSpan {
    .causal(
      window: [student, teacher].compactMap(\.mask.slidingWindow).min())
  }

  /// - Throws: `headsDiffer`.
  func headByHead(loss: String) throws(DistillationError) -> Tensor {
    let heads = student.heads
    guard heads == teacher.heads else {
      throw .headsDiffer(student: heads, teacher: teacher.heads, loss: loss)
    }
    return Tape.sum([student.queries, student.keys], over: segments.count * heads) {
      (piece: Int, leaves: [Tensor]) in
      let (segment, head) = (segments[piece / heads], piece % heads)
      let scores = student.scores(head, queries: leaves[0], keys: leaves[1], of: segment)
      let target = teacherScores(head, segment)
      let weights = rows.of(segment, times: factor / Double(heads))
      return switch measure {
      case .scores: scores.squaredError(to: target, weights: weights, seeing: span)
      case .probabilities:
        scores.softmaxRows(seeing: span).squaredError(
          to: target.softmaxRows(seeing: span), weights: weights, seeing: span)
      case .divergence: scores.softmaxDivergence(from: target, weights: weights, seeing: span)
      }
    }
  }

  /// Compares the mean maps of all heads.
  func averaged() -> Tensor {
    Tape.sum([student.queries, student.keys], over: segments.count) {
      (piece: Int, leaves: [Tensor]) in
      let segment = segments[piece]
      let map = mean(student.heads) {
        student.scores($0, queries: leaves[0], keys: leaves[1], of: segment)
      }
      let target = mean(teacher.heads) { teacherScores($0, segment) }
      let weights = rows.of(segment, times: factor)
      return measure == .divergence
        ? map.divergence(from: target, weights: weights, seeing: span)
        : map.squaredError(to: target, weights: weights, seeing: span)
    }
  }

  private func teacherScores(_ head: Int, _ segment: Range<Int>) -> Tensor {
    teacher.scores(
      head, queries: teacher.queries.detached, keys: teacher.keys.detached, of: segment)
  }

  /// The mean over heads of scores, or of the distributions that they are turned into.
  private func mean(_ heads: Int, _ scores: (Int) -> Tensor) -> Tensor {
    func map(_ head: Int) -> Tensor {
      measure == .scores ? scores(head) : scores(head).softmaxRows(seeing: span)
    }
    return (1..<heads).reduce(map(0)) { $0 + map($1) }.scaled(by: 1 / Float(heads))
  }
}
