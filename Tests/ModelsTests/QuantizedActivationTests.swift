import Checkpoints
import Codecs
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Text

/// The default model, whose blocks multiply rounded activations by integer weights.
private func quantized(_ codec: AffineGroups, _ activations: ActivationScheme) throws
  -> LanguageModel
{
  var model = try LanguageModel.load(
    SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources/stories").path)
  func encode(_ linear: inout Linear) throws {
    linear.weight = try codec.encode(linear.weight.dequantized())
    linear.inputQuantizer =
      activations.isStatic
      ? try ActivationQuantizer(static: activations, range: -3...2)
      : ActivationQuantizer(dynamic: activations)
  }
  for index in model.blocks.indices {
    for input in model.blocks[index].attentionInputs.indices {
      try encode(&model.blocks[index].attentionInputs[input])
    }
    try encode(&model.blocks[index].attentionOutput)
    for input in model.blocks[index].feedForwardInputs.indices {
      try encode(&model.blocks[index].feedForwardInputs[input])
    }
    try encode(&model.blocks[index].feedForwardOutput)
  }
  return model
}

private func logits(_ model: LanguageModel) throws -> [Float] {
  let tokens = [1, 5, 9, 3, 7, 2]
  return model.logits(try model.hidden(tokens, cache: model.cache(plannedLength: 6))).array
}

private struct Case: CustomTestStringConvertible {
  var bits: Int
  var granularity: AffineGroups.Granularity
  var activations: ActivationScheme
  var testDescription: String { "W\(bits) \(granularity), \(activations)" }

  static let all: [Case] = {
    let fixed = try? ActivationScheme(bits: 8, granularity: .tensor)
    let asymmetric = try? ActivationScheme(bits: 8, isSymmetric: false, granularity: .tensor)
    return [
      Case(bits: 8, granularity: .channel, activations: .int8),
      Case(bits: 4, granularity: .group(32), activations: .int8),
    ]
      + [fixed, asymmetric].compactMap { $0 }.map {
        Case(bits: 8, granularity: .channel, activations: $0)
      }
  }()
}

@Test(arguments: Case.all)
private func modelsKeepTheirActivationScheme(_ test: Case) throws {
  let codec = try AffineGroups(
    bits: test.bits, granularity: test.granularity, scaleType: .float32, layout: .int8)
  let model = try quantized(codec, test.activations)
  let expected = try logits(model)
  try withTemporaryDirectory { folder in
    let head = model.configuration.head.name
    let scheme = CompressedTensors(
      scheme: .init(
        format: .int8, bits: test.bits, isSymmetric: true, granularity: test.granularity,
        activations: test.activations), ignore: [head])
    func write(_ model: LanguageModel, _ name: String, _ config: JSON?) throws -> String {
      let output = try OutputDirectory("\(folder)/\(name)", overwrite: false)
      try model.write(to: output)
      try output.finish()
      if let config {
        try Data(config.serialized(pretty: true)).write(
          to: URL(filePath: "\(folder)/\(name)/config.json"))
      }
      return "\(folder)/\(name)"
    }
    guard case .object(var fields) = try LanguageModel.config(of: model.checkpoint) else { return }
    fields["quantization_config"] = try #require(scheme).quantizationConfig
    let first = try LanguageModel.load(try write(model, "first", .object(fields)))
    #expect(first.blocks[0].attentionInputs[0].inputQuantizer?.scheme == test.activations)
    #expect(first.headQuantizer == nil)
    #expect(try logits(first) == expected)
    // What was read is written again as it was.
    let second = try LanguageModel.load(try write(first, "second", nil))
    #expect(try logits(second) == expected)
    for file in ["config.json", "model.safetensors"] {
      let bytes = try ["first", "second"].map { name in
        try Data(contentsOf: URL(filePath: "\(folder)/\(name)/\(file)"))
      }
      #expect(bytes[0] == bytes[1])
    }
    // Packed, codes multiply codes: every layer gives the same up to sums. (A whole model does not: a
    // sum that differs in its last bit may move an activation of the next layer to another code.)
    let packed = try second.withActivations(.int8)
    var random = Xoshiro256(seed: 9)
    for (block, integers) in zip(second.blocks, packed.blocks) {
      for (linear, integer) in zip(block.linears, integers.linears) {
        let inputs = linear.configuration.inputs
        let x = Tensor(
          (0..<7 * inputs).map { _ in Float(random.normal()) }, shape: [7, inputs])
        let (a, b) = (linear(x), integer(x))
        let size = ((0..<a.count).reduce(0) { $0 + a.floats[$1] * a.floats[$1] } / Float(a.count))
          .squareRoot()
        for index in 0..<a.count {
          #expect(abs(a.floats[index] - b.floats[index]) < 2e-5 * size)
        }
      }
    }
  }
}

extension CompressedTensors {
  fileprivate init?(scheme: Scheme, ignore: [String]) {
    guard
      let one = try? CompressedTensors(
        groups: [.init(targets: ["Linear"], scheme: scheme)], ignore: ignore)
    else { return nil }
    self = one
  }
}

@Test(arguments: [
  ("\"type\":\"float\",\"num_bits\":8,\"dynamic\":true,\"strategy\":\"token\"", "type float"),
  ("\"num_bits\":8,\"dynamic\":true,\"strategy\":\"tensor\"", "strategy tensor, dynamic"),
  ("\"num_bits\":8,\"dynamic\":\"local\",\"strategy\":\"token\"", "dynamic should be"),
  ("\"num_bits\":16,\"dynamic\":true", "num_bits"),
])
func activationSchemesThatCannotRunAreRefused(fields: String, reason: String) throws {
  let text = """
    {"quant_method":"compressed-tensors","format":"int-quantized","config_groups":{"group_0":
    {"targets":["Linear"],"weights":{"num_bits":8,"strategy":"channel"},
    "input_activations":{\(fields)}}}}
    """
  let json = try JSON.parse(Array(text.utf8), name: "config.json")
  do throws(ModelError) {
    _ = try CompressedTensors(quantizationConfig: json, path: "here")
    Issue.record("\(fields) was taken")
  } catch {
    #expect(error.description.contains("input_activations: \(reason)"))
  }
}
