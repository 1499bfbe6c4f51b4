import Distillation
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Training

struct MultiTeacherTests {
  private static let batch = TrainingBatch([
    TrainingExample(tokens: [0, 3, 1, 2, 4, 3], counts: [false, true, true, true, true, true]),
    TrainingExample(tokens: [0, 2, 2, 1, 3], counts: [false, false, true, true, true]),
  ])

  /// Given logits, or the k most probable tokens of them.
  private final class GivenTeacher: Teacher {
    let logits: [[Double]]
    var kept: Int?
    var asked: [Int] = []

    init(seed: UInt64, vocabulary: Int = 5, kept: Int? = nil) {
      var random = Xoshiro256(seed: seed)
      logits = MultiTeacherTests.batch.inputs.map { _ in
        (0..<vocabulary).map { _ in Double(Float(2 * random.normal())) }
      }
      self.kept = kept
    }

    var vocabularySize: Int { logits[0].count }
    func begin(_ batch: TrainingBatch, wanting wish: StateWish) throws -> PassStates? { nil }
    func rows(_ places: [Int]) throws -> TeacherRows {
      asked += places
      guard let kept else {
        return .logits(
          Tensor(
            places.flatMap { logits[$0].map(Float.init) }, shape: [places.count, vocabularySize]))
      }
      let ranked = places.map { place in
        Array(
          logSoftmax(logits[place]).enumerated().sorted { $0.element > $1.element }.prefix(kept))
      }
      return .top(
        TopProbabilities(
          k: kept, ids: ranked.flatMap { $0.map { Int32($0.offset) } },
          logProbabilities: ranked.flatMap { $0.map { Float($0.element) } }))
    }
  }

  private func rows(_ teacher: any Teacher, _ places: [Int]) throws -> [[Double]] {
    guard case .logits(let tensor) = try teacher.rows(places) else { return [] }
    return (0..<tensor.rows).map { row in
      (0..<tensor.columns).map { Double(tensor.floats[row * tensor.columns + $0]) }
    }
  }

  private static let weightings: [TeacherEnsemble.Weighting] = [
    .fixed(nil), .fixed([1, 0, 3]), .entropy(temperature: 0.5), .likelihood,
  ]

  @Test(arguments: weightings)
  func probabilitiesAreAveragedAtEveryPosition(weighting: TeacherEnsemble.Weighting) throws {
    // A cache that keeps every token is as good as a model.
    let teachers = [GivenTeacher(seed: 1), GivenTeacher(seed: 2), GivenTeacher(seed: 3, kept: 5)]
    let ensemble = try TeacherEnsemble(teachers, weighting)
    #expect(try ensemble.begin(Self.batch, wanting: .none) == nil)
    let places = [0, 2, 3, 8]
    for (row, place) in zip(try rows(ensemble, places), places) {
      let logs = teachers.map { logSoftmax($0.logits[place]) }
      let target = Self.batch.targets[place]
      let entropies = logs.map { -$0.reduce(0) { $0 + exp($1) * $1 } }
      let losses = logs.map { exp(-$0[target]) }
      let raw: [Double] =
        switch weighting {
        case .fixed(let weights): weights ?? [1, 1, 1]
        case .entropy(let temperature): entropies.map { exp(-$0 / temperature) }
        case .likelihood: losses.map { (1 - $0 / losses.reduce(0, +)) / 2 }
        }
      let total = raw.reduce(0, +)
      for token in 0..<5 {
        let mean = zip(raw, logs).reduce(0) { $0 + $1.0 / total * exp($1.1[token]) }
        #expect(abs(exp(row[token]) - mean) < 1e-6)
      }
    }
  }

