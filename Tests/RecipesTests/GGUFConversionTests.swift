import Checkpoints
import Codecs
import Foundation
import Models
import Recipes
import Tensors
import TestSupport
import Testing
import Text
import Tokenizers

private let root = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures")

private func golden(_ name: String) -> String { root.appending(path: name).path }

/// What GGUF has no way to say of these models; each is refused with its reason.
private let refused = [
  "bloom-normed-residual": "normed", "gpt2-layer-scaled": "activation", "llama-dynamic": "dynamic",
  "llama-biases-multi-query": "activation", "opt": "opt", "opt-350m": "opt",
  "qwen3": "biases in the attention",
]

private let carried = ((try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? [])
  .filter { !$0.hasPrefix(".") && refused[$0] == nil }.sorted()

/// The checkpoint with some fields of its config replaced.
private func variant(_ name: String, _ fields: [String: JSON], in folder: String) throws -> String {
  let copy = "\(folder)/variant"
  try FileManager.default.copyItem(atPath: golden(name), toPath: copy)
  let url = URL(filePath: "\(copy)/config.json")
  var config = try #require(
    try JSON.parse([UInt8](Data(contentsOf: url)), name: "config.json").object)
  for (key, value) in fields { config[key] = value }
  try Data(JSON.object(config).serialized()).write(to: url)
  return copy
}

private let prompt = [1, 5, 60, 33, 8, 2, 17, 40, 3, 3, 59, 12, 27, 44, 6, 31, 9, 22, 50, 14]

private func logits(_ path: String) throws -> [Float] {
  let model = try LanguageModel.load(path)
  var all: [Float] = []
  try model.forEachLogits(of: prompt) { _, logits in
    all += UnsafeBufferPointer(start: logits.floats, count: logits.count)
  }
  return all
}

private func convert(_ model: String, _ mix: GGUFMix, to path: String) throws {
  _ = try GGUFConversion(model: model, mix: mix)
    .run(output: path, overwrite: false, onProgress: { _ in })
}

private func expectEqual(_ a: [Float], _ b: [Float], within tolerance: Float = 0) {
  let spread = a.map(abs).max() ?? 0
  #expect(spread > 0 && a.count == b.count)
  let worst = zip(a, b).map { abs($0 - $1) }.max() ?? .infinity
  #expect(worst <= tolerance * spread, "\(worst) of \(spread)")
}

/// Where a rotary frequency, a scale or a norm's offset is stored in float32, it may be rounded.
private let rounded: Set<String> = ["gemma2", "gemma3", "llama3", "phi3-long", "llama-yarn"]

@Test(arguments: carried)
func everyFamilyComputesTheSameFromGGUFAndBack(name: String) throws {
  try withTemporaryDirectory { folder in
    let original = try logits(golden(name))
    let tolerance: Float = rounded.contains(name) ? 3e-6 : 0
    try convert(golden(name), .f32, to: "\(folder)/f32.gguf")
    expectEqual(original, try logits("\(folder)/f32.gguf"), within: tolerance)
    try convert(golden(name), .bf16, to: "\(folder)/bf16.gguf")
    expectEqual(original, try logits("\(folder)/bf16.gguf"), within: tolerance)
    _ = try HuggingFaceConversion(model: "\(folder)/f32.gguf", dtype: .float32)
      .run(output: "\(folder)/back", overwrite: false, onProgress: { _ in })
    expectEqual(original, try logits("\(folder)/back"), within: tolerance)
  }
}

@Test(arguments: refused.sorted { $0.key < $1.key }.map(\.key))
func whatGGUFCannotSayIsRefusedByName(name: String) throws {
  let error = #expect(throws: ModelError.self) {
    try GGUFConversion(model: golden(name), mix: .f32)
  }
  let reason = try #require(refused[name])
  #expect("\(try #require(error))".contains(reason))
}

