import Distillation
import Models
import Tensors
import Testing

struct HiddenStateTests {
  private func pass(layers: Int, width: Int, seed: UInt64) -> DoublePass {
    .random(
      layers: layers, tokens: 13, width: width, heads: 1, keyValueHeads: 1, headDim: 2, seed: seed)
  }

  /// One pair of states as the papers have it.
  private func compared(
    _ measure: HiddenStateLoss.Measure, _ x: Rows, _ y: Rows, _ projection: Rows?
  ) -> Double {
    weightedMean(textWeights) { i in
      let a = projection.map { $0.map { dot($0, x[i]) } } ?? x[i]
      let b = y[i]
      func normalized(_ v: [Double]) -> [Double] {
        let mean = v.reduce(0, +) / Double(v.count)
        let variance = v.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(v.count)
        return v.map { ($0 - mean) / (variance + 1e-6).squareRoot() }
      }
      func meanSquare(_ a: [Double], _ b: [Double]) -> Double {
        zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } / Double(a.count)
      }
      switch measure {
      case .squaredError: return meanSquare(a, b)
      case .normalizedSquaredError: return meanSquare(normalized(a), normalized(b))
      case .cosine: return 1 - dot(a, b) / (dot(a, a) * dot(b, b)).squareRoot()
      }
    }
  }

  @Test(arguments: HiddenStateLoss.Measure.allCases, [5, 7])
  func uniformLayersAgreeWithTheirFormula(_ measure: HiddenStateLoss.Measure, width: Int) throws {
    let (student, teacher) = (
      pass(layers: 2, width: 5, seed: 1), pass(layers: 4, width: width, seed: 2)
    )
    let loss = try HiddenStateLoss(
      .init(measure: measure, seed: 3), student: student.shape, teacher: teacher.shape)
    #expect(loss.parameters.map(\.shape) == (width == 5 ? [] : [[7, 5], [7, 5]]))
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, projections in
      let pairs = [(0, 1), (1, 3)].enumerated()
      return pairs.reduce(0.0) { sum, entry in
        let (s, t) = entry.element
        return sum
          + compared(
            measure, student.blocks[s], teacher.blocks[t],
            projections.isEmpty ? nil : projections[entry.offset]) / 2
      }
    }
  }

  @Test func tinyBERTComparesEmbeddingsAndSharesAProjection() throws {
    let (student, teacher) = (
      pass(layers: 2, width: 3, seed: 4), pass(layers: 2, width: 6, seed: 5)
    )
    let loss = try HiddenStateLoss(.tinyBERT, student: student.shape, teacher: teacher.shape)
    #expect(
      loss.parameters.map(\.name) == ["hidden.projection.embedding", "hidden.projection.blocks"])
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, projections in
      (compared(.squaredError, student.embedding, teacher.embedding, projections[0])
        + compared(.squaredError, student.blocks[0], teacher.blocks[0], projections[1])
        + compared(.squaredError, student.blocks[1], teacher.blocks[1], projections[1])) / 3
    }
  }

  @Test func distilBERTComparesDirectionsOfTheLastStates() throws {
    let (student, teacher) = (
      pass(layers: 1, width: 4, seed: 6), pass(layers: 3, width: 4, seed: 7)
    )
    let loss = try HiddenStateLoss(.distilBERT, student: student.shape, teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, _ in compared(.cosine, student.final, teacher.final, nil) }
  }

  @Test func fitNetsPairsTheMiddles() throws {
    let (student, teacher) = (
      pass(layers: 3, width: 4, seed: 8), pass(layers: 5, width: 3, seed: 9)
    )
    let loss = try HiddenStateLoss(.fitNets, student: student.shape, teacher: teacher.shape)
    try check(
      loss, student: student, teacher: teacher, segments: texts, weights: textWeights
    ) { student, projections in
      compared(.squaredError, student.blocks[1], teacher.blocks[2], projections[0])
    }
  }

  @Test func projectionsFollowFromTheirSeed() throws {
    func values(_ seed: UInt64) throws -> [Float] {
      try HiddenStateLoss(
        .init(seed: seed), student: .init(layers: 1, width: 4), teacher: .init(layers: 1, width: 8)
      ).parameters[0].tensor.array
    }
    #expect(try values(1) == values(1))
    #expect(try values(1) != values(2))
  }

  @Test func statesThatWereNotKeptOrDoNotFitAreRefused() throws {
    let (student, teacher) = (
      pass(layers: 1, width: 4, seed: 6), pass(layers: 1, width: 4, seed: 7)
    )
    let loss = try HiddenStateLoss(.mobileBERT, student: student.shape, teacher: teacher.shape)
    let weights = textWeights
    #expect(throws: DistillationError.self) {
      try loss.value(
        student: student.states, teacher: PassStates(), segments: texts, weights: weights)
    }
    let wider = pass(layers: 1, width: 6, seed: 7)
    #expect(throws: DistillationError.self) {
      try loss.value(
        student: student.states, teacher: wider.states, segments: texts, weights: weights)
    }
    #expect(throws: DistillationError.self) {
      try HiddenStateLoss(.init(layers: nil), student: student.shape, teacher: teacher.shape)
    }
    let nothing = [Float](repeating: 0, count: 13)
    let value = try loss.value(
      student: student.states, teacher: teacher.states, segments: texts, weights: nothing)
    #expect(value.array == [0])
  }
}

