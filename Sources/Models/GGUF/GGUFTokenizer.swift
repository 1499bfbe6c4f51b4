import Checkpoints
import Text

/// Makes the tokenizer's files of Hugging Face from the metadata of a GGUF file.
struct GGUFTokenizer: Sendable {
  /// What a token is, by its number in `tokenizer.ggml.token_type`.
  enum Kind: Int { case normal = 1, unknown, control, userDefined, unused, byte }

  let metadata: GGUFMetadata
  let file: String
  let vocabularySize: Int

  init(_ metadata: GGUFMetadata, file: String, vocabularySize: Int) {
    self.metadata = metadata
    self.file = file
    self.vocabularySize = vocabularySize
  }

  /// Names that stand for "a vocabulary is not part of this file".
  private static let absent: Set<String> = ["none", "no_vocab"]
  private static let original = "tokenizer.huggingface.json"

  private func wrong(_ key: String, _ problem: String) -> CheckpointError {
    .wrongMetadata(file: file, key: key, problem: problem)
  }

  /// A special token's id, such as that of `bos`; nil where the file has none.
  func id(_ name: String) throws(CheckpointError) -> Int? {
    let key = "tokenizer.ggml.\(name)_token_id"
    guard let value = metadata[key] else { return nil }
    guard let id = value.int else { throw wrong(key, "is not a token id") }
    // Converters write all ones where a model has no such token.
    return (0..<vocabularySize).contains(id) ? id : nil
  }

  private func flag(_ name: String) throws(CheckpointError) -> Bool? {
    let key = "tokenizer.ggml.\(name)"
    guard let value = metadata[key] else { return nil }
    guard let flag = value.bool else { throw wrong(key, "is not true or false") }
    return flag
  }

  /// The files this metadata can make; none where the file has no tokenizer.
  func files() throws(CheckpointError) -> [MadeFile] {
    var files = [
      MadeFile(name: "generation_config.json") { () throws(CheckpointError) in
        try generationConfig().serialized(pretty: true)
      }
    ]
    if let model = metadata["tokenizer.ggml.model"]?.string, !Self.absent.contains(model) {
      let tokens = metadata["tokenizer.ggml.tokens"]?.array
      guard let tokens, tokens.elementType == .string else {
        throw wrong("tokenizer.ggml.tokens", "is missing")
      }
      guard tokens.count == vocabularySize else {
        throw wrong(
          "tokenizer.ggml.tokens",
          "has \(tokens.count) tokens, and token_embd.weight has \(vocabularySize) rows")
      }
    } else if metadata[Self.original] == nil {
      return files
    }
    files.append(
      MadeFile(name: "tokenizer.json") { () throws(CheckpointError) in try tokenizer() })
    files.append(
      MadeFile(name: "tokenizer_config.json") { () throws(CheckpointError) in
        try configuration().serialized(pretty: true)
      })
    return files
  }

  /// Every id that ends a text.
  private func generationConfig() throws(CheckpointError) -> JSON {
    var ends: [JSON] = []
    for name in ["eos", "eot", "eom"] {
      if let id = try id(name), !ends.contains(JSON(id)) { ends.append(JSON(id)) }
    }
    return [
      "bos_token_id": try id("bos").map { JSON($0) } ?? .null,
      "eos_token_id": ends.count == 1 ? ends[0] : (ends.isEmpty ? .null : .array(ends)),
    ]
  }

  private func configuration() throws(CheckpointError) -> JSON {
    let tokens = metadata["tokenizer.ggml.tokens"]?.array?.strings ?? []
    var fields: [(String, JSON)] = [("tokenizer_class", "PreTrainedTokenizerFast")]
    for (field, name) in [
      ("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"),
      ("pad_token", "padding"),
    ] {
      if let id = try id(name), tokens.indices.contains(id) {
        fields.append((field, .string(tokens[id])))
      }
    }
    fields.append(("add_bos_token", JSON(try addsBegin())))
    fields.append(("add_eos_token", JSON(try flag("add_eos_token") ?? false)))
    fields.append(("clean_up_tokenization_spaces", false))
    if let template = metadata["tokenizer.chat_template"]?.bytes {
      fields.append(("chat_template", .string(template)))
    }
    return .object(JSONObject(fields))
  }