@Test func biasesOfLlamaMoveWithTheirRows() throws {
  try withTemporaryDirectory { folder in
    let model = try variant("llama-biases-multi-query", ["hidden_act": "silu"], in: folder)
    try convert(model, .f32, to: "\(folder)/f.gguf")
    expectEqual(try logits(model), try logits("\(folder)/f.gguf"))
  }
}

@Test func blocksOfEveryFamilyOpenAsTheirNumbers() throws {
  // Columns of 40 and 56 leave float16; GPT-2's matrices are turned on the way.
  for name in ["gpt2", "bloom", "gpt-neox", "llama2"] {
    try withTemporaryDirectory { folder in
      try convert(golden(name), .q4_k_m, to: "\(folder)/f.gguf")
      _ = try HuggingFaceConversion(model: "\(folder)/f.gguf", dtype: .float32)
        .run(output: "\(folder)/back", overwrite: false, onProgress: { _ in })
      expectEqual(
        try logits("\(folder)/f.gguf"), try logits("\(folder)/back"), within: 1e-5)
    }
  }
}

@Test(arguments: [GGUFMix.q8_0, .q4_0, .q4_k_m, .q2_k, .tq2_0, .iq4_xs, .mxfp4])
func packedModelsComputeAsTheirOpenedOnes(mix: GGUFMix) throws {
  try withTemporaryDirectory { folder in
    let model = try DefaultModel.modelPath()
    try convert(model, mix, to: "\(folder)/f.gguf")
    _ = try HuggingFaceConversion(model: "\(folder)/f.gguf", dtype: .float32)
      .run(output: "\(folder)/back", overwrite: false, onProgress: { _ in })
    expectEqual(try logits("\(folder)/f.gguf"), try logits("\(folder)/back"), within: 1e-5)
  }
}

@Test func aConversionGivesTheSameBytesEachTime() throws {
  try withTemporaryDirectory { folder in
    let model = try DefaultModel.modelPath()
    for name in ["a", "b"] { try convert(model, .q4_k_m, to: "\(folder)/\(name).gguf") }
    let bytes = try ["a", "b"].map { try Data(contentsOf: URL(filePath: "\(folder)/\($0).gguf")) }
    #expect(bytes[0] == bytes[1])
  }
}

private let texts = [
  "", " ", "Hello, world!", "  two  spaces ", "It's the dogs' 1234567 apples, isn't it?",
  "été naïve façade, 日本語のテキスト и русский", "tabs\tand\nnew\n\n\nlines \r\n end",
  "<|endoftext|>middle<s></s><unk>", "emoji 👩‍👩‍👧 and \u{0}\u{1} bytes ▁under▁line",
  "One day, a little girl named Lily found a needle in her room.",
]

private let tokenizers =
  ["stories260K", "babyllama-tok361"].map { SharedFiles.path("models/\($0)") }
  .filter { FileManager.default.fileExists(atPath: $0) }

@Test func tokenizersGiveTheSameIdsAfterTheRoundTrip() throws {
  for model in tokenizers + [try DefaultModel.modelPath()] {
    try withTemporaryDirectory { folder in
      try convert(model, .q8_0, to: "\(folder)/f.gguf")
      let raw = try #require(try Checkpoint.open("\(folder)/f.gguf").gguf)
      #expect(raw["tokenizer.huggingface.json"] == nil, "the other keys say it all")
      let shown = try Checkpoint.openModel("\(folder)/f.gguf")
      let ours = try Tokenizer(bytes: shown.readSideFile("tokenizer.json"))
      let theirs = try Tokenizer(path: "\(model)/tokenizer.json")
      for text in texts {
        let ids = try theirs.encode(text)
        #expect(try ours.encode(text) == ids, "\(text)")
        #expect(try ours.decode(ids) == theirs.decode(ids))
        #expect(
          try ours.encode(text, addSpecialTokens: false)
            == theirs.encode(text, addSpecialTokens: false))
      }
      #expect(ours.vocabularySize == theirs.vocabularySize)
    }
  }
}

