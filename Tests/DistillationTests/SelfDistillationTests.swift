import Distillation
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Training

struct SelfDistillationTests {
  private static let batch = TrainingBatch([
    TrainingExample(tokens: [0, 3, 1, 2, 4, 3], counts: [false, true, true, true, true, true]),
    TrainingExample(tokens: [0, 2, 2, 1, 3], counts: [false, false, true, true, true]),
  ])

  @Test func theAverageTeacherIsTheMeanOfTheStudentsPast() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(layers: 2).load(in: folder).withParameters()
      let teacher = try AverageTeacher(of: student.model, student.parameters, decay: 0.6)
      var objective = AverageDistillation(LanguageModeling(), teacher: teacher)
      var expected = student.parameters.map { $0.tensor.detached.widened().array.map(Double.init) }
      var random = Xoshiro256(seed: 2)
      for step in 0..<5 {
        for parameter in student.parameters {
          for index in 0..<parameter.count {
            parameter.mutableFloats[index] += Float(random.normal())
          }
        }
        objective.didStep(model: student.model.detached, step: step)
        let decay = min(0.6, (1 + Double(step)) / (10 + Double(step)))
        for (index, parameter) in student.parameters.enumerated() {
          for place in 0..<parameter.count {
            expected[index][place] =
              decay * expected[index][place]
              + (1 - decay) * Double(parameter.tensor.floats[place])
          }
        }
      }
      // The teacher's own tensors, asked for through its model.
      let found = teacher.model.withParameters().parameters
      for (parameter, values) in zip(found, expected) {
        for (a, b) in zip(parameter.tensor.array, values) { #expect(abs(Double(a) - b) < 1e-5) }
      }
      let other = try AverageTeacher(of: student.model, student.parameters, decay: 0.6)
      try other.restore(
        from: Dictionary(uniqueKeysWithValues: objective.state.map { ($0.name, $0.tensor) }))
      for (a, b) in zip(found, other.model.withParameters().parameters) {
        #expect(a.tensor.array == b.tensor.array)
      }
    }
  }

  @Test func aTeacherThatJustBeganHasNothingToTeach() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(layers: 2).load(in: folder).withParameters()
      let teacher = try AverageTeacher(of: student.model, student.parameters)
      var objective = AverageDistillation(
        DistillationObjective(
          teacher: teacher, logitLosses: [.init(PlainDivergence(), weight: 1)]),
        teacher: teacher)
      let values = try objective.accumulate(
        student.model, Self.batch, ObjectiveContext(scale: 1 / 8))
      #expect(abs(values["soft"] ?? 1) < 1e-9)
      #expect(gradients(student.parameters).allSatisfy { abs($0) < 1e-6 })
    }
  }

  /// Finite differences of the loss written out in doubles, the deepest exit held as it is where it
  /// teaches.
  @Test(arguments: [false, true])
  func exitsLearnLabelsPredictionsAndStatesOfTheDeepest(recomputes: Bool) throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(layers: 3).load(in: folder).withParameters()
      let quiet = student.model.detached
      let (alpha, lambda, scale) = (0.4, 0.7, 1 / 8.0)
      var objective = try SelfExits(
        of: student.model, exits: [0, 1], soft: PlainDivergence(), softShare: alpha,
        hintWeight: lambda)
      let values = try objective.accumulate(
        student.model, Self.batch, ObjectiveContext(scale: scale, recomputes: recomputes))

      func pass() throws -> [(states: [Double], logs: [[Double]])] {
        var blocks: [Tensor] = []
        var observer = PassObserver()
        observer.onBlock = { blocks.append($1) }
        _ = try quiet.hidden(
          tokens: Self.batch.inputs, segments: Self.batch.segments, observer: observer)
        return blocks.map { block in
          let normed = quiet.finalNorm?(block) ?? block
          let logits = quiet.logits(normed)
          return (
            normed.array.map(Double.init),
            (0..<logits.rows).map { row in
              logSoftmax(
                (0..<logits.columns).map { Double(logits.floats[row * logits.columns + $0]) })
            }
          )
        }
      }
      let teacher = try pass()[2]
      func loss() throws -> Double {
        let exits = try pass()
        let width = exits[0].states.count / Self.batch.inputs.count
        var total = 0.0
        for place in Self.batch.inputs.indices where Self.batch.weights[place] != 0 {
          let target = Self.batch.targets[place]
          total -= exits[2].logs[place][target]
          for exit in exits[..<2] {
            total -= (1 - alpha) * exit.logs[place][target]
            for (p, q) in zip(teacher.logs[place], exit.logs[place]) {
              total += alpha * exp(p) * (p - q)
            }
            for i in place * width..<(place + 1) * width {
              let difference = exit.states[i] - teacher.states[i]
              total += lambda * difference * difference / Double(width)
            }
          }
        }
        return scale * total
      }
      #expect(abs((values["loss"] ?? 0) - (try loss())) < 1e-5)
      for parameter in student.parameters {
        let gradient = try #require(parameter.gradient)
        for index in stride(from: 0, to: parameter.count, by: max(parameter.count / 3, 1)) {
          let expected = try slope(parameter, index, loss)
          #expect(
            abs(Double(gradient.floats[index]) - expected) < 2e-3 + 2e-3 * abs(expected),
            "\(parameter.name)[\(index)]")
        }
      }
    }
  }

  @Test func exitsMustLieBeforeTheDeepest() throws {
    try withTemporaryDirectory { folder in
      let model = try PolicyModel(layers: 6).load(in: folder)
      #expect(try SelfExits(of: model, soft: PlainDivergence()).exits == [1, 3])
      #expect(
        sentence { _ = try SelfExits(of: model, exits: [1, 5], soft: PlainDivergence()) }
          == "the list of exits is [1, 5], which must be different blocks from 0 to 4, since the "
          + "last of 6 is the teacher. Correct the setting.")
    }
  }

  @Test func aChainOfGenerationsGoesOnWhereItWasStopped() throws {
    struct Stopped: Error {}
    try withTemporaryDirectory { folder in
      let chain = try BornAgain(generations: 3, seed: 4)
      var trained: [Int] = []
      func train(_ generation: BornAgain.Generation) throws {
        if generation.number == 2, trained == [1] {
          trained.append(0)
          throw Stopped()
        }
        trained.append(generation.number)
        let before = generation.teacher.hasSuffix("generation-\(generation.number - 1)")
        #expect(generation.number == 1 ? generation.teacher == "/teacher" : before)
        let model = try PolicyModel(seed: generation.seed).load(in: folder)
        try FileManager.default.moveItem(
          atPath: model.checkpoint.path, toPath: generation.output)
      }
      #expect(throws: Stopped.self) { try chain.run(teacher: "/teacher", in: folder, train: train) }
      let last = try chain.run(teacher: "/teacher", in: folder, train: train)
      #expect(trained == [1, 0, 2, 3])
      #expect(last.output == "\(folder)/generation-3")
      #expect(Set(chain.plan(teacher: "/teacher", in: folder).map(\.seed)).count == 3)
      #expect(try chain.ensemble(in: folder).vocabularySize == 5)
      #expect(
        sentence { _ = try BornAgain(generations: 0) }
          == "the number of generations is 0, which must be at least 1. Correct the setting.")
    }
  }
}
