import Checkpoints
import Foundation
import Models
import Quantization
import Recipes
import Tensors
import TestSupport
import Testing
import Text

private let root = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures")

/// Models whose residual stream cannot be rotated, and a word of the reason.
private let refused = [
  "bloom": "stands between the embedding", "bloom-normed-residual": "adds to the normed input",
  "gemma2": "does not commute", "gemma3": "does not commute", "olmo2": "does not commute",
  "opt-350m": "another width",
]

private let permitted = ((try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? [])
  .filter { !$0.hasPrefix(".") && refused[$0] == nil }.sorted()

private let prompt = [1, 5, 60, 33, 8, 2, 17, 40, 3, 3, 59, 12, 27, 44, 6, 31, 9, 22, 50, 14]

private func logits(_ path: String) throws -> [Float] {
  let model = try LanguageModel.load(path)
  var all: [Float] = []
  try model.forEachLogits(of: prompt) { _, logits in
    all += UnsafeBufferPointer(start: logits.floats, count: logits.count)
  }
  return all
}

private func settings(online: Bool = false, seed: UInt64 = 3) -> QuaRot {
  var settings = QuaRot()
  settings.seed = seed
  settings.isOnline = online
  return settings
}

private func rotate(_ model: String, to output: String, _ settings: QuaRot = settings()) throws {
  try RotationRun(model: model, settings: settings, dtype: .float32)
    .run(output: output, overwrite: false)
}

private func expectEqual(_ a: [Float], _ b: [Float], _ name: String) {
  let mean = a.reduce(0, +) / Float(a.count)
  let spread = (a.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Float(a.count)).squareRoot()
  #expect(spread > 0 && a.count == b.count)
  let worst = zip(a, b).map { abs($0 - $1) }.max() ?? .infinity
  #expect(worst <= 1e-4 * spread, "\(name): \(worst) of \(spread)")
}

/// A copy of a model in float32 with some tensors changed.
private func variant(
  _ model: String, in folder: String, config: [String: JSON] = [:],
  _ change: (String, Tensor) -> Tensor = { $1 }
) throws -> String {
  let copy = "\(folder)/variant"
  try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
  let original = try Checkpoint.open(model)
  var writer = try SafetensorsWriter(
    folder: copy,
    tensors: try original.names.map {
      TensorDeclaration(name: $0, dtype: .float32, shape: try original.tensor($0).shape)
    })
  for name in original.names {
    try writer.append(name, change(name, try original.tensor(name).converted(to: .float32)))
  }
  _ = try writer.finish()
  let parsed = try LanguageModel.config(of: original)
  guard case .object(var fields) = parsed else { return copy }
  for (key, value) in config { fields[key] = value }
  try Data(JSON.object(fields).serialized()).write(to: URL(filePath: "\(copy)/config.json"))
  return copy
}

@Test(arguments: permitted, [false, true])
func rotatedModelsComputeTheSame(name: String, online: Bool) throws {
  try withTemporaryDirectory { folder in
    let model = root.appending(path: name).path
    try rotate(model, to: "\(folder)/rotated", settings(online: online))
    expectEqual(try logits(model), try logits("\(folder)/rotated"), name)
    let config = try LanguageModel.config(of: Checkpoint.open("\(folder)/rotated"))
    #expect(online == (config["quantization_config"] != nil))
    // Every matrix inside the blocks is another one.
    let before = try LanguageModel.load(model), after = try LanguageModel.load("\(folder)/rotated")
    for (a, b) in zip(before.blocks, after.blocks) {
      for (a, b) in zip(a.linears, b.linears) {
        let (x, y) = (a.weight.dequantized(), b.weight.dequantized())
        #expect(zip(0..<x.count, 0..<y.count).contains { x.floats[$0] != y.floats[$1] })
      }
    }
  }
}

@Test(arguments: refused.keys.sorted())
func modelsWithoutARotatableStreamAreRefused(name: String) throws {
  let error = #expect(throws: RotationError.self) {
    _ = try RotationRun(model: root.appending(path: name).path, settings: settings())
  }
  #expect("\(try #require(error))".contains(try #require(refused[name])))
}

