import Codecs
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Text
import Training

struct TrainerTests {
  @Test func theLossOfATextFalls() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder, text: String(repeating: "abcabd", count: 60))
      var settings = try TrainerFixture.settings(steps: 40)
      settings.optimizer = try .init(named: "adamw", learningRate: 1e-2)
      let losses = try fixture.trainer(settings).losses()
      #expect(try #require(losses[1]) > 4)
      #expect(try #require(losses[40]) < 1)
    }
  }

  @Test(arguments: Variant.all.filter { ["AdamW", "Muon", "DoRA on codes"].contains($0.name) })
  func theNumberOfThreadsChangesNoBit(variant: Variant) throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      let threads = Parallel.threads
      defer { Parallel.threads = threads }
      var seen: [[String: [UInt8]]] = []
      for count in [1, 2, 5] {
        Parallel.threads = count
        let trainer = try variant.trainer(fixture, work: nil)
        try trainer.losses()
        seen.append(trainer.bytes)
      }
      #expect(seen[1] == seen[0] && seen[2] == seen[0])
    }
  }

  @Test(arguments: [nil, AdapterSettings(rank: 3), AdapterSettings(rank: 3, dropout: 0.5)])
  func recomputingBlocksChangesNoBit(adapters: AdapterSettings?) throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      var settings = try TrainerFixture.settings()
      let kept = try fixture.trainer(settings, adapters: adapters)
      try kept.losses()
      settings.recomputes = true
      let recomputed = try fixture.trainer(settings, adapters: adapters)
      try recomputed.losses()
      #expect(kept.bytes == recomputed.bytes)
    }
  }

  /// Documents of different lengths, one per row: micro-batches with different numbers of tokens that
  /// count. A mean of their means would differ in the first digits.
  @Test func accumulatedMicroBatchesAreTheFullBatchToRounding() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      var settings = try TrainerFixture.settings(steps: 3, "sgd")
      settings.mode = .padded
      settings.clipNorm = nil
      settings.optimizer = try .init(named: "sgd", learningRate: 0.1)
      let full = try fixture.trainer(settings)
      let losses = try full.losses()
      settings.microBatchSize = 1
      let parts = try fixture.trainer(settings)
      let partLosses = try parts.losses()
      for (step, loss) in losses {
        #expect(abs(loss - (partLosses[step] ?? 0)) < 1e-5 * loss, "step \(step)")
      }
      for (a, b) in zip(full.parameters, parts.parameters) {
        let worst = zip(a.tensor.array, b.tensor.array).map { abs($0 - $1) }.max() ?? 1
        #expect(worst < 2e-5, "\(a.name): \(worst)")
      }
    }
  }

  // MARK: Numbers that run away

  @Test func aRateThatDivergesStopsWithStepPlaceAndAGoodCheckpoint() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      var settings = try TrainerFixture.settings(steps: 300)
      settings.optimizer = try .init(named: "adamw", learningRate: 1e6)
      settings.schedule = Schedule(.constant, warmupSteps: 0)
      settings.clipNorm = nil
      settings.checkpointEvery = 1
      let trainer = try fixture.trainer(settings, work: "work")
      guard
        case .diverged(let step, let place, let checkpoint)? = trainingError({
          try trainer.losses()
        })
      else {
        Issue.record("the run did not stop")
        return
      }
      #expect(step >= 1 && !place.isEmpty)
      let all = try TrainingCheckpoint.all(in: "\(folder)/work")
      #expect(all.last?.path == checkpoint)
      for kept in all {
        for (name, tensor) in try kept.read().state where tensor.dtype == .float32 {
          let isFinite = tensor.widened().array.allSatisfy(\.isFinite)
          #expect(isFinite, "\(kept.path): \(name)")
        }
        _ = try LanguageModel.load(kept.path)
      }
    }
  }

  @Test func weightsThatAreNotFiniteAreNeverWritten() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      var settings = try TrainerFixture.settings(steps: 1, "sgd")
      settings.optimizer = try .init(named: "sgd", learningRate: 1e300)
      settings.schedule = Schedule(.constant, warmupSteps: 0)
      let trainer = try fixture.trainer(settings, work: "work")
      guard case .diverged(1, let place, nil)? = trainingError({ try trainer.losses() }) else {
        Issue.record("the run did not stop")
        return
      }
      #expect(trainer.parameters.map(\.name).contains(place))
      #expect(try TrainingCheckpoint.all(in: "\(folder)/work").isEmpty)
    }
  }

  // MARK: Memory

  @Test func aBatchThatCannotFitIsRefusedWithOneThatDoes() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      var settings = try TrainerFixture.settings()
      settings.batchSize = 4096
      settings.length = 64
      func estimate() throws -> MemoryEstimate {
        let trainer = try fixture.trainer(settings)
        return MemoryEstimate(
          model: trainer.model, parameters: trainer.parameters, settings: settings)
      }
      let limit = try estimate().total / 2
      let error = trainingError {
        try estimate().check(limit: limit, settings: settings)
      }
      guard case .memoryExceeded(let needed, limit, let advice)? = error else {
        Issue.record("not refused")
        return
      }
      #expect(needed > limit)
      let rows = try #require(
        advice.split(separator: " ").compactMap { Int($0.filter(\.isNumber)) }.first)
      #expect(4096 % rows == 0)
      settings.microBatchSize = rows
      #expect(try estimate().total <= limit)
      // Twice as many would not fit.
      settings.microBatchSize = 2 * rows
      #expect(try estimate().total > limit)
    }
  }

  @Test func aQuantizedBaseIsCountedByItsCodes() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      let settings = try TrainerFixture.settings()
      let adapters = AdapterSettings(rank: 2)
      func weights(_ codec: NF4?) throws -> Int {
        let trainer = try fixture.trainer(settings, adapters: adapters, quantizingBase: codec)
        return MemoryEstimate(
          model: trainer.model, parameters: trainer.parameters, settings: settings
        ).weightBytes
      }
      // Numbers inside blocks go from 32 bits to 4 and a share of scales.
      let numbers = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 56)
      // Levels and their quantized scales' levels go with each of the 14 matrices.
      let tables = 14 * 4 * (16 + 256)
      let saved = try Double(weights(nil) - weights(.qlora) + tables) / Double(numbers)
      #expect(saved > 3.3 && saved < 3.5, "\(saved)")
    }
  }
}
