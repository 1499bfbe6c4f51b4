package import Tensors

/// Deep self-attention distillation: the last layer's attention distributions and the relations
/// between its values (Wang et al. 2020, arXiv:2002.10957).
///
/// The paper's models see both ways. Here a token's row runs over the tokens up to its own: in
/// attention because a decoder's does, and in value relations by default, so that what a position
/// is taught does not depend on text that it cannot know.
///
/// As in the paper, student and teacher have the same number of heads, of whatever width. Under
/// grouped heads the relation of a query head is that of the values that it reads.
package struct MiniLM: StateLoss {
  package struct Settings: Sendable, Equatable {
    /// The student's and the teacher's, from 0; nil: the last.
    package var studentLayer: Int?
    package var teacherLayer: Int?
    /// Whether value relations run over earlier tokens only.
    package var isCausal: Bool
    package var attentionWeight: Double
    package var valueWeight: Double

    package init(
      studentLayer: Int? = nil, teacherLayer: Int? = nil, isCausal: Bool = true,
      attentionWeight: Double = 1, valueWeight: Double = 1
    ) {
      self.studentLayer = studentLayer
      self.teacherLayer = teacherLayer
      self.isCausal = isCausal
      self.attentionWeight = attentionWeight
      self.valueWeight = valueWeight
    }
  }

  package let name: String
  package let needsAttention = true
  package let parameters: [Parameter] = []
  package let settings: Settings
  private let layers: LayerPair

  /// - Throws: `layerOutOfRange` for layers that the models do not have.
  package init(
    _ settings: Settings = .init(), student: StateShape, teacher: StateShape,
    name: String = "minilm"
  ) throws(DistillationError) {
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
    let maps = MapComparison(
      student: student, teacher: teacher, measure: .divergence, segments: segments, rows: rows,
      factor: 1)
    let attention = try maps.headByHead(loss: name)
    let relations = RelationDivergence(
      heads: valueHeads(student, teacher), segments: segments, rows: rows,
      span: settings.isCausal ? .causal() : .all)
    return attention.scaled(by: Float(settings.attentionWeight))
      + relations.value(student.values, teacher.values).scaled(by: Float(settings.valueWeight))
  }

  /// A mean over query heads, in which heads that read the same values appear once.
  private func valueHeads(
    _ student: PassStates.AttentionStates, _ teacher: PassStates.AttentionStates
  ) -> [RelationDivergence.Head] {
    func channels(_ states: PassStates.AttentionStates, _ head: Int) -> Range<Int> {
      let shared = head / (states.heads / states.keyValueHeads)
      let width = states.values.columns / states.keyValueHeads
      return shared * width..<(shared + 1) * width
    }
    var heads: [RelationDivergence.Head] = []
    for head in 0..<student.heads {
      let (s, t) = (channels(student, head), channels(teacher, head))
      if let last = heads.last, last.student == s, last.teacher == t {
        heads[heads.count - 1].share += 1 / Double(student.heads)
      } else {
        heads.append(.init(student: s, teacher: t, share: 1 / Double(student.heads)))
      }
    }
    return heads
  }
}

extension LayerPair {
  /// Two layers, each the last unless named.
  static func checked(
    _ student: Int?, _ teacher: Int?, student s: StateShape, teacher t: StateShape
  )
    throws(DistillationError) -> LayerPair
  {
    let pair = LayerPair(student: student ?? s.layers - 1, teacher: teacher ?? t.layers - 1)
    return try LayerMap.list([pair]).pairs(student: s.layers, teacher: t.layers)[0]
  }
}
