import Distillation
import Tensors
import Testing

struct MiniLMTests {
  private func pass(layers: Int, heads: Int, keyValueHeads: Int, headDim: Int, seed: UInt64)
    -> DoublePass
  {
    .random(
      layers: layers, tokens: 13, width: 2, heads: heads, keyValueHeads: keyValueHeads,
      headDim: headDim, seed: seed)
  }

  /// KL between the softmaxes of one row of a relation x · xᵀ / √d.
  private func relation(
    _ student: (Rows, Range<Int>), _ teacher: (Rows, Range<Int>), row: Int, isCausal: Bool
  ) -> Double {
    let text = texts.first { $0.contains(row) } ?? 0..<0
    let seen = isCausal ? tokensSeen(row) : text
    func distribution(_ x: Rows, _ channels: Range<Int>) -> [Double] {
      softmax(
        seen.map {
          dot(x[row][channels], x[$0][channels]) / Double(channels.count).squareRoot()
        })
    }
    return divergence(
      distribution(teacher.0, teacher.1), distribution(student.0, student.1))
  }

  @Test(arguments: [true, false]) func distributionsAndValueRelationsOfTheLastLayers(
    isCausal: Bool
  ) throws {
    // Two query heads read one head of the student's values, four one of the teacher's.
    let student = pass(layers: 2, heads: 4, keyValueHeads: 2, headDim: 3, seed: 1)
    let teacher = pass(layers: 3, heads: 4, keyValueHeads: 1, headDim: 5, seed: 2)
    let loss = try MiniLM(
      .init(isCausal: isCausal, attentionWeight: 0.75), student: student.shape,
      teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, _ in
      weightedMean(textWeights) { row in
        (0..<4).reduce(0.0) { sum, head in
          let seen = tokensSeen(row)
          let attention = divergence(
            softmax(attentionScores(teacher, layer: 2, head: head, row: row, seen: seen)),
            softmax(attentionScores(student, layer: 1, head: head, row: row, seen: seen)))
          let values = relation(
            (student.attention[1][2], head / 2 * 3..<(head / 2 + 1) * 3),
            (teacher.attention[2][2], 0..<5), row: row, isCausal: isCausal)
          return sum + (0.75 * attention + values) / 4
        }
      }
    }
  }

  @Test func otherNumbersOfHeadsAreRefused() throws {
    let student = pass(layers: 1, heads: 2, keyValueHeads: 2, headDim: 3, seed: 1)
    let teacher = pass(layers: 1, heads: 4, keyValueHeads: 2, headDim: 3, seed: 2)
    let loss = try MiniLM(student: student.shape, teacher: teacher.shape)
    #expect(throws: DistillationError.self) {
      try loss.value(
        student: student.states, teacher: teacher.states, segments: texts, weights: textWeights)
    }
    #expect(throws: DistillationError.self) {
      try MiniLM(.init(teacherLayer: 1), student: student.shape, teacher: teacher.shape)
    }
  }

  @Test(arguments: [true, false]) func relationHeadsCutAllHeadsAnew(isCausal: Bool) throws {
    let student = pass(layers: 1, heads: 2, keyValueHeads: 1, headDim: 6, seed: 3)
    let teacher = pass(layers: 3, heads: 3, keyValueHeads: 3, headDim: 4, seed: 4)
    let loss = try MiniLMv2(
      .init(relationHeads: 3, teacherLayer: 1, isCausal: isCausal, keyWeight: 0.5),
      student: student.shape, teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, _ in
      [1, 0.5, 1].enumerated().reduce(0.0) { sum, entry in
        let (kind, weight) = entry
        let (x, y) = (student.attention[0][kind], teacher.attention[1][kind])
        let (s, t) = (x[0].count / 3, y[0].count / 3)
        return sum
          + weight
          * weightedMean(textWeights) { row in
            (0..<3).reduce(0.0) {
              $0
                + relation(
                  (x, $1 * s..<($1 + 1) * s), (y, $1 * t..<($1 + 1) * t), row: row,
                  isCausal: isCausal) / 3
            }
          }
      }
    }
  }

  @Test func relationHeadsDivideAllWidths() throws {
    #expect(MiniLMv2.relationHeads(widths: [384, 768]) == 48)
    #expect(MiniLMv2.relationHeads(widths: [1024, 1024]) == 64)
    #expect(MiniLMv2.relationHeads(widths: [96, 288, 64]) == 8)
    #expect(MiniLMv2.relationHeads(widths: [3, 5]) == 1)
    let student = pass(layers: 1, heads: 2, keyValueHeads: 1, headDim: 6, seed: 3)
    let loss = try MiniLMv2(
      .init(relationHeads: 5), student: student.shape, teacher: student.shape)
    let error = #expect(throws: DistillationError.self) {
      try loss.value(
        student: student.states, teacher: student.states, segments: texts, weights: textWeights)
    }
    #expect(
      error?.description
        == "Queries have 12 channels, which 5 relation heads do not divide. Choose a number of "
        + "relation heads that divides the widths of student and teacher.")
    #expect(throws: DistillationError.self) {
      try MiniLMv2(.init(relationHeads: 0), student: student.shape, teacher: student.shape)
    }
  }
}
