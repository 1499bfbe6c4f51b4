package import Checkpoints
package import Text

/// Writes a tokenizer's files into the metadata of a GGUF file.
package struct GGUFTokenizerDescription {
  package private(set) var notes: [String] = []
  private let json: JSON
  private let settings: JSON?
  private let model: JSON
  private var tokens: [[UInt8]]
  private var kinds: [GGUFTokenizer.Kind]
  private let mergeCount: Int

  private static let prefix = "tokenizer.ggml."

  /// - Parameters:
  ///   - json: the parsed `tokenizer.json`.
  ///   - settings: the parsed `tokenizer_config.json`, if there is one.
  ///   - vocabularySize: rows of the embedding.
  /// - Throws: `ModelError.notForGGUF` for a vocabulary that does not fit the embedding.
  package init(
    _ json: JSON, settings: JSON?, vocabularySize: Int, path: String
  ) throws(ModelError) {
    guard let model = json["model"], let vocabulary = model["vocab"]?.object else {
      throw .notForGGUF(
        ["its tokenizer is not one of byte pairs, the kind that GGUF files of its family hold"],
        path: path)
    }
    self.json = json
    self.settings = settings
    self.model = model
    mergeCount = model["merges"]?.array?.count ?? 0
    var tokens = [[UInt8]?](repeating: nil, count: vocabularySize)
    var kinds = [GGUFTokenizer.Kind](repeating: .normal, count: vocabularySize)
    func place(_ token: [UInt8], _ id: Int?) throws(ModelError) -> Int {
      guard let id, tokens.indices.contains(id) else {
        throw .notForGGUF(
          ["its tokenizer has the id \(id ?? -1), and its embedding \(vocabularySize) rows"],
          path: path)
      }
      tokens[id] = token
      return id
    }
    for (token, value) in vocabulary { _ = try place(token, value.int) }
    let unknown = model["unk_token"]?.bytes
    let hasFallback = model["byte_fallback"]?.bool == true
    for (id, token) in tokens.enumerated() {
      guard let token else { continue }
      if token == unknown { kinds[id] = .unknown }
      if hasFallback, Self.isByte(token) { kinds[id] = .byte }
    }
    for entry in json["added_tokens"]?.array ?? [] {
      guard let content = entry["content"]?.bytes else { continue }
      let id = try place(content, entry["id"]?.int)
      if kinds[id] == .unknown { continue }
      kinds[id] = entry["special"]?.bool == true ? .control : .userDefined
    }
    self.tokens = tokens.enumerated().map { id, token in token ?? Array("[PAD\(id)]".utf8) }
    for (id, token) in tokens.enumerated() where token == nil { kinds[id] = .unused }
    self.kinds = kinds
  }

  private static func isByte(_ token: [UInt8]) -> Bool {
    token.count == 6 && token.starts(with: "<0x".utf8) && token[5] == UInt8(ascii: ">")
  }

  /// - Parameters:
  ///   - begin: the model's begin token, if it has one.
  ///   - ends: every id that ends a text.
  ///   - template: the chat template, if there is one.
  ///   - original: the bytes of `tokenizer.json`, carried along where these keys alone would not
  ///     give the same tokenizer back.
  package mutating func write(
    to metadata: inout GGUFMetadata, begin: Int?, ends: [Int], template: [UInt8]?,
    original: [UInt8]
  ) {
    let isByteLevel = !(model["byte_fallback"]?.bool ?? false)
    var isFaithful = isByteLevel ? byteLevel(&metadata) : scored(&metadata)
    metadata.set(Self.prefix + "token_type", GGUFArray(kinds.map { Int32($0.rawValue) }))
    let begin = specialToken("bos_token") ?? begin
    let end = specialToken("eos_token") ?? ends.first
    set("bos", begin, &metadata)
    set("eos", end, &metadata)
    let others = ends.filter { $0 != end }
    for (name, id) in zip(["eot", "eom"], others) { set(name, id, &metadata) }
    set("unknown", kinds.firstIndex(of: .unknown), &metadata)
    set("padding", specialToken("pad_token"), &metadata)

    let around = aroundText()
    metadata.set(Self.prefix + "add_bos_token", begin != nil && around.before == [begin ?? -1])
    metadata.set(Self.prefix + "add_eos_token", end != nil && around.after == [end ?? -1])
    let before = begin.map { around.before == [$0] } ?? false
    let after = end.map { around.after == [$0] } ?? false
    if !(around.before.isEmpty || before) || !(around.after.isEmpty || after) {
      isFaithful = false
      notes.append("llama.cpp adds other tokens around a text than this tokenizer")
    }
    let flags = ["single_word", "lstrip", "rstrip", "normalized"]
    for entry in json["added_tokens"]?.array ?? []
    where flags.contains(where: { entry[$0]?.bool == true }) { isFaithful = false }
    if let template { metadata.set("tokenizer.chat_template", .string(template)) }
    if !isFaithful { metadata.set("tokenizer.huggingface.json", .string(original)) }
  }

  private func set(_ name: String, _ id: Int?, _ metadata: inout GGUFMetadata) {
    if let id, tokens.indices.contains(id) { metadata.set("\(Self.prefix)\(name)_token_id", id) }
  }

  /// The id of a token that `tokenizer_config.json` names by its text.
  private func specialToken(_ field: String) -> Int? {
    guard let value = settings?[field] else { return nil }
    guard let text = value.bytes ?? value["content"]?.bytes else { return nil }
    return tokens.firstIndex(of: text)
  }

  /// The ids that the post-processor puts before and behind a text.
  private func aroundText() -> (before: [Int], after: [Int]) {
    guard let processor = json["post_processor"], !processor.isNull else { return ([], []) }
    let steps = processor["processors"]?.array ?? [processor]
    guard let template = steps.first(where: { $0["type"]?.string == "TemplateProcessing" }) else {
      return ([], [])
    }
    var before: [Int] = [], after: [Int] = []
    var isBehind = false
    for item in template["single"]?.array ?? [] {
      guard let name = item["SpecialToken"]?["id"]?.bytes else {
        isBehind = true
        continue
      }
      let ids = template["special_tokens"]?.object?[bytes: name]?["ids"]?.array ?? []
      if isBehind { after += ids.compactMap(\.int) } else { before += ids.compactMap(\.int) }
    }
    return (before, after)
  }

  // MARK: The two kinds

  /// GPT-2's kind: bytes spelled as letters, merges by rank.
  private mutating func byteLevel(_ metadata: inout GGUFMetadata) -> Bool {
    let ignoresMerges = model["ignore_merges"]?.bool ?? false
    let form = json["normalizer"]?["type"]?.string
    let cut = GGUFPreTokenizer.recognise(
      json["pre_tokenizer"], ignoresMerges: ignoresMerges, normalizesToNFC: form == "NFC")
    metadata.set(Self.prefix + "model", "gpt2")
    metadata.set(Self.prefix + "pre", cut?.names.first ?? "default")
    metadata.set(Self.prefix + "tokens", GGUFArray(strings: tokens))
    metadata.set(
      Self.prefix + "merges", GGUFArray(strings: merges().map { $0.left + [32] + $0.right }))
    if cut == nil { notes.append("llama.cpp has no name for how this tokenizer cuts text") }
    let expected = cut.map { $0.normalizesToNFC ? "NFC" : nil } ?? nil
    return cut?.ignoresMerges == ignoresMerges && form == expected
      && (model["continuing_subword_prefix"]?.bytes ?? []).isEmpty
      && (model["end_of_word_suffix"]?.bytes ?? []).isEmpty && (model["unk_token"]?.isNull ?? true)
  }

  /// SentencePiece's kind: a score for each token, bytes for what has none.
  private mutating func scored(_ metadata: inout GGUFMetadata) -> Bool {
    let merges = merges()
    let kinds = kinds
    var scores = kinds.indices.map { id -> Float in
      kinds[id] == .normal || kinds[id] == .userDefined ? -Float(mergeCount + id) : 0
    }
    var ids: [[UInt8]: Int] = [:]
    for (id, token) in tokens.enumerated() where ids[token] == nil { ids[token] = id }
    var ranked: Set<Int> = []
    for (rank, merge) in merges.enumerated() {
      guard let id = ids[merge.left + merge.right], ranked.insert(id).inserted else { continue }
      scores[id] = -Float(rank)
    }
    metadata.set(Self.prefix + "model", "llama")
    metadata.set(Self.prefix + "pre", "default")
    metadata.set(Self.prefix + "tokens", GGUFArray(strings: tokens))
    metadata.set(Self.prefix + "scores", GGUFArray(scores))

    let steps = json["normalizer"].map { $0["normalizers"]?.array ?? [$0] } ?? []
    var prefixes = steps.contains { $0["type"]?.string == "Prepend" }
    let cut = json["pre_tokenizer"]
    let isMetaspace = cut?["type"]?.string == "Metaspace"
    if isMetaspace {
      prefixes =
        cut?["prepend_scheme"].map { $0.string != "never" }
        ?? cut?["add_prefix_space"]?.bool ?? true
    }
    metadata.set(Self.prefix + "add_space_prefix", prefixes)

    let mergeable = tokens.indices.filter { kinds[$0] == .normal || kinds[$0] == .userDefined }
    let implied = ScoredMerges.merges(tokens, scores: scores, of: mergeable)
    let isSame =
      implied.count == merges.count
      && zip(implied, merges).allSatisfy { $0.left == $1.left && $0.right == $1.right }
    if implied.count != merges.count {
      notes.append("llama.cpp merges by score, which this tokenizer's merges only come close to")
    }
    let plain = steps.allSatisfy { ["Prepend", "Replace"].contains($0["type"]?.string ?? "") }
    return isSame && plain && !isMetaspace && (cut?.isNull ?? true)
      && model["fuse_unk"]?.bool == true
  }

  private func merges() -> [(left: [UInt8], right: [UInt8])] {
    (model["merges"]?.array ?? []).compactMap { merge in
      if let parts = merge.array, parts.count == 2, let left = parts[0].bytes,
        let right = parts[1].bytes
      {
        return (left, right)
      }
      guard let text = merge.bytes, let space = text.firstIndex(of: 32) else { return nil }
      return (Array(text[..<space]), Array(text[(space + 1)...]))
    }
  }
}
