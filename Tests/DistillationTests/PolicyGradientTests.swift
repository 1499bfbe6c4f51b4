import Distillation
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Training

struct PolicyGradientTests {
  /// KL(q ‖ p) over all continuations of two tokens, by enumeration.
  private func divergence(_ student: LanguageModel, _ teacher: LanguageModel, prompt: [Int])
    throws -> Double
  {
    try texts(student, teacher, prompt: prompt).reduce(0) { $0 + exp($1.q) * ($1.q - $1.p) }
  }

  /// Every continuation of two tokens with its log-probabilities.
  private func texts(_ student: LanguageModel, _ teacher: LanguageModel, prompt: [Int]) throws -> [(
    tokens: [Int], q: Double, p: Double, steps: [(q: Double, p: Double)]
  )] {
    let vocabulary = student.configuration.vocabularySize
    let last = prompt.count - 1
    return try (0..<vocabulary).flatMap { first in
      let q = try student.allLogits(prompt + [first]).map(logSoftmax)
      let p = try teacher.allLogits(prompt + [first]).map(logSoftmax)
      return (0..<vocabulary).map { second in
        let steps = [
          (q: q[last][first], p: p[last][first]), (q: q[last + 1][second], p: p[last + 1][second]),
        ]
        return (
          prompt + [first, second], steps[0].q + steps[1].q, steps[0].p + steps[1].p, steps
        )
      }
    }
  }

