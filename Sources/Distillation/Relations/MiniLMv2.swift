package import Tensors

/// Relations among queries, among keys and among values, cut into as many relation heads as one
/// likes, so that models with any numbers of heads compare (Wang et al. 2021, arXiv:2012.15828).
///
/// All heads of a token are one vector, which is cut anew; queries and keys are taken after their
/// rotation, as attention compares them. Rows run over the tokens up to their own by default, for
/// the reason that `MiniLM` has.
package struct MiniLMv2: StateLoss {
  package struct Settings: Sendable, Equatable {
    /// nil: as many as divide all widths and leave 8 channels to each of the narrowest, at most 64.
    /// That gives the paper's 48 for a student of width 384.
    package var relationHeads: Int?
    /// From 0; nil: the last. The paper takes an upper middle layer of large teachers.
    package var studentLayer: Int?
    package var teacherLayer: Int?
    /// Whether relations run over earlier tokens only.
    package var isCausal: Bool
    package var queryWeight: Double
    package var keyWeight: Double
    package var valueWeight: Double

    package init(
      relationHeads: Int? = nil, studentLayer: Int? = nil, teacherLayer: Int? = nil,
      isCausal: Bool = true, queryWeight: Double = 1, keyWeight: Double = 1,
      valueWeight: Double = 1
    ) {
      self.relationHeads = relationHeads
      self.studentLayer = studentLayer
      self.teacherLayer = teacherLayer
      self.isCausal = isCausal
      self.queryWeight = queryWeight
      self.keyWeight = keyWeight
      self.valueWeight = valueWeight
    }
  }

  package let name: String
  package let needsAttention = true
  package let parameters: [Parameter] = []
  package let settings: Settings
  private let layers: LayerPair

  /// - Throws: `layerOutOfRange` for layers that the models do not have, `badSetting` for no heads.
  package init(
    _ settings: Settings = .init(), student: StateShape, teacher: StateShape,
    name: String = "minilm-v2"
  ) throws(DistillationError) {
    if let heads = settings.relationHeads, heads < 1 {
      throw .badSetting("relation heads", value: String(heads), expected: "at least 1")
    }
    self.name = name
    self.settings = settings
    layers = try LayerPair.checked(
      settings.studentLayer, settings.teacherLayer, student: student, teacher: teacher)
  }

  package func value(
    student: PassStates, teacher: PassStates, segments: [Range<Int>], weights: [Float]
  ) throws -> Tensor {
    guard let rows = RowShares(weights) else { return .noLoss }
    let segments = rows.counted(segments)
    let student = try student.attention(of: layers.student)
    let teacher = try teacher.attention(of: layers.teacher)
    let compared = [
      ("Queries", student.queries, teacher.queries, settings.queryWeight),
      ("Keys", student.keys, teacher.keys, settings.keyWeight),
      ("Values", student.values, teacher.values, settings.valueWeight),
    ].filter { $0.3 != 0 }
    let widths = compared.flatMap { [$0.1.columns, $0.2.columns] }
    let count = settings.relationHeads ?? Self.relationHeads(widths: widths)
    var sum: Tensor?
    for (what, ours, theirs, weight) in compared {
      for width in [ours.columns, theirs.columns] where width % count != 0 {
        throw DistillationError.indivisibleWidth(width, heads: count, of: what)
      }
      let (s, t) = (ours.columns / count, theirs.columns / count)
      let heads = (0..<count).map {
        RelationDivergence.Head(
          student: $0 * s..<($0 + 1) * s, teacher: $0 * t..<($0 + 1) * t,
          share: 1 / Double(count))
      }
      let relations = RelationDivergence(
        heads: heads, segments: segments, rows: rows,
        span: settings.isCausal ? .causal() : .all)
      let value = relations.value(ours, theirs).scaled(by: Float(weight))
      sum = sum.map { $0 + value } ?? value
    }
    return sum ?? .noLoss
  }

  /// The default for vectors of these widths.
  package static func relationHeads(widths: [Int]) -> Int {
    let narrowest = widths.min() ?? 1
    return (1...max(1, min(64, narrowest / 8))).last { heads in
      widths.allSatisfy { $0 % heads == 0 }
    } ?? 1
  }
}
