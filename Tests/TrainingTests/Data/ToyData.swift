import Foundation
import Tensors
import Text
import Tokenizers
import Training

/// A tokenizer of one token for each ASCII character, so that tests can read what they expect.
enum ToyTokenizer {
  static let begin = 0, end = 1
  /// Marks of conversations that are one token each.
  private static let marks = ["<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]

  static func make(addsBegin: Bool = true, merges: [[String]] = []) throws -> Tokenizer {
    var vocabulary = [("<s>", JSON(begin)), ("</s>", JSON(end))]
    for code in [9, 10, 13] + Array(32..<127) {
      vocabulary.append((String(UnicodeScalar(UInt8(code))), JSON(vocabulary.count)))
    }
    for merge in merges { vocabulary.append((merge.joined(), JSON(vocabulary.count))) }
    var special: [JSON] = []
    for (id, text) in (["<s>", "</s>"] + marks).enumerated() {
      if id > end { vocabulary.append((text, JSON(vocabulary.count))) }
      let place = id > end ? vocabulary.count - 1 : id
      special.append(["id": JSON(place), "content": JSON(text), "special": true])
    }
    var document: JSON = [
      "added_tokens": .array(special),
      "model": [
        "type": "BPE", "vocab": .object(JSONObject(vocabulary)),
        "merges": .array(merges.map { .array($0.map { JSON($0) }) }),
      ],
      "decoder": ["type": "Fuse"],
    ]
    if addsBegin, var members = document.object {
      members["post_processor"] = [
        "type": "TemplateProcessing",
        "single": [
          ["SpecialToken": ["id": "<s>", "type_id": 0]], ["Sequence": ["id": "A", "type_id": 0]],
        ],
        "special_tokens": ["<s>": ["id": "<s>", "ids": [0], "tokens": ["<s>"]]],
      ]
      document = .object(members)
    }
    return try Tokenizer(json: document)
  }

  static func encoder(
    addsBegin: Bool = true, template: ChatTemplate? = nil, merges: [[String]] = []
  ) throws -> ExampleEncoder {
    try ExampleEncoder(
      tokenizer: make(addsBegin: addsBegin, merges: merges), template: template, endTokens: [end])
  }
}

/// Writes a file, and reads it as training data.
struct ToyFile {
  let path: String

  init(_ folder: String, _ text: String, name: String = "data.txt") throws {
    try self.init(folder, bytes: Array(text.utf8), name: name)
  }

  init(_ folder: String, bytes: [UInt8], name: String = "data.txt") throws {
    path = "\(folder)/\(name)"
    try Data(bytes).write(to: URL(filePath: path))
  }

  func data(
    _ format: DataSource.Format = .text, heldOut: HeldOut = .none, seed: UInt64 = 1,
    repeats: Int = 1, partBytes: Int = 1 << 16
  ) throws(TrainingError) -> TrainingData {
    try TrainingData(
      [DataSource(path: path, format: format, repeats: repeats)], heldOut: heldOut, seed: seed,
      partBytes: partBytes)
  }

  /// The texts of all documents for training in the order of the file.
  func texts(
    _ format: DataSource.Format = .text, partBytes: Int = 1 << 16
  ) throws -> [String] {
    let data = try data(format, partBytes: partBytes)
    return try data.order(.training, epoch: 0, isShuffled: false).map {
      guard case .text(let text, _, _) = try data.content(Int($0)) else { return "no text" }
      return String(decoding: text, as: UTF8.self)
    }
  }
}

/// Documents of different lengths whose texts are all different, a separator after each.
func randomDocuments(_ count: Int, longest: Int, seed: UInt64) -> [String] {
  var random = Xoshiro256(seed: seed)
  return (0..<count).map { index in
    "#\(index):"
      + String(
        (0..<Int.random(in: 0..<longest, using: &random)).map { _ in
          Character(UnicodeScalar(UInt8.random(in: 97..<123, using: &random)))
        })
  }
}

/// The sentence of the error that an operation must end with.
func sentence(_ body: () throws -> Void) -> String {
  do {
    try body()
    return "no error"
  } catch {
    return "\(error)"
  }
}