  @Test func cachesOfTheMostProbableTokensAreNotAveraged() throws {
    let ensemble = try TeacherEnsemble([GivenTeacher(seed: 1), GivenTeacher(seed: 2, kept: 3)])
    _ = try ensemble.begin(Self.batch, wanting: .none)
    #expect(
      sentence { _ = try ensemble.rows([0]) }
        == "The teacher's cache keeps 3 of 5 probabilities of a position, but several teachers "
        + "needs all of them. Name the teacher model itself, or write its cache with all.")
  }

  @Test func teachersThatDoNotGoTogetherAreRefused() throws {
    let (a, b) = (GivenTeacher(seed: 1), GivenTeacher(seed: 2, vocabulary: 6))
    #expect(
      sentence { _ = try TeacherEnsemble([a, b]) }
        == "Vocabularies of 5 and 6 tokens cannot be brought together for several teachers. "
        + "Choose models with one tokenizer.")
    #expect(
      sentence { _ = try TeacherEnsemble([]) }
        == "the number of teachers is 0, which must be at least 1. Correct the setting.")
    #expect(
      sentence { _ = try TeacherEnsemble([a, a], .fixed([0, 0])) }
        .hasPrefix("the list of teachers' weights is [0.0, 0.0]"))
    #expect(
      sentence { _ = try TeacherEnsemble([a, a]).begin(Self.batch, wanting: .states) }
        == "The inner states of 2 teachers have no mean. Leave out the losses on states, or name "
        + "one teacher.")
    #expect(
      sentence {
        _ = try DomainTeachers([a, a]) { _, _ in 2 }.begin(Self.batch, wanting: .none)
      }.hasPrefix("A text was given to teacher 2 of 2"))
  }

  @Test func everyTextHasTheTeacherOfItsDomainElseTheBest() throws {
    let teachers = [GivenTeacher(seed: 1), GivenTeacher(seed: 2), GivenTeacher(seed: 3)]
    let segments = Self.batch.segments
    func loss(_ teacher: GivenTeacher, _ segment: Range<Int>) -> Double {
      segment.reduce(0) {
        $0 - Double(Self.batch.weights[$1])
          * logSoftmax(teacher.logits[$1])[Self.batch.targets[$1]]
      }
    }
    let best = segments.map { segment in
      teachers.indices.min { loss(teachers[$0], segment) < loss(teachers[$1], segment) } ?? 0
    }
    let free = try DomainTeachers(teachers)
    _ = try free.begin(Self.batch, wanting: .none)
    for (segment, number) in zip(segments, best) {
      #expect(segment.allSatisfy { free.owners[$0] == number })
    }
    let worst = (best[1] + 1) % 3
    let told = try DomainTeachers(teachers) { _, segment in segment == segments[1] ? worst : nil }
    _ = try told.begin(Self.batch, wanting: .none)
    #expect(segments[1].allSatisfy { told.owners[$0] == worst })
    let places = [1, 6, 2, 7]
    for (row, place) in zip(try rows(told, places), places) {
      #expect(row == teachers[told.owners[place]].logits[place])
    }
    // With all domains known no losses are compared, and caches of any width will do.
    let caches = [GivenTeacher(seed: 1, kept: 2), GivenTeacher(seed: 2, kept: 2)]
    let known = try DomainTeachers(caches) { _, segment in segment == segments[0] ? 0 : 1 }
    _ = try known.begin(Self.batch, wanting: .none)
    #expect(caches.allSatisfy { $0.asked.isEmpty })
    guard case .top = try known.rows([1, 2]) else {
      Issue.record("a cache's rows were changed")
      return
    }
  }

  @Test func teachersOfDifferentSizesTeachTogether() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      let teachers = try [
        PolicyModel(layers: 2, hidden: 12, seed: 2), PolicyModel(layers: 1, hidden: 16, seed: 3),
      ].map { ModelTeacher(try $0.load(in: folder)) }
      func run() throws -> [Float] {
        for parameter in student.parameters { parameter.clearGradient() }
        var objective = DistillationObjective(
          teacher: try TeacherEnsemble(teachers, .entropy()),
          logitLosses: [.init(PlainDivergence(), weight: 1)])
        let values = try objective.accumulate(
          student.model, Self.batch, ObjectiveContext(scale: 1 / 8))
        #expect((values["soft"] ?? 0) > 0)
        return gradients(student.parameters)
      }
      let before = Parallel.threads
      defer { Parallel.threads = before }
      Parallel.threads = 1
      let one = try run()
      Parallel.threads = 3
      #expect(try run() == one)
    }
  }
}
