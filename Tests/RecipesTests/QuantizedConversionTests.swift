import Checkpoints
import Codecs
import Foundation
import Models
import Recipes
import Tensors
import TestSupport
import Testing
import Text

/// A random Llama whose sizes every layout divides: 2 layers, hidden 64, ffn 96, vocabulary 64.
private func writeModel(to folder: String, dtype: DType = .bfloat16) throws {
  try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  var shapes: [(String, [Int])] = [("model.embed_tokens.weight", [64, 64])]
  for layer in 0..<2 {
    let block = "model.layers.\(layer)"
    for (name, shape) in [
      ("self_attn.q_proj", [64, 64]), ("self_attn.k_proj", [32, 64]),
      ("self_attn.v_proj", [32, 64]), ("self_attn.o_proj", [64, 64]),
      ("mlp.gate_proj", [96, 64]), ("mlp.up_proj", [96, 64]), ("mlp.down_proj", [64, 96]),
    ] {
      shapes.append(("\(block).\(name).weight", shape))
    }
    shapes.append(("\(block).input_layernorm.weight", [64]))
    shapes.append(("\(block).post_attention_layernorm.weight", [64]))
  }
  shapes.append(("model.norm.weight", [64]))
  var writer = try SafetensorsWriter(
    folder: folder,
    tensors: shapes.map { TensorDeclaration(name: $0.0, dtype: dtype, shape: $0.1) })
  var random = Xoshiro256(seed: 11)
  for (name, shape) in shapes {
    let scale: Float = shape.count == 2 ? 0.4 : 1
    let values = (0..<shape.reduce(1, *)).map { _ in (Float(random.uniform()) * 2 - 1) * scale }
    try writer.append(name, Tensor(values, shape: shape).converted(to: dtype))
  }
  _ = try writer.finish()
  let config = """
    {"model_type": "llama", "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96,
     "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
     "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
     "hidden_act": "silu", "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2}
    """
  try config.write(toFile: "\(folder)/config.json", atomically: false, encoding: .utf8)
}

private func quantize(
  _ model: String, to output: String, _ change: (inout QuantizeStage) -> Void = { _ in }
) throws {
  var stage = QuantizeStage()
  stage.granularity = .group(32)
  change(&stage)
  _ = try Compression(Recipe(name: "test", stages: [.quantize(stage)]), model: model)
    .run(output: output, overwrite: false)
}

@discardableResult
private func convert(
  _ model: String, _ target: QuantizedTarget, to output: String, dtype: DType? = nil,
  requantizes: Bool = false
) throws -> ConversionReport {
  try QuantizedConversion(model: model, to: target, dtype: dtype, requantizes: requantizes)
    .run(output: output, overwrite: false, onProgress: { _ in })
}

private func logits(_ path: String) throws -> [Float] {
  var all: [Float] = []
  try LanguageModel.load(path).forEachLogits(of: [1, 5, 60, 33, 8, 2, 17]) { _, logits in
    all += UnsafeBufferPointer(start: logits.floats, count: logits.count)
  }
  return all
}

private func tensors(_ path: String) throws -> [String: Tensor] {
  let checkpoint = try Checkpoint.open(path)
  return try Dictionary(
    uniqueKeysWithValues: checkpoint.names.map { ($0, try checkpoint.tensor($0)) })
}

private func expectSameTensors(_ a: String, _ b: String) throws {
  let (a, b) = (try tensors(a), try tensors(b))
  #expect(a.keys.sorted() == b.keys.sorted())
  for (name, tensor) in a {
    let other = try #require(b[name])
    #expect(tensor.shape == other.shape && tensor.dtype == other.dtype, "\(name)")
    #expect(tensor.hasSameBytes(as: other), "\(name)")
  }
}

private func config(_ folder: String) throws -> JSON {
  try JSON.parse(
    [UInt8](Data(contentsOf: URL(filePath: "\(folder)/config.json"))), name: "config.json")
}