@Test func mixesChooseAsLlamaCppDoes() throws {
  // (mix, tensor, type) as llama.cpp's quantizer chose them for the default model, 4 blocks.
  let expected: [(GGUFMix, String, GGUFType)] = [
    (.q4_k_m, "blk.0.attn_v.weight", .q4_K), (.q4_k_m, "blk.3.ffn_down.weight", .q6_K),
    (.q4_k_m, "token_embd.weight", .q6_K), (.q3_k_m, "blk.0.attn_v.weight", .q5_K),
    (.q3_k_m, "blk.2.attn_v.weight", .q4_K), (.q2_k, "blk.1.ffn_down.weight", .q3_K),
    (.q5_k_m, "blk.1.attn_q.weight", .q5_K), (.q4_0, "token_embd.weight", .q6_K),
    (.q8_0, "token_embd.weight", .q8_0), (.tq2_0, "blk.0.ffn_up.weight", .tq2_0),
  ]
  let model = try DefaultModel.modelPath()
  for (mix, tensor, type) in expected {
    let plan = try GGUFConversion(model: model, mix: mix).plan
    #expect(plan.rows.first { $0.name == tensor }?.to == type.name, "\(mix) \(tensor)")
  }
}

@Test func vocabularyAndEmbeddingMustAgree() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/f.gguf"
    try convert(try DefaultModel.modelPath(), .q8_0, to: path)
    let metadata = try #require(try Checkpoint.open(path).gguf)
    var changed = GGUFMetadata()
    for key in metadata.keys {
      guard let value = metadata[key] else { continue }
      changed.set(key, key == "tokenizer.ggml.tokens" ? .array(GGUFArray(strings: [[65]])) : value)
    }
    let writer = try GGUFWriter(
      file: "\(folder)/g.gguf", metadata: changed,
      tensors: [GGUFDeclaration(name: "token_embd.weight", type: .f32, shape: [2, 0])])
    _ = try writer.finish()
    let error = #expect(throws: CheckpointError.self) {
      try Checkpoint.openModel("\(folder)/g.gguf")
    }
    #expect("\(try #require(error))".contains("1 tokens, and token_embd.weight has 2 rows"))
  }
}

private let modernPattern =
  #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#

