import Checkpoints
import Foundation
import Models
import Recipes
import Tensors
import TestSupport
import Testing
import Text

/// A recipe on rows of token ids.
private func recipe(_ folder: String, _ stages: String) throws -> Recipe {
  let ids = "\(folder)/ids.jsonl"
  let rows = (0..<12).map { row in
    "[" + (0..<24).map { "\((row * 31 + $0 * $0 * 7 + 3) % 61)" }.joined(separator: ", ") + "]"
  }
  try rows.joined(separator: "\n").write(toFile: ids, atomically: false, encoding: .utf8)
  return try Recipe(
    yaml: """
      calibration: {data: "\(ids)", token_ids: true, samples: 12, length: 24}
      stages:
      \(stages)
      """, name: "test")
}

private func logits(_ model: LanguageModel) throws -> [Float] {
  let hidden = try model.hidden(tokens: [1, 5, 60, 33, 8, 2, 17], segments: [0..<7])
  let logits = model.logits(hidden)
  return Array(UnsafeBufferPointer(start: logits.floats, count: logits.count))
}

private let stages = [
  "  - quantize: {method: gptq, bits: 3, group_size: 16, actorder: static, clipping: mse}",
  "  - quantize: {method: gptaq, bits: 4, strategy: channel}",
  "  - quantize: {method: awq, bits: 4, group_size: 16, symmetric: false}",
  "  - quantize: {method: smoothquant, bits: 8, strategy: channel, format: int-quantized}",
  "  - quantize: {bits: 8, strategy: channel, format: int-quantized, activations: int8-static}",
  "  - quantize: {bits: 4, group_size: 16, activations: int8}",
  "  - quantize: {method: hqq, bits: 3, group_size: 16, symmetric: false}",
  "  - quantize: {method: autoround, bits: 3, group_size: 16, iterations: 3}",
  "  - quantize: {method: omniquant, bits: 3, group_size: 16, iterations: 1}",
  "  - quantize: {method: zeroquant, bits: 4, group_size: 16, iterations: 3}",
  "  - quantize: {method: autoround, bits: 4, group_size: 16, iterations: 2, activations: int8}",
  "  - quantize: {method: spqr, bits: 3}",
  "  - quantize: {method: billm, bits: 2}",
  "  - quantize: {method: ternary, bits: 2, group_size: 16}",
  "  - quantize: {method: onebit, bits: 2}",
  "  - quantize: {method: llm-int8, bits: 8}",
  "  - quantize: {format: float-quantized, strategy: channel}",
  "  - quantize: {format: nvfp4-pack-quantized}",
  "  - quantize: {format: nf4}",
  "  - smooth: {method: smoothquant, strength: search}\n  - smooth: {method: awq}\n"
    + "  - quantize: {method: gptq, bits: 3, group_size: 16}\n  - correct: {rank: 4}",
]

/// What is written, read and run is what the report says of it: the sizes of the files' tensors, and a
/// model near the original by as much as its bits allow.
@Test(arguments: stages) func everyMethodWritesAModelThatRuns(stages: String) throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    let report = try Compression(recipe(folder, stages), model: "\(folder)/model")
      .run(output: "\(folder)/out", overwrite: false)
    let model = try LanguageModel.load("\(folder)/out")
    let bytes = model.checkpoint.names.reduce(0) {
      $0 + (model.checkpoint.info($1)?.byteCount ?? 0)
    }
    #expect(report.json(withTimings: false)["bytes"]?.int == bytes)
    #expect(!FileManager.default.fileExists(atPath: "\(folder)/out.compressing"))
    let (a, b) = (try logits(LanguageModel.load("\(folder)/model")), try logits(model))
    let isFinite = b.allSatisfy { $0.isFinite }
    #expect(isFinite)
    let difference = zip(a, b).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    let size = a.reduce(0) { $0 + $1 * $1 }
    // One bit alone leaves little of random matrices.
    #expect(difference > 0 && difference < (stages.contains("onebit") ? 4 : 1.5) * size)
  }
}

@Test func stagesInAnOrderThatCannotWorkAreRefused() throws {
  try withTemporaryDirectory { folder in
    let quantize = "  - quantize: {bits: 4}"
    for (wrong, word) in [
      ("\(quantize)\n  - smooth: {method: awq}", "smooth moves factors"),
      ("\(quantize)\n  - rotate: {method: quarot}", "rotate mixes channels"),
      ("  - correct: {rank: 4}\n\(quantize)", "correct makes up"),
      ("\(quantize)\n  - correct: {rank: 4}\n  - correct: {rank: 8}", "one correct stage"),
      ("  - smooth: {method: awq}", "changes nothing by itself"),
      ("  - quantize: {method: gptq, format: nf4}", "floating-point codes"),
      ("  - quantize: {method: spqr, bits: 3, activations: int8}", "form of its own"),
      ("  - quantize: {method: llm-int8, bits: 4}", "8 for llm-int8"),
      ("  - quantize: {method: gptq, actorder: group}", "use static"),
      ("  - quantize: {method: zeroquant, activations: int8-static}", "use int8"),
      ("  - quantize: {bits: 4, target_bits: 3, target_size: 3MB}", "same thing twice"),
    ] {
      let error = #expect(throws: RecipeError.self) { try recipe(folder, wrong) }
      #expect(error?.description.contains(word) == true, "\(error?.description ?? "")")
    }
  }
}

@Test func matricesOfAnInputGetTheBitsThatFitATarget() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    let wanted = try recipe(folder, "  - quantize: {group_size: 16, target_bits: 5.5}")
    let (found, report) = try wanted.allocatingBits(model: "\(folder)/model")
    #expect(!found.needsAllocation)
    let result = try Compression(found, model: "\(folder)/model")
      .run(output: "\(folder)/out", overwrite: false)
    let bits = try #require(result.plan.bitsPerCompressedWeight)
    #expect(bits <= 5.5 && bits > 4)
    let entry = try #require(report.array?.first)
    let uniform = try #require(entry["kl_best_uniform"]?.double)
    let allocated = try #require(entry["kl"]?.double)
    #expect(allocated <= uniform)
    let impossible = try recipe(folder, "  - quantize: {group_size: 16, target_bits: 2}")
    #expect(throws: RecipeError.self) {
      try impossible.allocatingBits(model: "\(folder)/model")
    }
  }
}