@Test func offsetsOfGemmasNormsAreFolded() throws {
  try withTemporaryDirectory { folder in
    // Norms behind a branch commute with a rotation where their weight is the same everywhere.
    let model = try variant(root.appending(path: "gemma2").path, in: folder) { name, tensor in
      guard
        name.contains("post_attention_layernorm") || name.contains("post_feedforward_layernorm")
      else { return tensor }
      return Tensor(shape: tensor.shape) { $0.initialize(repeating: 0.25) }
    }
    try rotate(model, to: "\(folder)/rotated")
    expectEqual(try logits(model), try logits("\(folder)/rotated"), "gemma2")
    let written = try Checkpoint.open("\(folder)/rotated")
    let norm = try written.tensor("model.layers.0.input_layernorm.weight")
    #expect((0..<norm.count).allSatisfy { norm.floats[$0] == 0 })
    #expect(try LanguageModel.config(of: written)["tie_word_embeddings"]?.bool == false)
  }
}

@Test func tiedHeadsAreUntiedOnlyWhereTheFinalNormHasAWeight() throws {
  try withTemporaryDirectory { folder in
    try TinyModel(isTied: true, dtype: .float32).write(to: "\(folder)/tied")
    try TinyModel(isTied: false, dtype: .float32).write(to: "\(folder)/untied")
    for name in ["tied", "untied"] {
      try rotate("\(folder)/\(name)", to: "\(folder)/\(name)-rotated")
      expectEqual(
        try logits("\(folder)/\(name)"), try logits("\(folder)/\(name)-rotated"), name)
      #expect(try Checkpoint.open("\(folder)/\(name)-rotated").contains("lm_head.weight"))
    }
    let run = try RotationRun(model: "\(folder)/tied", settings: settings())
    #expect(run.notes.contains { $0.contains("the head has a matrix of its own") })
    let plain = try variant("\(folder)/tied", in: folder) { name, tensor in
      name == "model.norm.weight"
        ? Tensor(shape: tensor.shape) { $0.initialize(repeating: 2) } : tensor
    }
    try rotate(plain, to: "\(folder)/plain")
    #expect(try !Checkpoint.open("\(folder)/plain").contains("lm_head.weight"))
    expectEqual(try logits(plain), try logits("\(folder)/plain"), "plain")
  }
}

@Test func outlierChannelsAreSpreadOverAllOthers() throws {
  func kurtosis(_ path: String) throws -> Double {
    let model = try LanguageModel.load(path)
    var stream: Tensor?
    var observer = PassObserver()
    observer.onBlock = { block, x in if block == 0 { stream = x } }
    _ = try model.hidden(tokens: prompt, segments: [0..<prompt.count], observer: observer)
    let x = try #require(stream)
    let values = (0..<x.count).map { Double(x.floats[$0]) }
    let square = values.reduce(0) { $0 + $1 * $1 } / Double(values.count)
    return values.reduce(0) { $0 + $1 * $1 * $1 * $1 } / Double(values.count) / (square * square)
  }
  try withTemporaryDirectory { folder in
    try TinyModel(isTied: false, dtype: .float32).write(to: "\(folder)/plain")
    let model = try variant("\(folder)/plain", in: folder) { name, tensor in
      guard name == "model.embed_tokens.weight" else { return tensor }
      return Tensor(shape: tensor.shape) { target in
        _ = target.initialize(from: UnsafeBufferPointer(start: tensor.floats, count: tensor.count))
        for row in 0..<tensor.rows { target[row * tensor.columns + 7] *= 100 }
      }
    }
    try rotate(model, to: "\(folder)/rotated")
    let (before, after) = (try kurtosis(model), try kurtosis("\(folder)/rotated"))
    #expect(before > 20 && after < 4, "\(before) to \(after)")
  }
}

