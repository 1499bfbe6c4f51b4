import Foundation
import TestSupport
import Testing

/// Arguments that quantize the default model on a few samples of a text.
private struct QuantizeBench {
  let bench: TrainingBench

  static func with(_ body: (QuantizeBench) throws -> Void) throws {
    try TrainingBench.with { try body(QuantizeBench(bench: $0)) }
  }

  func arguments(_ output: String, method: String = "awq", _ more: String...) -> [String] {
    [
      "quantize", Stories.model, "--method", method, "--bits", "3", "--group-size", "64",
      "--calibration", "\(bench.folder)/data.txt", "--samples", "4", "--length", "16", "-o",
      "\(bench.folder)/\(output)",
    ] + more
  }
}

@Test(.timeLimit(.minutes(15))) func aQuantizationKilledAtRandomMomentsEndsInTheSameBytes() throws {
  try QuantizeBench.with { quantize in
    let bench = quantize.bench
    let clock = ContinuousClock()
    let began = clock.now
    expectSuccess(try .run(quantize.arguments("whole")))
    let whole = (clock.now - began) / .seconds(1)
    var random = SystemRandomNumberGenerator()
    let kills = longTestsAreOn ? 20 : 3
    var done = 0, attempts = 0
    while done < kills, attempts < 5 * kills {
      attempts += 1
      let wait = Double.random(in: 0..<whole, using: &random)
      let start = clock.now
      let process = try bench.interrupt(
        quantize.arguments("killed") + ["--resume", "--overwrite"],
        when: { (clock.now - start) / .seconds(1) > wait }, by: kill9)
      if process.terminationReason == .uncaughtSignal { done += 1 }
    }
    #expect(done == kills)
    expectSuccess(try .run(quantize.arguments("killed") + ["--resume", "--overwrite"]))
    try bench.expectTheSame("whole", "killed")
    #expect(!bench.exists("killed.compressing"))
  }
}

@Test func anUnfinishedQuantizationIsNeitherMixedNorLost() throws {
  try QuantizeBench.with { quantize in
    let bench = quantize.bench
    let process = try bench.interrupt(
      quantize.arguments("out"), when: { bench.exists("out.compressing/block-0") }, by: kill9)
    try #require(process.terminationReason == .uncaughtSignal)
    expectTrainingFailure(
      try .run(quantize.arguments("out")), naming: "unfinished run", "--resume")
    var other = quantize.arguments("out") + ["--resume"]
    other[5] = "4"
    expectTrainingFailure(try .run(other), naming: "another", "--overwrite")
    #expect(bench.exists("out.compressing/block-0"))
    expectSuccess(try .run(quantize.arguments("out") + ["--resume"]))
  }
}

@Test func calibrationsThatCannotWorkAreRefused() throws {
  try QuantizeBench.with { quantize in
    let folder = quantize.bench.folder
    var arguments = quantize.arguments("out")
    let samples = try #require(arguments.firstIndex(of: "--samples"))
    arguments[samples + 1] = "1000"
    expectTrainingFailure(try .run(arguments), naming: "data.txt", "1000 are wanted")
    arguments[samples + 1] = "4"
    arguments[arguments.firstIndex(of: "--calibration")! + 1] = "\(folder)/absent.txt"
    expectTrainingFailure(try .run(arguments), naming: "absent.txt")
    try TrainingBench.write("[1, 2, 3]\n[4, 5000]\n", "\(folder)/ids.jsonl")
    arguments[arguments.firstIndex(of: "--calibration")! + 1] = "\(folder)/ids.jsonl"
    expectTrainingFailure(
      try .run(arguments + ["--calibration-token-ids"]), naming: "line 2", "5000")
    expectTrainingFailure(
      try .run(quantize.arguments("out", "--memory-limit", "10MB")), naming: "--memory-limit")
    #expect(!quantize.bench.exists("out"))
  }
}

@Test func bitsAreFoundForATargetAndFitIt() throws {
  try QuantizeBench.with { quantize in
    let result = try PareProcess.run(
      quantize.arguments("out", method: "rtn", "--target-bits", "3.6", "--json"))
    expectSuccess(result)
    let report = try result.json()
    let bits = try #require(report["bits_per_compressed_weight"]?.double)
    #expect(bits <= 3.6 && bits > 3)
    let allocation = try #require(report["allocation"]?.array?.first)
    let found = try #require(allocation["kl"]?.double)
    #expect(found <= (try #require(allocation["kl_best_uniform"]?.double)))
    expectTrainingFailure(
      try .run(quantize.arguments("small", method: "rtn", "--target-bits", "1")),
      naming: "not even 2 bits")
  }
}
