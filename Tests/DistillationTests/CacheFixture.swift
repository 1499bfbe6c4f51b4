import Checkpoints
import Distillation
import Foundation
import Models
import Tensors
import TestSupport
import Text
import Tokenizers
import Training

/// A tiny random Llama and some data of one token for each letter.
enum CacheFixture {
  static let vocabulary = 98

  static func config(
    hidden: Int = 24, layers: Int = 4, heads: Int = 4, keyValueHeads: Int = 2,
    intermediate: Int = 40, vocabulary: Int = vocabulary, tied: Bool = false
  ) -> JSON {
    [
      "architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "hidden_size": JSON(hidden), "num_hidden_layers": JSON(layers),
      "num_attention_heads": JSON(heads), "num_key_value_heads": JSON(keyValueHeads),
      "intermediate_size": JSON(intermediate), "vocab_size": JSON(vocabulary),
      "max_position_embeddings": 64, "rms_norm_eps": JSON(1e-5), "hidden_act": "silu",
      "tie_word_embeddings": JSON(tied), "initializer_range": JSON(0.3),
    ]
  }

  static func model(_ folder: String, _ config: JSON = config(), seed: UInt64 = 1) throws
    -> LanguageModel
  {
    let initialization = try ModelInitialization(config: config, path: folder)
    let target = "\(folder)/model-\(UUID())"
    let output = try OutputDirectory(target, overwrite: false)
    try initialization.write(to: output, seed: seed)
    try output.finish()
    return try LanguageModel.load(target)
  }

  /// - Parameters:
  ///   - merges: pairs that become tokens after those of single characters.
  ///   - isReversed: gives the characters' tokens in the opposite order.
  static func tokenizer(merges: [[String]] = [], isReversed: Bool = false) throws -> Tokenizer {
    var vocabulary = [("<s>", JSON(0)), ("</s>", JSON(1))]
    let codes = [10] + Array(32..<127)
    for code in isReversed ? codes.reversed() : codes {
      vocabulary.append((String(UnicodeScalar(UInt8(code))), JSON(vocabulary.count)))
    }
    for merge in merges { vocabulary.append((merge.joined(), JSON(vocabulary.count))) }
    return try Tokenizer(json: [
      "added_tokens": [
        ["id": 0, "content": "<s>", "special": true],
        ["id": 1, "content": "</s>", "special": true],
      ],
      "model": [
        "type": "BPE", "vocab": .object(JSONObject(vocabulary)),
        "merges": .array(merges.map { .array($0.map { JSON($0) }) }),
      ],
      "decoder": ["type": "Fuse"],
    ])
  }

  static func stream(
    _ folder: String, rows: Int = 2, length: Int = 16, mode: TrainingStream.Mode = .packed,
    seed: UInt64 = 7, documents: Int = 30
  ) throws -> TrainingStream {
    var random = Xoshiro256(seed: 11)
    let texts = (0..<documents).map { index in
      "\(index)"
        + String(
          (0..<Int.random(in: 0..<40, using: &random)).map { _ in
            Character(UnicodeScalar(UInt8.random(in: 97..<123, using: &random)))
          })
    }
    let path = "\(folder)/data-\(UUID()).txt"
    try Data(texts.joined(separator: "<|endoftext|>").utf8).write(to: URL(filePath: path))
    let data = try TrainingData([DataSource(path: path, format: .text)], seed: seed)
    let encoder = try ExampleEncoder(tokenizer: tokenizer(), beginToken: 0, endTokens: [1])
    return try TrainingStream(
      data, encoder: encoder, options: .init(rows: rows, length: length, mode: mode, passes: 1))
  }

  static func batches(_ stream: TrainingStream) throws -> [TrainingBatch] {
    var stream = stream
    var batches: [TrainingBatch] = []
    while let batch = try stream.next() { batches.append(batch) }
    return batches
  }

  /// log-probabilities of a row in Double, independently of the kernels.
  static func logProbabilities(_ logits: Tensor, _ row: Int) -> [Double] {
    let row = logits.array[(row * logits.columns)..<((row + 1) * logits.columns)].map(Double.init)
    let top = row.max() ?? 0
    let sum = row.reduce(0) { $0 + exp($1 - top) }
    return row.map { $0 - top - log(sum) }
  }

  static func message(_ body: () throws -> Void) -> String {
    do {
      try body()
      return "no error"
    } catch {
      return "\(error)"
    }
  }
}
