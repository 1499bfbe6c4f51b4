import Distillation
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Training

struct OnPolicyTests {
  private static let batch = TrainingBatch([
    TrainingExample(tokens: [0, 3, 1, 2, 4, 3], counts: [false, true, true, true, true, true]),
    TrainingExample(tokens: [0, 2, 2, 1, 3], counts: [false, false, true, true, true]),
  ])

  private var settings: ContinuationSettings {
    var settings = ContinuationSettings()
    settings.maxNewTokens = 5
    settings.prompts = 2
    return settings
  }

  private func objective(_ teacher: LanguageModel) -> DistillationObjective {
    DistillationObjective(
      teacher: ModelTeacher(teacher), logitLosses: [.init(PlainDivergence(), weight: 1)])
  }

  /// The values and gradients of one batch.
  private func run(
    _ objective: any Objective, _ student: (model: LanguageModel, parameters: [Parameter]),
    step: Int = 0, seed: UInt64 = 9
  ) throws -> (values: [String: Double], gradients: [Float]) {
    for parameter in student.parameters { parameter.clearGradient() }
    var objective = objective
    let values = try objective.accumulate(
      student.model, Self.batch,
      ObjectiveContext(scale: 1 / 8, step: step, steps: 10, seed: seed))
    return (values, gradients(student.parameters))
  }

