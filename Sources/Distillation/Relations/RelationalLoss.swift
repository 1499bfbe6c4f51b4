package import Tensors

/// Relational knowledge distillation: distances between states, or angles that triples of them
/// form, are to be the teacher's, whatever the states themselves (Park et al. 2019,
/// arXiv:1904.05068, section 3.2). Widths need not agree.
///
/// The value is a mean over ordered pairs of different items, or triples of three different ones,
/// where the paper sums. Which items: texts, as means of their counted states, or the counted
/// tokens of each text. Of many items a sample is compared, chosen by the seed and their places
/// alone.
package struct RelationalLoss: StateLoss {
  package enum Relation: String, Sendable, Equatable, CaseIterable {
    /// Euclidean distances in units of their mean.
    case distance
    /// The cosine of the angle at the second of three.
    case angle
  }

  package enum Items: String, Sendable, Equatable, CaseIterable {
    case examples, tokens
  }

  package struct Settings: Sendable, Equatable {
    package var relation: Relation
    package var items: Items
    package var student: StatePlace
    package var teacher: StatePlace
    /// Items that are compared with each other; angles cost its third power.
    package var atMost: Int
    /// Where the Huber loss becomes linear.
    package var delta: Double
    package var seed: UInt64

    package init(
      relation: Relation = .distance, items: Items = .examples, student: StatePlace = .final,
      teacher: StatePlace = .final, atMost: Int = 64, delta: Double = 1, seed: UInt64 = 0
    ) {
      self.relation = relation
      self.items = items
      self.student = student
      self.teacher = teacher
      self.atMost = atMost
      self.delta = delta
      self.seed = seed
    }
  }

  package let name: String
  package let needsAttention = false
  package let parameters: [Parameter] = []
  package let settings: Settings

  /// - Throws: `badSetting` for fewer items than a relation has, or a delta that is not positive;
  ///   `layerOutOfRange` for layers that the models do not have.
  package init(
    _ settings: Settings = .init(), student: StateShape, teacher: StateShape,
    name: String? = nil
  ) throws(DistillationError) {
    let least = settings.relation == .distance ? 2 : 3
    guard settings.atMost >= least else {
      throw .badSetting(
        "compared items", value: String(settings.atMost), expected: "at least \(least)")
    }
    guard settings.delta > 0, settings.delta.isFinite else {
      throw .badSetting("delta", value: String(settings.delta), expected: "a positive number")
    }
    for (place, shape, model) in [
      (settings.student, student, "student"), (settings.teacher, teacher, "teacher"),
    ] {
      guard case .block(let layer) = place, !(0..<shape.layers).contains(layer) else { continue }
      throw .layerOutOfRange(layer, of: shape.layers, model: model)
    }
    self.name = name ?? "rkd-\(settings.relation.rawValue)"
    self.settings = settings
  }

  package func value(
    student: PassStates, teacher: PassStates, segments: [Range<Int>], weights: [Float]
  ) throws -> Tensor {
    var ours = try student.state(at: settings.student)
    var theirs = try teacher.state(at: settings.teacher).detached
    var groups: [[Int]]
    switch settings.items {
    case .tokens:
      groups = segments.map { segment in
        let counted = segment.filter { weights[$0] != 0 }
        return sample(counted, place: segment.lowerBound)
      }
    case .examples:
      let pooling = Self.pooling(segments, weights)
      guard let pooling else { return .noLoss }
      ours = Tensor.matmul(pooling, ours)
      theirs = Tensor.matmul(pooling, theirs)
      groups = [sample(Array(0..<pooling.rows), place: 0)]
    }
    groups = groups.filter { $0.count >= (settings.relation == .distance ? 2 : 3) }
    guard !groups.isEmpty else { return .noLoss }
    return switch settings.relation {
    case .distance: distances(ours, theirs, groups)
    case .angle: angles(ours, theirs, groups)
    }
  }

  /// Means over the counted rows of each text that has some, by their weights: `[texts, tokens]`.
  private static func pooling(_ segments: [Range<Int>], _ weights: [Float]) -> Tensor? {
    let counted = segments.filter { weights[$0].contains { $0 != 0 } }
    guard !counted.isEmpty else { return nil }
    var pooling = [Float](repeating: 0, count: counted.count * weights.count)
    for (row, segment) in counted.enumerated() {
      let total = weights[segment].reduce(0.0) { $0 + Double($1) }
      for token in segment {
        pooling[row * weights.count + token] = Float(Double(weights[token]) / total)
      }
    }
    return Tensor(pooling, shape: [counted.count, weights.count])
  }

  /// At most so many of the items, in order; each subset as likely as another.
  private func sample(_ items: [Int], place: Int) -> [Int] {
    guard items.count > settings.atMost else { return items }
    var random = Xoshiro256(
      seed: settings.seed &+ UInt64(place) &* 0x9e37_79b9_7f4a_7c15 &+ UInt64(items.count))
    var items = items
    for i in 0..<settings.atMost {
      items.swapAt(i, Int.random(in: i..<items.count, using: &random))
    }
    return items.prefix(settings.atMost).sorted()
  }

  /// Every item counts alike, hence a group by its size.
  private func distances(_ ours: Tensor, _ theirs: Tensor, _ groups: [[Int]]) -> Tensor {
    let total = Double(groups.reduce(0) { $0 + $1.count })
    func relation(_ x: Tensor, _ rows: [Int]) -> Tensor {
      x.rows(at: rows).pairwiseDistances().dividedByMean(over: rows.count * (rows.count - 1))
    }
    return Tape.sum([ours], over: groups.count) { (group: Int, leaves: [Tensor]) in
      let rows = groups[group]
      return relation(leaves[0], rows).huberError(
        to: relation(theirs, rows),
        weights: [Float](repeating: Float(1 / total), count: rows.count),
        delta: Float(settings.delta))
    }
  }

  private func angles(_ ours: Tensor, _ theirs: Tensor, _ groups: [[Int]]) -> Tensor {
    let total = Double(groups.reduce(0) { $0 + $1.count })
    let vertices = groups.indices.flatMap { group in groups[group].indices.map { (group, $0) } }
    /// Cosines between the directions from one item to all others: 0 where one of them is itself.
    func relation(_ x: Tensor, _ rows: [Int], _ vertex: Int) -> Tensor {
      let center = x.rows(at: [Int](repeating: rows[vertex], count: rows.count))
      let directions = (x.rows(at: rows) - center).unitRows()
      return Tensor.matmul(directions, transposing: directions)
    }
    return Tape.sum([ours], over: vertices.count) { (index: Int, leaves: [Tensor]) in
      let (group, vertex) = vertices[index]
      let rows = groups[group]
      // The Huber loss takes each row's mean over all but its diagonal: one column too many, that
      // of the vertex, which is 0 in both.
      let others = Double(rows.count - 1)
      var weights = [Float](
        repeating: Float(1 / (total * others) * others / (others - 1)), count: rows.count)
      weights[vertex] = 0
      return relation(leaves[0], rows, vertex).huberError(
        to: relation(theirs, rows, vertex), weights: weights, delta: Float(settings.delta))
    }
  }
}
