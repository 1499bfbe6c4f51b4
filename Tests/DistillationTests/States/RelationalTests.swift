import Distillation
import Tensors
import Testing

struct RelationalTests {
  private func pass(width: Int, seed: UInt64) -> DoublePass {
    .random(
      layers: 2, tokens: 13, width: width, heads: 1, keyValueHeads: 1, headDim: 2, seed: seed)
  }

  private func huber(_ x: Double, _ delta: Double) -> Double {
    abs(x) <= delta ? x * x / 2 : delta * (abs(x) - delta / 2)
  }

  private func difference(_ a: [Double], _ b: [Double]) -> [Double] { zip(a, b).map { $0 - $1 } }

  /// The mean over ordered pairs or triples of different items.
  private func relational(
    _ relation: RelationalLoss.Relation, _ x: Rows, _ y: Rows, delta: Double
  ) -> Double {
    func length(_ v: [Double]) -> Double { dot(v, v).squareRoot() }
    let n = x.count
    var (sum, count) = (0.0, 0)
    switch relation {
    case .distance:
      func relative(_ x: Rows) -> [[Double]] {
        let all = x.map { a in x.map { length(difference(a, $0)) } }
        let mean = all.reduce(0) { $0 + $1.reduce(0, +) } / Double(n * (n - 1))
        return all.map { $0.map { $0 / mean } }
      }
      let (p, q) = (relative(x), relative(y))
      for i in 0..<n {
        for j in 0..<n where i != j {
          sum += huber(p[i][j] - q[i][j], delta)
          count += 1
        }
      }
    case .angle:
      func cosine(_ x: Rows, _ i: Int, _ j: Int, _ k: Int) -> Double {
        let (a, b) = (difference(x[i], x[j]), difference(x[k], x[j]))
        return dot(a, b) / (length(a) * length(b))
      }
      for i in 0..<n {
        for j in 0..<n where i != j {
          for k in 0..<n where k != i && k != j {
            sum += huber(cosine(x, i, j, k) - cosine(y, i, j, k), delta)
            count += 1
          }
        }
      }
    }
    return sum / Double(count)
  }

  private func means(_ x: Rows) -> Rows {
    texts.dropLast().map { text in
      let total = text.reduce(0.0) { $0 + Double(textWeights[$1]) }
      return x[0].indices.map { j in
        text.reduce(0.0) { $0 + Double(textWeights[$1]) * x[$1][j] } / total
      }
    }
  }

  @Test(arguments: RelationalLoss.Relation.allCases, [1.0, 0.125])
  func relationsBetweenTexts(_ relation: RelationalLoss.Relation, delta: Double) throws {
    let (student, teacher) = (pass(width: 3, seed: 1), pass(width: 5, seed: 2))
    let loss = try RelationalLoss(
      .init(relation: relation, delta: delta), student: student.shape, teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, _ in
      relational(relation, means(student.final), means(teacher.final), delta: delta)
    }
  }

  @Test(arguments: RelationalLoss.Relation.allCases)
  func relationsBetweenTokensOfEachText(_ relation: RelationalLoss.Relation) throws {
    let (student, teacher) = (pass(width: 4, seed: 3), pass(width: 2, seed: 4))
    let loss = try RelationalLoss(
      .init(relation: relation, items: .tokens, student: .block(0), teacher: .block(1)),
      student: student.shape, teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, _ in
      // The text of one token and the padding have no pairs.
      let groups = [[0, 1, 3], [5, 6, 8, 9, 10]]
      return groups.reduce(0.0) { sum, rows in
        sum
          + Double(rows.count) / 8
          * relational(
            relation, rows.map { student.blocks[0][$0] }, rows.map { teacher.blocks[1][$0] },
            delta: 1)
      }
    }
  }

  @Test func aSampleFollowsFromItsSeed() throws {
    let (student, teacher) = (pass(width: 4, seed: 3), pass(width: 2, seed: 4))
    func value(_ seed: UInt64, atMost: Int) throws -> [Float] {
      try RelationalLoss(
        .init(items: .tokens, atMost: atMost, seed: seed), student: student.shape,
        teacher: teacher.shape
      ).value(
        student: student.states, teacher: teacher.states, segments: texts, weights: textWeights
      ).array
    }
    #expect(try value(1, atMost: 3) == value(1, atMost: 3))
    #expect(try Set((0..<8).map { try value($0, atMost: 3) }).count > 4)
    #expect(try value(1, atMost: 5) == value(2, atMost: 64))
  }

  @Test func tooFewItemsAreNoLossAndBadSettingsAreRefused() throws {
    let student = pass(width: 4, seed: 3)
    func loss(_ settings: RelationalLoss.Settings) throws -> RelationalLoss {
      try RelationalLoss(settings, student: student.shape, teacher: student.shape)
    }
    let whole = [0..<13]
    let value = try loss(.init()).value(
      student: student.states, teacher: student.states, segments: whole, weights: textWeights)
    #expect(value.array == [0])
    #expect(throws: DistillationError.self) { try loss(.init(relation: .angle, atMost: 2)) }
    #expect(throws: DistillationError.self) { try loss(.init(delta: 0)) }
    #expect(throws: DistillationError.self) { try loss(.init(student: .block(2))) }
  }
}
