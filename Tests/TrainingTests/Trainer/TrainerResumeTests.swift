import Codecs
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Text
import Training

/// A way to train that keeps something of its own from step to step.
struct Variant: Sendable, CustomTestStringConvertible {
  var name: String
  var optimizer = "adamw"
  var adapters: AdapterSettings?
  var codec: NF4?
  var change: @Sendable (inout TrainingSettings) -> Void = { _ in }

  var testDescription: String { name }

  func settings() throws -> TrainingSettings {
    var settings = try TrainerFixture.settings(optimizer)
    change(&settings)
    return settings
  }

  func trainer(_ fixture: TrainerFixture, work: String?) throws -> Trainer {
    try fixture.trainer(settings(), work: work, adapters: adapters, quantizingBase: codec)
  }

  static let all: [Variant] = [
    Variant(name: "AdamW"), Variant(name: "SGD", optimizer: "sgd"),
    Variant(name: "Lion", optimizer: "lion"), Variant(name: "Muon", optimizer: "muon"),
    Variant(name: "8-bit state") { $0.optimizerOptions.usesEightBitState = true },
    Variant(name: "8-bit Muon", optimizer: "muon") {
      $0.optimizerOptions.usesEightBitState = true
    },
    Variant(name: "bfloat16 with master copies") { $0.parameterType = .bfloat16 },
    Variant(name: "bfloat16 rounded at random") {
      $0.parameterType = .bfloat16
      $0.optimizerOptions.keepsMasterCopies = false
    },
    Variant(name: "average of weights") { $0.averageDecay = 0.9 },
    Variant(name: "accumulation") { $0.microBatchSize = 1 },
    Variant(name: "recomputation") { $0.recomputes = true },
    Variant(name: "whole documents") { $0.mode = .whole },
    Variant(name: "padded documents") { $0.mode = .padded },
    Variant(name: "one stream") { $0.mode = .stream },
    Variant(name: "windows") { $0.mode = .windows },
    Variant(name: "LoRA with dropout", adapters: AdapterSettings(rank: 3, dropout: 0.3)) {
      $0.microBatchSize = 2
    },
    Variant(
      name: "DoRA on codes", adapters: AdapterSettings(rank: 3, isWeightDecomposed: true),
      codec: .qlora),
  ]
}

struct TrainerResumeTests {
  @Test(arguments: Variant.all)
  func aRunResumedAfterAnyStepEndsInTheSameBytes(variant: Variant) throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      let whole = try variant.trainer(fixture, work: nil)
      let losses = try whole.losses()
      #expect(losses.count == 5)
      for stop in 1..<5 {
        try variant.trainer(fixture, work: "stop-\(stop)").losses(until: stop)
        let resumed = try variant.trainer(fixture, work: "stop-\(stop)")
        try resumed.resume()
        #expect(resumed.step == stop)
        #expect(try resumed.losses() == losses.filter { $0.key > stop }, "after \(stop)")
        #expect(resumed.bytes == whole.bytes, "after \(stop)")
        #expect(resumed.tokens == whole.tokens)
      }
    }
  }

  @Test func aCheckpointIsAModelOfItsMoment() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      let trainer = try fixture.trainer(try TrainerFixture.settings(steps: 2), work: "work")
      try trainer.losses()
      let model = try LanguageModel.load("\(folder)/work/checkpoint-2")
      #expect(
        model.embedding.table.dequantized().array
          == trainer.measured.embedding.table.dequantized().array)
    }
  }

  @Test func onlyTheNewestCheckpointsStay() throws {
    try withTemporaryDirectory { folder in
      var settings = try TrainerFixture.settings()
      settings.checkpointEvery = 1
      try TrainerFixture(folder).trainer(settings, work: "work").losses()
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: "\(folder)/work").sorted()
          == ["checkpoint-4", "checkpoint-5"])
    }
  }

  /// A setting and a change to it.
  struct Change: Sendable, CustomTestStringConvertible {
    var name: String
    var apply: @Sendable (inout TrainingSettings) throws -> Void
    var testDescription: String { name }
  }

  static let changes: [Change] = [
    Change(name: "steps") { $0.steps = 6 }, Change(name: "batch_size") { $0.batchSize = 8 },
    Change(name: "length") { $0.length = 16 },
    Change(name: "micro_batch_size") { $0.microBatchSize = 2 },
    Change(name: "packing") { $0.mode = .padded },
    Change(name: "optimizer") { $0.optimizer = try .init(named: "lion", learningRate: 3e-3) },
    Change(name: "optimizer") { $0.optimizer = try .init(named: "adamw", learningRate: 1e-3) },
    Change(name: "optimizer_options") { $0.optimizerOptions.usesEightBitState = true },
    Change(name: "schedule") { $0.schedule = Schedule(.constant, warmupSteps: 2) },
    Change(name: "clip_norm") { $0.clipNorm = nil }, Change(name: "ema") { $0.averageDecay = 0.9 },
    Change(name: "parameter_type") { $0.parameterType = .bfloat16 },
    Change(name: "seed") { $0.seed = 10 },
  ]

  @Test(arguments: changes) func otherSettingsAreRefusedByName(change: Change) throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      var settings = try TrainerFixture.settings()
      try fixture.trainer(settings, work: "work").losses(until: 2)
      try change.apply(&settings)
      let other = try fixture.trainer(settings, work: "work")
      let before = other.bytes
      guard case .differentRun(let name, _, _, _)? = trainingError({ try other.resume() }) else {
        Issue.record("\(change.name) was not refused")
        return
      }
      #expect(name == change.name)
      #expect(other.bytes == before)
    }
  }

  @Test func otherDataAndModelsAreRefusedByName() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      let settings = try TrainerFixture.settings()
      try fixture.trainer(settings, work: "work", identity: JSONObject([("data", "a")])).losses(
        until: 2)
      let other = try fixture.trainer(settings, work: "work", identity: JSONObject([("data", "b")]))
      let text = sentence { try other.resume() }
      #expect(text.contains("data a") && text.contains("has b") && text.contains("checkpoint-2"))
    }
  }

  @Test func aDamagedCheckpointIsRefusedAndTheOneBeforeServes() throws {
    try withTemporaryDirectory { folder in
      let fixture = try TrainerFixture(folder)
      var settings = try TrainerFixture.settings()
      settings.checkpointEvery = 1
      try fixture.trainer(settings, work: "work").losses(until: 3)
      let newest = "\(folder)/work/checkpoint-3"
      let file = "\(newest)/training_state.safetensors"
      let bytes = try Data(contentsOf: URL(filePath: file))
      try bytes.dropLast(100).write(to: URL(filePath: file))
      let text = sentence { try fixture.trainer(settings, work: "work").resume() }
      #expect(text.contains("training_state.safetensors"), "\(text)")
      try FileManager.default.removeItem(atPath: newest)
      let resumed = try fixture.trainer(settings, work: "work")
      try resumed.resume()
      #expect(resumed.step == 2)
      try resumed.losses()
      let whole = try fixture.trainer(settings)
      try whole.losses()
      #expect(resumed.bytes == whole.bytes)
    }
  }

  @Test func nothingToResumeIsSaid() throws {
    try withTemporaryDirectory { folder in
      let trainer = try TrainerFixture(folder).trainer(
        try TrainerFixture.settings(), work: "work")
      #expect(sentence { try trainer.resume() }.contains("no checkpoint"))
    }
  }
}
