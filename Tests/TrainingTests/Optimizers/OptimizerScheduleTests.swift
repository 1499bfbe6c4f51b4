import Foundation
import TestSupport
import Testing
import Training

@Suite struct OptimizerScheduleTests {
  @Test(arguments: [
    ("constant", Schedule.Shape.constant), ("linear", .linear()), ("cosine", .cosine()),
    ("cosine-minimum", .cosine(minimum: 0.1)), ("wsd", .warmupStableDecay(decayShare: 0.3)),
    (
      "wsd-square-root",
      .warmupStableDecay(decayShare: 0.3, decay: .oneMinusSquareRoot, minimum: 0.2)
    ),
  ])
  func factorsAreTransformers(name: String, shape: Schedule.Shape) throws {
    let path = SharedFiles.packageRoot.appending(path: "Tests/Golden/training/schedules.json")
    let table = try JSONSerialization.jsonObject(with: Data(contentsOf: path))
    for warmup in [0, 5] {
      let expected = try #require((table as? [String: [Double]])?["\(name)/\(warmup)"])
      let schedule = Schedule(shape, warmupSteps: warmup)
      try schedule.validate(total: 23)
      // Their cosine rises again after the end, where nobody trains.
      for (step, factor) in expected.enumerated() where step <= 23 {
        #expect(abs(schedule.factor(step: step, total: 23) - factor) < 1e-12, "step \(step)")
      }
    }
  }

  @Test func minimaAreReachedAndKept() {
    for shape in [
      Schedule.Shape.linear(minimum: 0.3), .cosine(minimum: 0.3),
      .warmupStableDecay(decayShare: 0.5, decay: .linear, minimum: 0.3),
    ] {
      let schedule = Schedule(shape, warmupSteps: 3)
      for step in [40, 41, 1000] {
        #expect(abs(schedule.factor(step: step, total: 40) - 0.3) < 1e-12)
      }
      #expect(schedule.factor(step: 3, total: 40) == 1)
    }
  }

  @Test func badSettingsAreRefused() {
    for schedule in [
      Schedule(.constant, warmupSteps: -1), Schedule(.constant, warmupSteps: 11),
      Schedule(.cosine(minimum: 1.5)), Schedule(.linear(minimum: -.infinity)),
      Schedule(.warmupStableDecay(decayShare: 0.6), warmupSteps: 5),
      Schedule(.warmupStableDecay(decayShare: .nan)),
    ] {
      #expect(throws: TrainingError.self) { try schedule.validate(total: 10) }
    }
  }
}