  @Test func withoutSamplesOnlyTheDataIsLearned() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      let inner = objective(try PolicyModel(seed: 2).load(in: folder))
      let plain = try run(inner, student)
      let result = try run(
        GeneralizedDistillation(inner, studentShare: 0, settings: settings), student)
      #expect(result.gradients == plain.gradients)
      #expect(result.values["sampled"] == 0)
    }
  }

  /// On samples the mean over generated tokens takes the place of the mean over the data's.
  @Test func withSamplesTheTeacherJudgesWhatTheStudentWrote() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      let teacher = try PolicyModel(seed: 2).load(in: folder)
      let generalized = try GeneralizedDistillation(
        objective(teacher), studentShare: 1, settings: settings)
      let result = try run(generalized, student)
      #expect(abs((result.values["sampled"] ?? 0) - 1) < 1e-12)
      #expect(try run(generalized, student).gradients == result.gradients)
      #expect(try run(generalized, student, step: 1).gradients != result.gradients)
      #expect(try run(generalized, student, seed: 10).gradients != result.gradients)
      // Five tokens for each prompt, so the mean divergence is over ten places.
      let value = try #require(result.values["soft"])
      #expect(value > 0 && value < 20)
    }
  }

  @Test func aShareOfTheStepsIsOnSamples() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      let generalized = try GeneralizedDistillation(
        objective(try PolicyModel(seed: 2).load(in: folder)), studentShare: 0.3,
        settings: settings)
      let sampled = try (0..<200).filter {
        try run(generalized, student, step: $0).values["sampled"] != 0
      }
      // Binomial, deviation 6.5.
      #expect((35...85).contains(sampled.count))
    }
  }

  @Test func atTheLevelOfSequencesTheTeachersOutputsAreTheLabels() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      let teacher = try PolicyModel(seed: 2).load(in: folder)
      var settings = settings
      settings.temperature = 0
      let result = try run(
        GeneralizedDistillation.sequenceLevel(teacher: teacher, settings: settings), student)
      let texts = try ContinuationSampler(teacher, settings).continuations(
        of: [[0, 3, 1], [0, 2]], seeds: [0, 0])
      for parameter in student.parameters { parameter.clearGradient() }
      var modeling = LanguageModeling()
      let values = try modeling.accumulate(
        student.model, TrainingBatch(texts), ObjectiveContext(scale: 1 / 10))
      #expect(abs((values["loss"] ?? 0) - (result.values["loss"] ?? 1)) < 1e-6)
      for (a, b) in zip(gradients(student.parameters), result.gradients) {
        #expect(abs(a - b) < 1e-6)
      }
    }
  }

  @Test func samplesComeInWhenValidationGetsWorse() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      var replay = AdaptiveReplay.Settings()
      (replay.increment, replay.tolerance, replay.validateEvery) = (1, 0.05, 1)
      replay.capacity = 3
      var objective = try AdaptiveReplay(
        objective(try PolicyModel(seed: 2).load(in: folder)), validation: [Self.batch],
        replay: replay, continuation: settings)
      func step(_ number: Int) throws -> Double? {
        try objective.accumulate(
          student.model, Self.batch,
          ObjectiveContext(scale: 1 / 8, step: number, steps: 4, seed: 1))["sampled"]
      }
      #expect(try step(0) == 0)
      #expect(try step(1) == 0)
      #expect(objective.probability == 0)
      // A head that is turned round predicts worse.
      for parameter in student.parameters where parameter.name.hasPrefix("lm_head") {
        parameter.assign(parameter.tensor.detached.scaled(by: -3))
      }
      #expect(abs((try step(2) ?? 0) - 1) < 1e-12)
      #expect(objective.probability == 1)
      #expect(objective.buffer.texts.count == 2)
      #expect(abs((try step(3) ?? 0) - 1) < 1e-12)
      // The oldest made room, and the buffer is full: the last step drew from it.
      #expect(objective.buffer.texts.count == 3)
      let full = objective.buffer
      #expect(abs((try step(4) ?? 0) - 1) < 1e-12)
      #expect(objective.buffer == full)
    }
  }

  @Test func aBufferComesBackAsItWas() throws {
    var buffer = ReplayBuffer(capacity: 4)
    #expect(buffer.state("b").isEmpty)
    buffer.add(
      (0..<6).map {
        TrainingExample(
          tokens: Array(0...$0), counts: (0...$0).map { place in place >= 1 })
      })
    #expect(buffer.texts.map(\.tokens.count) == [3, 4, 5, 6])
    var other = ReplayBuffer(capacity: 4)
    let state = Dictionary(uniqueKeysWithValues: buffer.state("b").map { ($0.name, $0.tensor) })
    try other.restore("b", from: state)
    #expect(other == buffer)
    var random = Xoshiro256(seed: 1)
    let drawn = buffer.sample(3, &random)
    #expect(Set(drawn.map(\.tokens.count)).count == 3)
    #expect(buffer.sample(9, &random).count == 4)
    var small = ReplayBuffer(capacity: 2)
    #expect(
      sentence { try small.restore("b", from: state) }
        == "The distillation's state b cannot be restored: its texts do not fit together. Resume "
        + "with the settings that the state was saved with.")
  }

  /// Samples, buffer, adapted probability and the averaged teacher all come back from a checkpoint.
  @Test func aResumedRunEndsInTheSameBytes() throws {
    try withTemporaryDirectory { folder in
      let source = try PolicyModel(
        vocabulary: LetterData.vocabulary, context: 32, endToken: 1
      ).load(in: folder)
      let stream = try LetterData.stream(folder, rows: 2, length: 12)
      var validation = stream
      let heldOut = try #require(try validation.next())
      var settings = TrainingSettings(
        steps: 8, optimizer: try OptimizerChoice(named: "adamw", learningRate: 0.01))
      (settings.batchSize, settings.length, settings.microBatchSize) = (4, 12, 2)
      (settings.checkpointEvery, settings.seed) = (100, 21)
      func trainer(_ run: String) throws -> Trainer {
        try FileManager.default.createDirectory(
          atPath: "\(folder)/\(run)", withIntermediateDirectories: true)
        let student = source.withParameters()
        let teacher = try AverageTeacher(of: student.model, student.parameters, decay: 0.9)
        var replay = AdaptiveReplay.Settings()
        (replay.probability, replay.capacity, replay.validateEvery) = (0.7, 5, 2)
        (replay.increment, replay.tolerance) = (0.1, 0)
        let objective = try AdaptiveReplay(
          AverageDistillation(
            DistillationObjective(
              teacher: teacher,
              logitLosses: [
                .init(PlainDivergence(), weight: 0.5), .init(LabelLoss(), weight: 0.5),
              ]), teacher: teacher), validation: [heldOut], replay: replay,
          continuation: self.settings)
        return try Trainer(
          model: student.model, parameters: student.parameters, objective: objective,
          stream: stream, settings: settings, folder: "\(folder)/\(run)")
      }
      let whole = try trainer("whole")
      var sampled = 0
      try whole.run {
        if ($0.values["sampled"] ?? 0) > 0 { sampled += 1 }
        return true
      }
      #expect(sampled > 0 && sampled < 8)
      try trainer("parts").run { $0.step < 5 }
      let rest = try trainer("parts")
      try rest.resume()
      #expect(rest.step == 5)
      try rest.run()
      for (a, b) in zip(whole.parameters, rest.parameters) {
        #expect(a.tensor.array == b.tensor.array)
      }
      let states = try [whole, rest].map { try #require($0.lastCheckpoint).read().state }
      #expect(states[0].keys.contains("replay.tokens"))
      #expect(Set(states[0].keys) == Set(states[1].keys))
      for (name, tensor) in states[0] {
        let other = try #require(states[1][name])
        #expect(Array(tensor.bytes) == Array(other.bytes), "\(name)")
      }
    }
  }
}