@Test(arguments: QuantizedTarget.allCases, [true, false])
func aModelCarriedThereAndBackIsTheSameBitByBit(target: QuantizedTarget, symmetric: Bool) throws {
  try withTemporaryDirectory { folder in
    try writeModel(to: "\(folder)/dense")
    try quantize("\(folder)/dense", to: "\(folder)/model") { $0.isSymmetric = symmetric }
    let report = try convert("\(folder)/model", target, to: "\(folder)/there")
    #expect(report.plan.format == target.rawValue)
    try convert(
      "\(folder)/there", .compressedTensors, to: "\(folder)/back",
      dtype: target == .awq ? .bfloat16 : nil)
    try expectSameTensors("\(folder)/model", "\(folder)/back")
    let group = try config("\(folder)/back")["quantization_config"]?["config_groups"]?["group_0"]
    #expect(group?["weights"]?["symmetric"]?.bool == symmetric)
    let (a, b) = (try logits("\(folder)/model"), try logits("\(folder)/there"))
    // Biases in bfloat16 are rounded where zero points are no powers of two.
    if target != .mlx || symmetric { #expect(a == b) }
  }
}

@Test func biasesInFloat32KeepEveryValue() throws {
  try withTemporaryDirectory { folder in
    try writeModel(to: "\(folder)/dense")
    try quantize("\(folder)/dense", to: "\(folder)/model") { $0.isSymmetric = false }
    let rounded = try convert("\(folder)/model", .mlx, to: "\(folder)/rounded")
    #expect(rounded.plan.notes.contains { $0.contains("biases rounded to BF16") })
    let exact = try convert("\(folder)/model", .mlx, to: "\(folder)/exact", dtype: .float32)
    #expect(exact.plan.notes.isEmpty)
    #expect(try logits("\(folder)/model") == logits("\(folder)/exact"))
    #expect(try logits("\(folder)/model") != logits("\(folder)/rounded"))
  }
}

@Test func descriptionsAreThoseOfTheOtherPrograms() throws {
  try withTemporaryDirectory { folder in
    try writeModel(to: "\(folder)/dense")
    try quantize("\(folder)/dense", to: "\(folder)/model") {
      $0.ignore = [Target("model.layers.1.mlp.up_proj")]
    }
    for target in QuantizedTarget.allCases {
      try convert("\(folder)/model", target, to: "\(folder)/\(target.rawValue)")
    }
    let gptq = try config("\(folder)/gptq")["quantization_config"]
    #expect(gptq?["checkpoint_format"]?.string == "gptq" && gptq?["sym"]?.bool == true)
    #expect(gptq?["bits"]?.int == 4 && gptq?["group_size"]?.int == 32)
    #expect(gptq?["dynamic"]?.object?.keyStrings == [#"-:model\.layers\.1\.mlp\.up_proj$"#])
    let side = try Data(contentsOf: URL(filePath: "\(folder)/gptq/quantize_config.json"))
    #expect(try JSON.parse([UInt8](side), name: "quantize_config.json") == gptq)
    #expect(
      try config("\(folder)/gptq-v2")["quantization_config"]?["checkpoint_format"]?.string
        == "gptq_v2")
    let awq = try config("\(folder)/awq")["quantization_config"]
    #expect(awq?["version"]?.string == "gemm" && awq?["zero_point"]?.bool == true)
    #expect(
      awq?["modules_to_not_convert"]?.array?.compactMap(\.string) == ["model.layers.1.mlp.up_proj"])
    let mlx = try config("\(folder)/mlx")
    #expect(mlx["quantization"] == mlx["quantization_config"])
    #expect(mlx["quantization"]?["group_size"]?.int == 32)
    for target in QuantizedTarget.allCases {
      #expect(try logits("\(folder)/\(target.rawValue)") == logits("\(folder)/model"))
    }
    _ = try HuggingFaceConversion(model: "\(folder)/mlx", dtype: .float32)
      .run(output: "\(folder)/opened", overwrite: false, onProgress: { _ in })
    #expect(try config("\(folder)/opened")["quantization"] == nil)
  }
}

@Test func mixedBitsAreDescribedByModule() throws {
  try withTemporaryDirectory { folder in
    try writeModel(to: "\(folder)/dense")
    var four = QuantizeStage()
    four.granularity = .group(32)
    four.ignore = [Target("mlp.down")]
    var eight = four
    eight.bits = 8
    eight.targets = [Target("mlp.down")]
    eight.ignore = []
    _ = try Compression(
      Recipe(name: "test", stages: [.quantize(four), .quantize(eight)]), model: "\(folder)/dense"
    ).run(output: "\(folder)/model", overwrite: false)
    for target in [QuantizedTarget.gptq, .gptqV2, .mlx, .compressedTensors] {
      try convert("\(folder)/model", target, to: "\(folder)/\(target.rawValue)")
      #expect(try logits("\(folder)/\(target.rawValue)") == logits("\(folder)/model"))
    }
    #expect(try config("\(folder)/gptq")["quantization_config"]?["dynamic"]?.object?.count == 2)
    let error = #expect(throws: ConversionError.self) {
      try convert("\(folder)/model", .awq, to: "\(folder)/awq")
    }
    #expect(error?.description.contains("model.layers.0.mlp.down_proj") == true)
    let report = try convert(
      "\(folder)/model", .awq, to: "\(folder)/awq", requantizes: true)
    #expect(report.errors.compactMap { $0 }.count == 2)
    #expect(report.plan.notes.contains { $0.contains("2 matrices are rounded anew") })
    _ = try logits("\(folder)/awq")
  }
}