/// Each published way to cut text has its name in the file; one without a name brings its own
/// description along. Either way the ids stay the same.
@Test(arguments: [
  ("llama-bpe", modernPattern, true, nil), ("dbrx", modernPattern, false, nil),
  ("qwen2", modernPattern.replacing(#"\p{N}{1,3}"#, with: #"\p{N}"#), false, "NFC"),
  ("default", #"\w+|\W"#, false, nil),
])
func everyCutOfTextIsNamedOrCarried(
  pre: String, pattern: String, ignoresMerges: Bool, form: String?
) throws {
  try withTemporaryDirectory { folder in
    let model = "\(folder)/model"
    try FileManager.default.copyItem(atPath: try DefaultModel.modelPath(), toPath: model)
    let url = URL(filePath: "\(model)/tokenizer.json")
    var json = try JSON.parse([UInt8](Data(contentsOf: url)), name: "tokenizer.json")
    let cut: JSON = [
      "type": "Sequence",
      "pretokenizers": [
        [
          "type": "Split", "pattern": ["Regex": JSON(pattern)], "behavior": "Isolated",
          "invert": false,
        ],
        ["type": "ByteLevel", "add_prefix_space": false, "use_regex": false],
      ],
    ]
    var fields = try #require(json.object)
    var bytePairs = try #require(json["model"]?.object)
    bytePairs["ignore_merges"] = JSON(ignoresMerges)
    fields["model"] = .object(bytePairs)
    fields["pre_tokenizer"] = cut
    fields["normalizer"] = form.map { ["type": JSON($0)] } ?? .null
    json = .object(fields)
    try Data(json.serialized()).write(to: url)
    let settings = URL(filePath: "\(model)/tokenizer_config.json")
    try Data(
      #"{"bos_token": "<|endoftext|>", "chat_template": "{{ messages }} été"}"#.utf8
    ).write(to: settings)

    try convert(model, .q8_0, to: "\(folder)/f.gguf")
    let metadata = try #require(try Checkpoint.open("\(folder)/f.gguf").gguf)
    #expect(metadata["tokenizer.ggml.pre"]?.string == pre)
    #expect((metadata["tokenizer.huggingface.json"] != nil) == (pre == "default"))
    #expect(metadata["tokenizer.chat_template"]?.string == "{{ messages }} été")
    let shown = try Checkpoint.openModel("\(folder)/f.gguf")
    let ours = try Tokenizer(bytes: shown.readSideFile("tokenizer.json"))
    let theirs = try Tokenizer(path: url.path)
    for text in texts { #expect(try ours.encode(text) == theirs.encode(text), "\(text)") }
    let written = try JSON.parse(shown.readSideFile("tokenizer_config.json"), name: "settings")
    #expect(written["chat_template"]?.string == "{{ messages }} été")
    #expect(written["bos_token"]?.string == "<|endoftext|>")
  }
}

@Test func metadataThatNoModelFitsIsNamedByKey() throws {
  try withTemporaryDirectory { folder in
    let path = "\(folder)/f.gguf"
    try convert(golden("llama2"), .f32, to: path)
    let whole = try #require(try Checkpoint.open(path).gguf)
    func error(_ change: (inout GGUFMetadata) -> Void, dropping key: String? = nil) throws -> String
    {
      var metadata = GGUFMetadata()
      for name in whole.keys where name != key {
        if let value = whole[name] { metadata.set(name, value) }
      }
      change(&metadata)
      let original = try Checkpoint.open(path)
      var writer = try GGUFWriter(
        file: "\(folder)/g.gguf", metadata: metadata,
        tensors: original.names.compactMap { name in
          original.info(name).map { GGUFDeclaration(name: name, type: .f32, shape: $0.shape) }
        })
      for name in original.names { try writer.append(name, try original.tensor(name)) }
      _ = try writer.finish()
      do {
        _ = try LanguageModel.load("\(folder)/g.gguf")
        return "loaded"
      } catch {
        return "\(error)"
      }
    }
    #expect(try error { _ in } == "loaded")
    let without = { try error({ _ in }, dropping: $0) }
    #expect(try without("general.architecture").contains("general.architecture is missing"))
    #expect(try without("llama.block_count").contains("llama.block_count is missing"))
    #expect(try without("llama.context_length").contains("llama.context_length is missing"))
    #expect(try error { $0.set("general.architecture", "opt") }.contains("is `opt`; known: llama"))
    #expect(try error { $0.set("llama.block_count", 1) }.contains("model.layers.1"))
    #expect(try error { $0.set("llama.block_count", 3) }.contains("lacks"))
    #expect(try error { $0.set("llama.block_count", "two") }.contains("llama.block_count"))
    #expect(try error { $0.set("llama.embedding_length", 1 << 30) }.contains("embedding_length"))
    #expect(
      try error { $0.set("llama.attention.head_count", 3) }.contains("num_attention_heads")
        || error { $0.set("llama.attention.head_count", 3) }.contains("shape")
        || error { $0.set("llama.attention.head_count", 3) }.contains("key_value"))
    #expect(try error { $0.set("llama.expert_count", 8) }.contains("mixture of experts"))
    #expect(
      try error { $0.set("llama.feed_forward_length", GGUFArray([56, 40] as [Int32])) }
        .contains("differs from layer to layer"))
    #expect(
      try error { $0.set("llama.feed_forward_length", GGUFArray([56, 56] as [Int32])) } == "loaded")
    #expect(try error { $0.set("llama.rope.scaling.type", "su") }.contains("rope.scaling.type"))
  }
}
