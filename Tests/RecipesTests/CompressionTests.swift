import Checkpoints
import Codecs
import Foundation
import Models
import Recipes
import Tensors
import TestSupport
import Testing
import Text

private func recipe(_ change: (inout QuantizeStage) -> Void = { _ in }) -> Recipe {
  var stage = QuantizeStage()
  stage.granularity = .group(16)
  change(&stage)
  return Recipe(name: "test", stages: [.quantize(stage)])
}

private func bytes(_ folder: String) throws -> [String: Data] {
  var files: [String: Data] = [:]
  for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
    files[name] = try Data(contentsOf: URL(filePath: "\(folder)/\(name)"))
  }
  return files
}

private func logits(_ model: LanguageModel) throws -> [Float] {
  var all: [Float] = []
  try model.forEachLogits(of: [1, 5, 60, 33, 8, 2, 17]) { _, logits in
    all += UnsafeBufferPointer(start: logits.floats, count: logits.count)
  }
  return all
}

private func expand(_ linear: inout Linear) {
  linear.weight = DenseWeight(linear.weight.dequantized())
}

@Test(arguments: [2, 3, 4, 5, 6, 8], [true, false])
func aModelRunsFromItsPackedWeightsAsFromTheirValues(bits: Int, isSymmetric: Bool) throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    _ = try Compression(
      recipe {
        $0.bits = bits
        $0.isSymmetric = isSymmetric
      }, model: "\(folder)/model"
    ).run(output: "\(folder)/packed", overwrite: false)
    let packed = try LanguageModel.load("\(folder)/packed")
    // The same model with every packed matrix written out in float32.
    var dense = packed
    for index in dense.blocks.indices {
      for linear in dense.blocks[index].attentionInputs.indices {
        expand(&dense.blocks[index].attentionInputs[linear])
      }
      expand(&dense.blocks[index].attentionOutput)
      for linear in dense.blocks[index].feedForwardInputs.indices {
        expand(&dense.blocks[index].feedForwardInputs[linear])
      }
      expand(&dense.blocks[index].feedForwardOutput)
    }
    let (a, b) = (try logits(packed), try logits(dense))
    let spread = b.map(abs).max() ?? 0
    #expect(spread > 0)
    for (x, y) in zip(a, b) { #expect(abs(x - y) <= 1e-4 * spread) }
  }
}

@Test func aRunGivesTheSameBytesEachTime() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    for name in ["a", "b"] {
      _ = try Compression(recipe { $0.clipping = .mse }, model: "\(folder)/model")
        .run(output: "\(folder)/\(name)", overwrite: false)
    }
    #expect(try bytes("\(folder)/a") == bytes("\(folder)/b"))
  }
}

@Test func shardsHoldWhatOneFileHolds() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    var compression = try Compression(recipe(), model: "\(folder)/model")
    _ = try compression.run(output: "\(folder)/one", overwrite: false)
    compression.shardByteLimit = 4000
    _ = try compression.run(output: "\(folder)/many", overwrite: false)
    let one = try LanguageModel.load("\(folder)/one"),
      many = try LanguageModel.load("\(folder)/many")
    #expect(many.checkpoint.weightFiles.count > 3)
    #expect(try logits(one) == logits(many))
  }
}

@Test func theReportInTheOutputSaysWhatWasDone() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    let report = try Compression(recipe(), model: "\(folder)/model")
      .run(output: "\(folder)/out", overwrite: false)
    let json = try JSON.parse(
      [UInt8](Data(contentsOf: URL(filePath: "\(folder)/out/pare.json"))), name: "pare.json")
    let file = try Checkpoint.open("\(folder)/out")
    let stored = file.names.reduce(0) { $0 + (file.info($1)?.byteCount ?? 0) }
    #expect(json["bytes"]?.int == stored)
    #expect(json["bytes"]?.int == report.plan.bytesAfter)
    #expect(json["pare_version"]?.string == PareVersion.current)
    #expect(json["recipe"]?["stages"]?.array?.count == 1)
    #expect(json["seconds"] == nil)
    let hashes = json["inputs"]?.array?.compactMap { $0["file"]?.string }
    #expect(hashes?.contains("config.json") == true)
    #expect(hashes?.contains("model.safetensors") == true)
    for tensor in json["tensors"]?.array ?? [] where tensor["action"]?.string == "quantize" {
      #expect((tensor["mean_squared_error"]?.double ?? 0) > 0)
      #expect((tensor["relative_error"]?.double ?? 1) < 0.05)
    }
  }
}

@Test func anExistingOutputIsRefusedWithoutOverwrite() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    let compression = try Compression(recipe(), model: "\(folder)/model")
    _ = try compression.run(output: "\(folder)/out", overwrite: false)
    let before = try bytes("\(folder)/out")
    #expect(throws: CheckpointError.outputExists(path: "\(folder)/out")) {
      try compression.run(output: "\(folder)/out", overwrite: false)
    }
    #expect(try bytes("\(folder)/out") == before)
    _ = try compression.run(output: "\(folder)/out", overwrite: true)
    #expect(try bytes("\(folder)/out") == before)
  }
}

@Test(arguments: [Float.nan, .infinity])
func aWeightThatIsNotFiniteNamesItsTensorAndLeavesNothing(value: Float) throws {
  try withTemporaryDirectory { folder in
    let name = "model.layers.1.mlp.up_proj.weight"
    try TinyModel(damage: (name, value)).write(to: "\(folder)/model")
    let compression = try Compression(recipe(), model: "\(folder)/model")
    #expect {
      try compression.run(output: "\(folder)/out", overwrite: false)
    } throws: {
      "\($0)".contains(name)
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["model"])
  }
}

@Test func aQuantizedModelIsNotQuantizedAgain() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    _ = try Compression(recipe(), model: "\(folder)/model")
      .run(output: "\(folder)/out", overwrite: false)
    #expect {
      _ = try Compression(recipe(), model: "\(folder)/out")
    } throws: {
      "\($0)".contains("already quantized")
    }
  }
}

@Test func otherFilesAreCarriedOverByteByByte() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    let files = [
      "generation_config.json": "{ \"eos_token_id\": [2,  3] }",
      "tokenizer_config.json": "{\"odd\":   \"spacing\"}\n", "chat_template.jinja": "{{ x }}",
    ]
    for (name, text) in files {
      try text.write(toFile: "\(folder)/model/\(name)", atomically: false, encoding: .utf8)
    }
    _ = try Compression(recipe(), model: "\(folder)/model")
      .run(output: "\(folder)/out", overwrite: false)
    for (name, text) in files {
      #expect(try String(contentsOfFile: "\(folder)/out/\(name)", encoding: .utf8) == text)
    }
  }
}

@Test func mixedBitsAndAQuantizedEmbeddingAreReadBack() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    let mixed = try Recipe(
      yaml: """
        stages:
          - quantize: {bits: 4, group_size: 16, ignore: mlp.down}
          - quantize: {bits: 8, group_size: 16, symmetric: false, targets: [mlp.down, embedding]}
        """, name: "mixed")
    _ = try Compression(mixed, model: "\(folder)/model")
      .run(output: "\(folder)/out", overwrite: false)
    let a = try logits(LanguageModel.load("\(folder)/model"))
    let b = try logits(LanguageModel.load("\(folder)/out"))
    let spread = a.map(abs).max() ?? 0
    let error = zip(a, b).map { abs($0 - $1) }.reduce(0, +) / Float(a.count)
    #expect(error > 0)
    #expect(error < 0.25 * spread)
  }
}