@Test func whatAFormatHasNoPlaceForIsRefusedByName() throws {
  try withTemporaryDirectory { folder in
    try writeModel(to: "\(folder)/dense")
    try quantize("\(folder)/dense", to: "\(folder)/five") { $0.bits = 5 }
    try quantize("\(folder)/dense", to: "\(folder)/small") { $0.granularity = .group(16) }
    for (model, target) in [
      ("five", QuantizedTarget.gptq), ("five", .awq), ("small", .mlx),
    ] {
      let error = #expect(throws: ConversionError.self) {
        try convert("\(folder)/\(model)", target, to: "\(folder)/out")
      }
      #expect(error?.description.contains("model.layers.0.self_attn.q_proj") == true)
      #expect(error?.description.contains("--requantize") == true)
      #expect(!FileManager.default.fileExists(atPath: "\(folder)/out"))
      let name = "\(folder)/\(model)-\(target.rawValue)"
      try convert("\(folder)/\(model)", target, to: name, requantizes: true)
      _ = try logits(name)
    }
    #expect(throws: ConversionError.self) {
      try GGUFConversion(model: "\(folder)/small", requantizes: false)
    }
    #expect(throws: ConversionError.self) {
      try convert("\(folder)/dense", .gptq, to: "\(folder)/out")
    }
    try convert("\(folder)/dense", .mlx, to: "\(folder)/mlx")
    #expect(try logits("\(folder)/mlx") == logits("\(folder)/dense"))
  }
}

@Test(arguments: [(2, true), (3, false), (4, true), (4, false), (5, true), (6, true), (8, true)])
func ggufKeepsTheCodesOfAQuantizedModel(bits: Int, symmetric: Bool) throws {
  try withTemporaryDirectory { folder in
    try writeModel(to: "\(folder)/dense")
    try quantize("\(folder)/dense", to: "\(folder)/model") {
      $0.bits = bits
      $0.isSymmetric = symmetric
    }
    let conversion = try GGUFConversion(model: "\(folder)/model", requantizes: false)
    _ = try conversion.run(
      output: "\(folder)/model.gguf", overwrite: false, onProgress: { _ in })
    let (a, b) = (try logits("\(folder)/model"), try logits("\(folder)/model.gguf"))
    let spread = a.map(abs).max() ?? 0
    let worst = zip(a, b).map { abs($0 - $1) }.max() ?? .infinity
    // Only minima are rounded, to float16. Products of blocks are summed in another order.
    #expect(worst <= (symmetric ? 1e-5 : 4e-3) * spread, "\(worst) of \(spread)")
    // Back from the file: fewer bits have become those of a block.
    try convert("\(folder)/model.gguf", .compressedTensors, to: "\(folder)/back")
    #expect(try logits("\(folder)/back").count == a.count)
    let copy = try GGUFConversion(model: "\(folder)/model.gguf", requantizes: false)
    _ = try copy.run(output: "\(folder)/copy.gguf", overwrite: false, onProgress: { _ in })
    try expectSameTensors("\(folder)/model.gguf", "\(folder)/copy.gguf")
  }
}

@Test func aModelWithColumnsInActivationOrderRunsAndIsWrittenWithIt() throws {
  try withTemporaryDirectory { folder in
    try writeModel(to: "\(folder)/dense")
    try quantize("\(folder)/dense", to: "\(folder)/model")
    try convert("\(folder)/model", .gptq, to: "\(folder)/gptq")
    // The same codes with groups that alternate.
    let file = "\(folder)/gptq/model.safetensors"
    var all = try tensors("\(folder)/gptq")
    for name in all.keys where name.hasSuffix("g_idx") {
      let count = try #require(all[name]?.count)
      all[name] = Tensor(dtype: .int32, shape: [count]) { target in
        for index in 0..<count {
          target.storeBytes(
            of: Int32(index % (count / 32)), toByteOffset: index * 4, as: Int32.self)
        }
      }
    }
    let names = all.keys.sorted()
    // Tensors read from the file that is replaced are still mapped.
    try FileManager.default.removeItem(atPath: file)
    var writer = try SafetensorsWriter(
      file: file,
      tensors: names.map {
        TensorDeclaration(
          name: $0, dtype: all[$0]?.dtype ?? .int32, shape: all[$0]?.shape ?? [])
      })
    for name in names { try writer.append(name, try #require(all[name])) }
    _ = try writer.finish()

    let ordered = try logits("\(folder)/gptq")
    #expect(try ordered != logits("\(folder)/model"))
    try convert("\(folder)/gptq", .compressedTensors, to: "\(folder)/packed")
    #expect(try logits("\(folder)/packed") == ordered)
    let weights = try config("\(folder)/packed")["quantization_config"]?["config_groups"]?[
      "group_0"]?["weights"]
    #expect(weights?["actorder"]?.string == "group")
    try convert("\(folder)/packed", .gptq, to: "\(folder)/again")
    try expectSameTensors("\(folder)/gptq", "\(folder)/again")
    #expect(
      try config("\(folder)/again")["quantization_config"]?["desc_act"]?.bool == true)
    for target in [QuantizedTarget.awq, .mlx] {
      let error = #expect(throws: ConversionError.self) {
        try convert("\(folder)/packed", target, to: "\(folder)/out")
      }
      #expect(error?.description.contains("order") == true)
    }
  }
}