@Test func theSameSeedWritesTheSameBytes() throws {
  try withTemporaryDirectory { folder in
    try TinyModel().write(to: "\(folder)/model")
    func bytes(_ name: String, seed: UInt64, threads: Int) throws -> Data {
      let before = Parallel.threads
      Parallel.threads = threads
      defer { Parallel.threads = before }
      try RotationRun(model: "\(folder)/model", settings: settings(seed: seed))
        .run(output: "\(folder)/\(name)", overwrite: false)
      return try Data(contentsOf: URL(filePath: "\(folder)/\(name)/model.safetensors"))
    }
    let one = try bytes("one", seed: 1, threads: 1)
    #expect(try bytes("two", seed: 1, threads: 2) == one)
    #expect(try bytes("three", seed: 2, threads: 2) != one)
  }
}

@Test func aRecipeRotatesAndThenQuantizes() throws {
  try withTemporaryDirectory { folder in
    try TinyModel(isTied: false, dtype: .float32).write(to: "\(folder)/model")
    let recipe = try Recipe(
      yaml: """
        seed: 4
        stages:
          - rotate: {method: quarot, online: true}
          - quantize: {bits: 8, group_size: 16}
        """, name: "rotated")
    #expect(recipe.passes.count == 2 && !recipe.isOnePass)
    let report = try RecipeRun(recipe, model: "\(folder)/model")
      .run(output: "\(folder)/smaller", overwrite: false)
    #expect(report?["stages"]?.array?.first?["command"]?.string == "rotate")
    // What runs before `down` is still known after the quantization.
    let model = try LanguageModel.load("\(folder)/smaller")
    #expect(model.blocks.allSatisfy { $0.feedForwardOutput.inputTransform?.size == 16 })
    let (a, b) = (try logits("\(folder)/model"), try logits("\(folder)/smaller"))
    let spread = a.map(abs).max() ?? 0
    #expect((zip(a, b).map { abs($0 - $1) }.max() ?? 1) < 0.05 * spread)
    // No GGUF engine rotates at run time, and a second rotation has no place to go.
    #expect(throws: ModelError.self) {
      try GGUFConversion(model: "\(folder)/smaller", mix: .q8_0)
    }
    #expect(throws: RotationError.self) {
      try RotationRun(model: "\(folder)/smaller", settings: settings())
    }
    let plain = try HuggingFaceConversion(model: "\(folder)/smaller", dtype: .float32)
    _ = try plain.run(output: "\(folder)/plain", overwrite: false, onProgress: { _ in })
    expectEqual(b, try logits("\(folder)/plain"), "plain")
  }
}

@Test func transformsThatCannotRunAreRefused() throws {
  try withTemporaryDirectory { folder in
    func config(_ scheme: String) throws -> JSON {
      try JSON.parse(
        Array(
          """
          {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {},
           "transform_config": {"config_groups": {"R": \(scheme)}}}
          """.utf8), name: "config")
    }
    let target = "\"targets\": [\"model.layers.0.mlp.down_proj\"]"
    for scheme in [
      "{\"type\": \"random-hadamard\", \"apply\": [{\(target), \"location\": \"input\"}]}",
      "{\"type\": \"hadamard\", \"apply\": [{\(target), \"location\": \"q_attn\"}]}",
      "{\"type\": \"hadamard\", \"randomize\": true, \"apply\": [{\(target), \"location\": \"input\"}]}",
    ] {
      #expect(throws: ModelError.self) {
        try CompressedTensors(quantizationConfig: try config(scheme), path: "config.json")
      }
    }
    let done = try CompressedTensors(
      quantizationConfig: config(
        "{\"type\": \"hadamard\", \"apply\": [{\(target), \"location\": \"weight_input\"}]}"),
      path: "config.json")
    #expect(done.transforms.isEmpty)
  }
}

@Test(arguments: [
  ("{method: quarto}", "quarot"), ("{seed: -1}", "0 or more"), ("{dtype: int8}", "bf16"),
  ("{method: spinquant}", "lacks data"), ("{method: spinquant, data: a, bits: 7}", "one of"),
  ("{steps: 3}", "unknown key"),
])
func wrongSettingsOfARotationAreNamed(settings: String, word: String) throws {
  let error = #expect(throws: RecipeError.self) {
    try Recipe(yaml: "stages:\n  - rotate: \(settings)", name: "a")
  }
  #expect("\(try #require(error))".contains(word), "\(String(describing: error))")
}
