import Checkpoints
import Codecs
import Foundation
import Models
import Tensors
import TestSupport
import Testing
import Text

private func logits(_ model: LanguageModel, _ tokens: [Int]) throws -> [Float] {
  let cache = model.cache(plannedLength: tokens.count)
  return model.logits(try model.hidden(tokens, cache: cache)).array
}

private func json(_ text: String) throws -> JSON { try JSON.parse(Array(text.utf8), name: "test") }

/// A model with its blocks' matrices in float codes is written, opened again, and the same.
@Test(arguments: [("float8", "llama2"), ("nvfp4", "qwen3"), ("mxfp4", "stories")])
func modelsInFloatCodesAreWrittenAndReadAgain(form: String, name: String) throws {
  let codec: FloatGroups =
    form == "nvfp4" ? .nvfp4 : form == "mxfp4" ? .mxfp4 : try .float8(scaleType: .float32)
  // The golden models have no rows of whole groups of 32.
  let source = try LanguageModel.load(
    name == "stories"
      ? SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources/stories").path
      : GoldenModel(name: name).folder)
  var encoded = 0
  let model = try source.mapped(matrix: { declaration, weight in
    guard declaration.role != .embedding, declaration.role != .head,
      weight.inputs % codec.groupSize(inputs: weight.inputs) == 0
    else { return weight }
    encoded += 1
    return try codec.encode(weight.dequantized())
  })
  #expect(encoded > 0)
  try model.checkStorable()
  let tokens = [1, 5, 9, 2, 30, 7]
  let expected = try logits(model, tokens)
  try withTemporaryDirectory { folder in
    let output = try OutputDirectory("\(folder)/out", overwrite: false)
    try model.write(to: output)
    try output.finish()
    let config = try LanguageModel.config(of: Checkpoint.open("\(folder)/out"))
    #expect(config["quantization_config"]?["format"]?.string == codec.format.rawValue)
    let read = try LanguageModel.load("\(folder)/out")
    #expect(try logits(read, tokens) == expected)
    // Opened from there it keeps its description when written once more.
    let second = try OutputDirectory("\(folder)/again", overwrite: false)
    try read.write(to: second)
    try second.finish()
    #expect(try logits(LanguageModel.load("\(folder)/again"), tokens) == expected)
  }
}

@Test func floatSchemesAreParsedAsTheyAreWritten() throws {
  for codec in [
    FloatGroups.nvfp4, .mxfp4, try .float8(.channel), try .float8(.tensor),
    try .float8(.group(64)),
  ] {
    let scheme = CompressedTensors.Scheme(codec)
    let layout = try CompressedTensors(
      groups: [.init(targets: ["Linear"], scheme: scheme)], ignore: ["lm_head"])
    let read = try CompressedTensors(quantizationConfig: layout.quantizationConfig, path: "test")
    #expect(read.groups.map(\.scheme) == [scheme])
    #expect(Set(scheme.requiredSuffixes) == Set(codec.componentSuffixes))
  }
}

@Test(arguments: [
  (#""format": "nvfp4-pack-quantized""#, #""num_bits": 8, "group_size": 16"#, "num_bits"),
  (#""format": "nvfp4-pack-quantized""#, #""num_bits": 4, "group_size": 32"#, "group_size"),
  (#""format": "mxfp4-pack-quantized""#, #""num_bits": 4, "group_size": 16"#, "group_size"),
  (#""format": "float-quantized""#, #""num_bits": 4, "strategy": "channel""#, "num_bits"),
  (#""format": "float-quantized""#, #""num_bits": 8, "strategy": "block""#, "strategy"),
  (#""format": "pack-quantized""#, #""num_bits": 8, "strategy": "channel""#, "format"),
  (
    #""format": "float-quantized""#, #""num_bits": 8, "symmetric": false, "strategy": "channel""#,
    "zero points"
  ),
])
func floatSchemesThatMeanNothingAreRefused(format: String, weights: String, reason: String) throws {
  let config = try json(
    """
    {"quant_method": "compressed-tensors", \(format), "config_groups": {"group_0": {
      "targets": ["Linear"], "weights": {"type": "float", \(weights)}}}}
    """)
  let error = #expect(throws: ModelError.self) {
    try CompressedTensors(quantizationConfig: config, path: "test")
  }
  #expect("\(try #require(error))".contains(reason))
}