  private func addsBegin() throws(CheckpointError) -> Bool {
    if let stated = try flag("add_bos_token") { return stated }
    if metadata["tokenizer.ggml.model"]?.string == "llama" { return true }
    return try preTokenizer()?.addsBegin ?? false
  }

  private func preTokenizer() throws(CheckpointError) -> GGUFPreTokenizer? {
    GGUFPreTokenizer.named(metadata["tokenizer.ggml.pre"]?.string ?? "default")
  }

  // MARK: tokenizer.json

  private func tokenizer() throws(CheckpointError) -> [UInt8] {
    if let original = metadata[Self.original]?.bytes { return original }
    let tokens = metadata["tokenizer.ggml.tokens"]?.array?.strings ?? []
    let numbers = metadata["tokenizer.ggml.token_type"]?.array?.integers
    let kinds = (numbers ?? []).map { Kind(rawValue: $0) ?? .normal }
    guard kinds.isEmpty || kinds.count == tokens.count else {
      throw wrong("tokenizer.ggml.token_type", "has \(kinds.count) entries")
    }
    func kind(_ id: Int) -> Kind { kinds.isEmpty ? .normal : kinds[id] }

    var vocabulary = JSONObject()
    var added: [JSON] = []
    for (id, token) in tokens.enumerated() {
      if kind(id) == .unused, Self.isPadding(token) { continue }
      vocabulary[bytes: token] = JSON(id)
      guard [.control, .unknown, .userDefined].contains(kind(id)) else { continue }
      added.append([
        "id": JSON(id), "content": .string(token), "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": JSON(kind(id) != .userDefined),
      ])
    }
    var fields: [(String, JSON)] = [
      ("version", "1.0"), ("truncation", .null), ("padding", .null),
      ("added_tokens", .array(added)),
    ]
    let key = "tokenizer.ggml.model"
    switch metadata[key]?.string {
    case "gpt2": fields += try byteLevel(vocabulary)
    case "llama": fields += try scored(tokens, kind, vocabulary)
    case let other:
      throw .unsupportedMetadata(
        file: file, key: key, reason: "is `\(other ?? "no text")`; known: gpt2, llama")
    }
    fields.append(("post_processor", try postProcessor(tokens)))
    return JSON.object(JSONObject(fields)).serialized()
  }

  /// `[PAD151936]`: rows that the embedding has beyond the vocabulary.
  static func isPadding(_ token: [UInt8]) -> Bool {
    token.starts(with: "[PAD".utf8) && token.last == UInt8(ascii: "]")
  }

