import Checkpoints
import Foundation
import TestSupport
import Testing
import Text

@Test(.timeLimit(.minutes(10))) func aTrainingKilledAtRandomMomentsEndsInTheSameBytes() throws {
  try TrainingBench.with { bench in
    let steps = longTestsAreOn ? 400 : 100
    func arguments(_ output: String, _ more: String...) -> [String] {
      bench.arguments(output, steps: steps, "--checkpoint-every", "7", "--ema", "0.9") + more
    }
    let clock = ContinuousClock()
    let began = clock.now
    expectSuccess(try .run(arguments("whole")))
    let whole = (clock.now - began) / .seconds(1)
    var random = SystemRandomNumberGenerator()
    let kills = longTestsAreOn ? 20 : 3
    var done = 0, attempts = 0
    while done < kills, !bench.exists("killed"), attempts < 5 * kills {
      attempts += 1
      let wait = Double.random(in: 0..<whole * 1.5 / Double(kills), using: &random)
      let start = clock.now
      let process = try bench.interrupt(
        arguments("killed") + (bench.exists("killed.training") ? ["--resume"] : []),
        when: { (clock.now - start) / .seconds(1) > wait }, by: kill9)
      if process.terminationReason == .uncaughtSignal { done += 1 }
    }
    if !bench.exists("killed") {
      expectSuccess(
        try .run(
          arguments("killed") + (bench.exists("killed.training") ? ["--resume"] : [])))
    }
    try bench.expectTheSame("whole", "killed")
  }
}

@Test(.timeLimit(.minutes(2))) func ctrlCStopsATrainingAfterACheckpoint() throws {
  try TrainingBench.with { bench in
    let events = "metrics.jsonl"
    let arguments = bench.arguments("out", steps: 200, "--checkpoint-every", "1000")
    let process = try bench.interrupt(
      arguments, when: { bench.exists("out.training/\(events)") }, by: { $0.interrupt() })
    #expect(process.terminationStatus == 130)
    #expect(bench.checkpoints("out").count == 1)
    #expect(!bench.exists("out"))
    let result = try PareProcess.run(arguments + ["--resume", "--json"])
    expectSuccess(result)
    #expect((try result.json()["resumed_from"]?.int ?? 0) > 0)
    expectSuccess(
      try .run(bench.arguments("whole", steps: 200, "--checkpoint-every", "1000")))
    try bench.expectTheSame("whole", "out")
  }
}

@Test func theNumberOfThreadsChangesNoByteOfATraining() throws {
  try TrainingBench.with { bench in
    expectSuccess(try .run(bench.arguments("one", "--threads", "1")))
    expectSuccess(try .run(bench.arguments("three", "--threads", "3")))
    try bench.expectTheSame("one", "three")
  }
}

@Test(.timeLimit(.minutes(2))) func aFullDiskLeavesTheCheckpointBefore() throws {
  try TrainingBench.with { bench in
    let arguments = bench.arguments("out", steps: 3000, "--checkpoint-every", "3")
    _ = try bench.interrupt(
      arguments, when: { !bench.checkpoints("out").isEmpty }, by: kill9)
    let before = bench.checkpoints("out")
    // 512-byte blocks: enough for the model, too few for the optimizer's state.
    let full = try PareProcess.run(arguments + ["--resume"], shell: "ulimit -f 1000")
    expectTrainingFailure(full, naming: "training_state.safetensors")
    #expect(!before.isEmpty && bench.checkpoints("out") == before)
    #expect(!bench.exists("out"))
    // Another attempt with room goes on from there.
    let process = try bench.interrupt(
      arguments + ["--resume"],
      when: { bench.checkpoints("out").sorted() != before.sorted() }, by: { $0.interrupt() })
    #expect(process.terminationStatus == 130)
  }
}

@Test func aRunGoesOnlyOnWithItsOwnSettingsAndData() throws {
  try TrainingBench.with { bench in
    func arguments(_ more: [String] = []) -> [String] {
      bench.arguments("out", steps: 5000, "--checkpoint-every", "2", "--resume") + more
    }
    expectTrainingFailure(try .run(arguments()), naming: "no checkpoint", "out.training")
    _ = try bench.interrupt(
      arguments().dropLast(), when: { !bench.checkpoints("out").isEmpty }, by: kill9)
    let before = bench.checkpoints("out").sorted()
    for (option, value, name) in [
      ("--learning-rate", "1e-5", "optimizer"), ("--seed", "3", "seed"),
      ("--train", "norm", "train"),
      ("--validation", "0.2", "validation"), ("--chat-template", "chatml", "chat_template"),
    ] {
      // A new seed or fewer tensors show first in what was saved under the old.
      expectTrainingFailure(try .run(arguments([option, value])), naming: name)
    }
    expectTrainingFailure(
      try .run(bench.arguments("out", steps: 5000, "--checkpoint-every", "2")),
      naming: "unfinished run", "--resume", "--overwrite")
    try TrainingBench.write("Other words.", "\(bench.folder)/data.txt")
    expectTrainingFailure(try .run(arguments()), naming: "data")
    #expect(bench.checkpoints("out").sorted() == before)
  }
}

@Test func anOutputIsReplacedOnlyWhenAsked() throws {
  try TrainingBench.with { bench in
    expectSuccess(try .run(bench.arguments("out")))
    let before = try bench.files("out")
    expectTrainingFailure(
      try .run(bench.arguments("out", "--seed", "2")), naming: "out", "--overwrite")
    #expect(try bench.files("out") == before)
    #expect(!bench.exists("out.training"))
    expectSuccess(try .run(bench.arguments("out", "--seed", "2", "--overwrite")))
    #expect(try bench.files("out")["model.safetensors"] != before["model.safetensors"])
    // Known before the work: the output would take the place of what is read.
    let model = "\(bench.folder)/out"
    var arguments = bench.finetune("out", "--overwrite", model: model)
    expectTrainingFailure(try .run(arguments), naming: model)
    arguments[arguments.count - 2] = "/nowhere/at/all"
    expectTrainingFailure(try .run(arguments), naming: "/nowhere/at")
    #expect(!bench.exists("out.training"))
  }
}