struct LayerMapTests {
  @Test func uniformMapsSpreadOverTheTeacher() throws {
    func teachers(_ student: Int, _ teacher: Int) throws -> [Int] {
      try LayerMap.uniform.pairs(student: student, teacher: teacher).map(\.teacher)
    }
    #expect(try teachers(4, 12) == [2, 5, 8, 11])
    #expect(try teachers(3, 5) == [0, 2, 4])
    #expect(try teachers(3, 3) == [0, 1, 2])
    #expect(try LayerMap.last.pairs(student: 2, teacher: 5) == [.init(student: 1, teacher: 4)])
    #expect(try LayerMap.middle.pairs(student: 1, teacher: 5) == [.init(student: 0, teacher: 2)])
  }

  @Test func mapsOutOfRangeAreRefusedWithASentence() throws {
    let map = LayerMap.list([.init(student: 0, teacher: 4)])
    let error = #expect(throws: DistillationError.self) { try map.pairs(student: 2, teacher: 4) }
    #expect(
      error?.description
        == "A layer map names layer 4 of the teacher, which has layers 0 to 3. Correct the map.")
    #expect(throws: DistillationError.self) { try map.pairs(student: 0, teacher: 4) }
    #expect(throws: DistillationError.self) { try LayerMap.list([]).pairs(student: 2, teacher: 4) }
    let deep = #expect(throws: DistillationError.self) {
      try LayerMap.uniform.pairs(student: 3, teacher: 2)
    }
    #expect(
      deep?.description
        == "The layer map uniform pairs no layers of a student of 3 and a teacher of 2. "
        + "List the pairs instead.")
    #expect(throws: DistillationError.self) {
      try LayerMap.list([.init(student: -1, teacher: 0)]).pairs(student: 2, teacher: 4)
    }
  }

  private func pass(_ blocks: [Rows]) -> PassStates {
    var states = PassStates()
    states.blocks = blocks.map { Tensor(rows: $0) }
    return states
  }

  @Test(arguments: LayerSearch.Similarity.allCases)
  func aSearchFindsTheLayerThatIsAMixtureOfTheStudents(_ similarity: LayerSearch.Similarity) throws
  {
    let tokens = 60
    let layers = (0..<4).map { randomRows(tokens, 6, seed: UInt64($0), scale: 2) }
    // Reflected along one direction and moved: the same up to what both similarities ignore.
    let direction = randomRows(1, 6, seed: 50)[0]
    let students = [2, 0].map { layer in
      layers[layer].map { row in
        let along = 2 * dot(row, direction) / dot(direction, direction)
        return zip(row, direction).map { 3 * ($0 - along * $1) + 1 }
      }
    }
    var weights = [Float](repeating: 1, count: tokens)
    weights[7] = 0
    let result = try LayerSearch(similarity: similarity).map(
      student: pass(students), teacher: pass(layers), weights: weights)
    #expect(
      result.map == .list([.init(student: 0, teacher: 2), .init(student: 1, teacher: 0)]))
    #expect(abs(result.similarities[0][2] - 1) < 1e-4)
    #expect(result.similarities[0][1] < 0.7)
  }

  @Test func linearCKAIsItsFormula() throws {
    let (x, y) = (randomRows(20, 3, seed: 1), randomRows(20, 5, seed: 2))
    func centered(_ x: Rows) -> Rows {
      let means = x[0].indices.map { j in x.reduce(0) { $0 + $1[j] } / Double(x.count) }
      return x.map { zip($0, means).map { $0 - $1 } }
    }
    func gram(_ x: Rows) -> Rows { centered(x).map { a in centered(x).map { dot(a, $0) } } }
    func inner(_ a: Rows, _ b: Rows) -> Double { zip(a, b).reduce(0) { $0 + dot($1.0, $1.1) } }
    let (k, l) = (gram(x), gram(y))
    let expected = inner(k, l) / (inner(k, k) * inner(l, l)).squareRoot()
    let found = try LayerSearch().map(
      student: pass([x]), teacher: pass([y]), weights: [Float](repeating: 1, count: 20))
    #expect(abs(found.similarities[0][0] - expected) < 1e-5)
  }

  @Test func aRegressionOnFewerTokensThanChannelsIsRefused() {
    #expect(throws: DistillationError.self) {
      try LayerSearch(similarity: .regression).map(
        student: pass([randomRows(6, 8, seed: 1)]), teacher: pass([randomRows(6, 8, seed: 2)]),
        weights: [Float](repeating: 1, count: 6))
    }
  }
}