  private func byteLevel(_ vocabulary: JSONObject) throws(CheckpointError) -> [(String, JSON)] {
    let key = "tokenizer.ggml.pre"
    guard let cut = try preTokenizer() else {
      let known = GGUFPreTokenizer.all.flatMap(\.names).joined(separator: ", ")
      throw .unsupportedMetadata(
        file: file, key: key, reason: "is `\(metadata[key]?.string ?? "")`; known: \(known)")
    }
    guard let merges = metadata["tokenizer.ggml.merges"]?.array?.strings else {
      throw wrong("tokenizer.ggml.merges", "is missing")
    }
    return [
      ("normalizer", cut.normalizesToNFC ? ["type": "NFC"] : .null), ("pre_tokenizer", cut.json),
      ("decoder", ["type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true]),
      (
        "model",
        [
          "type": "BPE", "byte_fallback": false, "ignore_merges": JSON(cut.ignoresMerges),
          "vocab": .object(vocabulary), "merges": .array(merges.map { .string($0) }),
        ]
      ),
    ]
  }

  /// SentencePiece's byte pairs: whichever neighbours make the token of the highest score merge.
  private func scored(
    _ tokens: [[UInt8]], _ kind: (Int) -> Kind, _ vocabulary: JSONObject
  ) throws(CheckpointError) -> [(String, JSON)] {
    let key = "tokenizer.ggml.scores"
    guard let scores = metadata[key]?.array?.floats, scores.count == tokens.count else {
      throw wrong(key, "is not a score for each token")
    }
    let mergeable = tokens.indices.filter { [.normal, .userDefined].contains(kind($0)) }
    let merges = ScoredMerges.merges(tokens, scores: scores, of: mergeable)
    let replacement: JSON = ["type": "Replace", "pattern": ["String": " "], "content": "▁"]
    let prefixes = try flag("add_space_prefix") ?? true
    let decoders: [JSON] = [
      ["type": "Replace", "pattern": ["String": "▁"], "content": " "], ["type": "ByteFallback"],
      ["type": "Fuse"],
    ]
    let strip: JSON = ["type": "Strip", "content": " ", "start": 1, "stop": 0]
    let stated = try id("unknown")
    let unknown = stated ?? tokens.indices.first { kind($0) == .unknown }
    return [
      (
        "normalizer",
        [
          "type": "Sequence",
          "normalizers": .array(
            (prefixes ? [["type": "Prepend", "prepend": "▁"]] : []) + [replacement]),
        ]
      ), ("pre_tokenizer", .null),
      ("decoder", ["type": "Sequence", "decoders": .array(decoders + (prefixes ? [strip] : []))]),
      (
        "model",
        [
          "type": "BPE", "unk_token": unknown.map { .string(tokens[$0]) } ?? .null,
          "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
          "vocab": .object(vocabulary),
          "merges": .array(merges.map { .array([.string($0.left), .string($0.right)]) }),
        ]
      ),
    ]
  }

  private func postProcessor(_ tokens: [[UInt8]]) throws(CheckpointError) -> JSON {
    var single: [JSON] = [["Sequence": ["id": "A", "type_id": 0]]]
    var special = JSONObject()
    func item(_ id: Int) -> JSON {
      special[bytes: tokens[id]] = [
        "id": .string(tokens[id]), "ids": [JSON(id)], "tokens": [.string(tokens[id])],
      ]
      return ["SpecialToken": ["id": .string(tokens[id]), "type_id": 0]]
    }
    if try addsBegin(), let id = try id("bos") { single.insert(item(id), at: 0) }
    if try flag("add_eos_token") == true, let id = try id("eos") { single.append(item(id)) }
    guard single.count > 1 else { return .null }
    return [
      "type": "TemplateProcessing", "single": .array(single), "pair": .array(single),
      "special_tokens": .object(special),
    ]
  }
}

/// Merges that a vocabulary with scores implies.
enum ScoredMerges {
  /// Every way to put a token together from two others, by score, then by the parts' ids.
  static func merges(
    _ tokens: [[UInt8]], scores: [Float], of mergeable: [Int]
  ) -> [(left: [UInt8], right: [UInt8])] {
    var ids: [[UInt8]: Int] = [:]
    ids.reserveCapacity(tokens.count)
    for (id, token) in tokens.enumerated() where ids[token] == nil { ids[token] = id }
    var found: [(id: Int, left: Int, right: Int)] = []
    for id in mergeable {
      let token = tokens[id]
      for cut in token.indices.dropFirst() where token[cut] & 0xC0 != 0x80 {
        if let left = ids[Array(token[..<cut])], let right = ids[Array(token[cut...])] {
          found.append((id, left, right))
        }
      }
    }
    found.sort {
      (-scores[$0.id], $0.id, $0.left, $0.right) < (-scores[$1.id], $1.id, $1.left, $1.right)
    }
    return found.map { (tokens[$0.left], tokens[$0.right]) }
  }
}