  /// The estimator's mean over every possible sample is the gradient of the divergence of
  /// sequences, for every parameter, whoever wrote the samples. What is compared is exact up to
  /// float32 and the finite difference's h² (4e-3 with slopes of order 1).
  @Test(arguments: [0, 0.2, 0.5])
  func theEstimateIsUnbiased(teacherShare: Double) throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      let teacher = try PolicyModel(hidden: 12, seed: 2).load(in: folder)
      let prompt = [0, 3]
      let objective = try MiniLLM(
        teacher: teacher, student: student.model,
        reverseDivergence: PlainDivergence(isReverse: true),
        gradient: PolicyGradient(
          teacherShare: teacherShare, importance: .sequence, normalizesLength: false, clip: nil))
      let quiet = student.model.detached
      for text in try texts(quiet, teacher, prompt: prompt) {
        let probability = text.steps.reduce(1.0) {
          $0 * (teacherShare * exp($1.p) + (1 - teacherShare) * exp($1.q))
        }
        _ = try objective.accumulate(
          student.model, samples: .text(text.tokens, prompt: prompt.count),
          ObjectiveContext(scale: probability))
      }
      for parameter in student.parameters {
        let gradient = try #require(parameter.gradient)
        for index in stride(from: 0, to: parameter.count, by: max(parameter.count / 4, 1)) {
          let expected = try slope(parameter, index) {
            try divergence(quiet, teacher, prompt: prompt)
          }
          #expect(
            abs(Double(gradient.floats[index]) - expected) < 2e-3 + 2e-3 * abs(expected),
            "\(parameter.name)[\(index)]")
        }
      }
    }
  }

  @Test func factorsOfTokensAreThePapers() {
    let q = [-0.4, -1.1, -2.0, -0.3], p = [-1.4, -0.2, -2.5, -0.9]
    let alpha = 0.2
    let factors = PolicyGradient(teacherShare: alpha, clip: nil).factors(student: q, teacher: p)
    for t in 0..<4 {
      let weight = exp(q[t]) / (alpha * exp(p[t]) + (1 - alpha) * exp(q[t]))
      var reward = 0.0
      for later in (t + 1)..<max(4, t + 1) { reward += p[later] - q[later] }
      reward /= Double(max(3 - t, 1))
      #expect(abs(factors.single[t] - weight) < 1e-12)
      #expect(abs(factors.future[t] - weight * reward) < 1e-12)
    }
  }

  @Test func clippingStopsWeightsThatWouldMoveFurtherOut() {
    // The first token has weight 1 / (0.2 e³ + 0.8) = 0.21 and bad news follow; the second, 1.24
    // and good news.
    let gradient = PolicyGradient(teacherShare: 0.2, normalizesLength: false, clip: 0.2)
    let bad = gradient.factors(student: [-4, -1], teacher: [-1, -2])
    #expect(bad.future == [0, 0])
    let good = gradient.factors(student: [-1, -2], teacher: [-6, -1])
    #expect(good.future == [0, 0])
    var unclipped = gradient
    unclipped.clip = nil
    #expect(unclipped.factors(student: [-4, -1], teacher: [-1, -2]).future[0] < 0)
    #expect(unclipped.factors(student: [-1, -2], teacher: [-6, -1]).future[0] > 0)
  }

  @Test func learningFromSamplesLowersTheDivergence() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      let teacher = try PolicyModel(seed: 2).load(in: folder)
      var settings = ContinuationSettings()
      settings.maxNewTokens = 2
      settings.promptTokens = 2
      settings.prompts = 16
      var objective = try MiniLLM(
        teacher: teacher, student: student.model,
        reverseDivergence: PlainDivergence(isReverse: true), settings: settings, textWeight: 0)
      let batch = TrainingBatch(
        (0..<16).map { _ in
          TrainingExample(tokens: [0, 3, 1, 2], counts: [false, true, true, true])
        })
      let quiet = student.model.detached
      let before = try divergence(quiet, teacher, prompt: [0, 3])
      let optimizer = try OptimizerChoice(named: "adamw", learningRate: 0.02)
        .makeOptimizer(for: student.parameters)
      for step in 0..<60 {
        for parameter in student.parameters { parameter.clearGradient() }
        let values = try objective.accumulate(
          student.model, batch,
          ObjectiveContext(scale: 1 / 48, step: step, steps: 60, seed: 7))
        #expect(values.values.allSatisfy { $0.isFinite })
        optimizer.step(learningRateFactor: 1, gradientFactor: 1)
      }
      #expect(try divergence(quiet, teacher, prompt: [0, 3]) < 0.3 * before)
    }
  }

  @Test func plainTextAddsItsLikelihoodLoss() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel(seed: 1).load(in: folder).withParameters()
      let teacher = try PolicyModel(seed: 2).load(in: folder)
      let batch = TrainingBatch.text([0, 3, 1, 2, 4])
      func run(_ weight: Double) throws -> [Float] {
        for parameter in student.parameters { parameter.clearGradient() }
        var objective = try MiniLLM(
          teacher: teacher, student: student.model,
          reverseDivergence: PlainDivergence(isReverse: true), textWeight: weight)
        _ = try objective.accumulate(student.model, batch, ObjectiveContext(scale: 0.25))
        return gradients(student.parameters)
      }
      let (without, with) = (try run(0), try run(0.5))
      for parameter in student.parameters { parameter.clearGradient() }
      var modeling = LanguageModeling()
      _ = try modeling.accumulate(student.model, batch, ObjectiveContext(scale: 0.125))
      for (sum, (a, b)) in zip(with, zip(without, gradients(student.parameters))) {
        #expect(abs(sum - a - b) < 1e-5)
      }
    }
  }

  @Test func refusesWhatItCannotEstimate() throws {
    try withTemporaryDirectory { folder in
      let student = try PolicyModel().load(in: folder)
      let other = try PolicyModel(vocabulary: 7).load(in: folder)
      let reverse = PlainDivergence(isReverse: true)
      #expect(
        sentence {
          _ = try MiniLLM(teacher: other, student: student, reverseDivergence: reverse)
        }
          == "Vocabularies of 5 and 7 tokens cannot be brought together for a policy gradient. "
          + "Choose models with one tokenizer.")
      #expect(
        sentence {
          _ = try MiniLLM(
            teacher: student, student: student, reverseDivergence: reverse,
            gradient: PolicyGradient(teacherShare: 1))
        }.hasPrefix("the teacher's share in samples is 1.0, which must be"))
    }
  }
}
