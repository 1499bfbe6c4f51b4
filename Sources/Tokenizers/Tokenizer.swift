import Synchronization
public import Text

/// A tokenizer as a `tokenizer.json` of Hugging Face describes it.
///
/// Text passes through added tokens, normalizer, pre-tokenizer, model and post-processor on its
/// way to ids, and through the decoder on its way back. Whatever the file asks for and this
/// package does not have is an error that names it; `truncation` and `padding` are left out, as
/// `transformers` leaves them out when a caller does not ask for them.
public final class Tokenizer: Sendable {
  enum Model: Sendable {
    case bytePair(BytePairModel)
    case unigram(UnigramModel)
  }

  private let model: Model
  private let normalizers: [Normalizer]
  private let preTokenizers: [PreTokenizer]
  private let postProcessor: PostProcessor
  private let decoders: [Decoder]
  private let verbatimTokens: AddedTokenMatcher
  private let normalizedTokens: AddedTokenMatcher
  private let addedIDs: [[UInt8]: Int]
  private let specialIDs: Set<Int>
  /// Every token by id, added ones laid over the model's.
  private let tokens: [[UInt8]?]
  /// Added tokens that are decoded in another spelling than the file's: the normalized one.
  private let normalizedSpellings: [Int: [UInt8]]
  /// One cache per encoding that runs at the same time.
  private let caches = Mutex<[WordCache]>([])

  /// - Parameters:
  ///   - json: the document.
  ///   - name: the file's name, for messages.
  public init(json: JSON, name: String = "tokenizer.json") throws(TokenizerError) {
    let root = try Component(json, file: name, path: "")
    let preTokenizer = root.has("pre_tokenizer") ? try root.child("pre_tokenizer") : nil
    let isByteLevel = try preTokenizer.map { (component) throws(TokenizerError) in
      try PreTokenizer.endsInByteLevel(component)
    }
    let modelComponent = try root.child("model")
    model = try Self.readModel(modelComponent, isByteLevel: isByteLevel ?? false)
    normalizers =
      root.has("normalizer") ? try Normalizer.read(try root.child("normalizer")) : []
    var steps = try preTokenizer.map { (component) throws(TokenizerError) in
      try PreTokenizer.read(component)
    }
    // A byte-level model that knows its bytes needs no spelling of them.
    if case .bytePair(let bytePair) = model, bytePair.takesPlainBytes { steps?.removeLast() }
    preTokenizers = steps ?? []
    postProcessor =
      root.has("post_processor")
      ? try PostProcessor(try root.child("post_processor")) : PostProcessor()
    decoders = root.has("decoder") ? try Decoder.read(try root.child("decoder")) : [.joinWithSpaces]

    let vocabulary =
      switch model {
      case .bytePair(let model): model.vocabulary
      case .unigram(let model): model.vocabulary
      }
    var tokens = vocabulary.tokens
    var addedIDs: [[UInt8]: Int] = [:]
    var specialIDs: Set<Int> = []
    var added: [AddedToken] = []
    for component in root.has("added_tokens") ? try root.children("added_tokens") : [] {
      let token = try AddedToken(component)
      if let known = vocabulary.id(of: token.content), Int(known) != token.id {
        throw component.wrong("id", "is not the \(known) that the vocabulary gives this token")
      }
      if token.content.isEmpty { continue }
      if token.id >= tokens.count {
        tokens.append(contentsOf: repeatElement(nil, count: token.id + 1 - tokens.count))
      }
      tokens[token.id] = token.content
      addedIDs[token.content] = token.id
      if token.isSpecial { specialIDs.insert(token.id) }
      added.append(token)
    }
    self.tokens = tokens
    self.addedIDs = addedIDs
    self.specialIDs = specialIDs
    let verbatim = added.filter { !$0.isNormalized }
    verbatimTokens = AddedTokenMatcher(verbatim, spellings: verbatim.map(\.content))
    let normalized = added.filter(\.isNormalized)
    let normalizers = normalizers
    let spellings = normalized.map { token in
      normalizers.reduce(token.content) { $1.normalized($0) }
    }
    normalizedTokens = AddedTokenMatcher(normalized, spellings: spellings)
    normalizedSpellings = Dictionary(
      zip(normalized, spellings).filter { $0.content != $1 }.map { ($0.id, $1) },
      uniquingKeysWith: { first, _ in first })
    for id in postProcessor.before + postProcessor.after where !tokens.indices.contains(id) {
      throw .malformed(
        file: name, field: "post_processor", problem: "adds the id \(id), which has no token")
    }
  }

  private static func readModel(
    _ component: Component, isByteLevel: Bool
  ) throws(TokenizerError) -> Model {
    var type = component.object["type"]?.string
    if type == nil, component.has("merges") { type = "BPE" }  // files before tokenizers 0.9
    switch type {
    case "BPE": return .bytePair(try BytePairModel(component, isByteLevel: isByteLevel))
    case "Unigram": return .unigram(try UnigramModel(component))
    case let other?: throw component.unsupported("the model `\(other)`")
    case nil: throw component.wrong("type", "is missing")
    }
  }
}

// MARK: - Vocabulary

extension Tokenizer {
  /// One more than the largest id; some ids below may be unused.
  public var vocabularySize: Int { tokens.count }

  /// The id of a token spelled as in the file.
  public func id(of token: [UInt8]) -> Int? {
    if let id = addedIDs[token] { return id }
    switch model {
    case .bytePair(let model): return model.vocabulary.id(of: token).map(Int.init)
    case .unigram(let model): return model.vocabulary.id(of: token).map(Int.init)
    }
  }

  /// The id of a token spelled as in the file.
  public func id(of token: String) -> Int? { id(of: Array(token.utf8)) }

  /// The token of an id, spelled as in the file; `nil` when no token has it.
  public func token(_ id: Int) -> [UInt8]? { tokens.indices.contains(id) ? tokens[id] : nil }

  /// Whether `decode` leaves this id out when it skips special tokens.
  public func isSpecial(_ id: Int) -> Bool { specialIDs.contains(id) }
}

// MARK: - Encoding

extension Tokenizer {
  /// The ids of a UTF-8 text.
  ///
  /// - Parameters:
  ///   - text: may be empty.
  ///   - addSpecialTokens: whether the post-processor adds its tokens, such as the one that
  ///     starts a document. Special tokens written in the text are always recognised.
  /// - Throws: `invalidText` when the bytes are not UTF-8, `noUnknownToken` when a unigram model
  ///   has nothing for a character.
  public func encode(
    _ text: [UInt8], addSpecialTokens: Bool = true
  ) throws(TokenizerError) -> [Int] {
    if let offset = UTF8Sequence.firstInvalidOffset(text) { throw .invalidText(offset: offset) }
    var cache = caches.withLock { $0.popLast() } ?? WordCache()
    var ids: [Int] = addSpecialTokens ? postProcessor.before : []
    ids.reserveCapacity(text.count / 4 + 16)
    for (range, token) in verbatimTokens.segments(of: text) {
      if let token {
        ids.append(token.id)
        continue
      }
      var segment = range.count == text.count ? text : Array(text[range])
      for normalizer in normalizers { segment = normalizer.normalized(segment) }
      for (part, token) in normalizedTokens.segments(of: segment) {
        if let token {
          ids.append(token.id)
          continue
        }
        let isWhole = part.count == segment.count
        let pieces = Pieces(
          isWhole ? segment : Array(segment[part]),
          startsInput: range.lowerBound == 0 && part.lowerBound == 0)
        try encode(pieces, &cache, to: &ids)
      }
    }
    if addSpecialTokens { ids += postProcessor.after }
    let warm = cache
    caches.withLock { $0.append(warm) }
    return ids
  }

  /// The ids of a text; see `encode(_:addSpecialTokens:)`.
  public func encode(
    _ text: String, addSpecialTokens: Bool = true
  ) throws(TokenizerError) -> [Int] {
    try encode(Array(text.utf8), addSpecialTokens: addSpecialTokens)
  }

  /// The normalized pieces that the model would be given if the text held no added token.
  package func pieces(of text: [UInt8]) -> [[UInt8]] {
    var pieces = Pieces(normalizers.reduce(text) { $1.normalized($0) }, startsInput: true)
    for step in preTokenizers { step.apply(to: &pieces) }
    return pieces.ranges.map { Array(pieces.text[$0]) }
  }

  private func encode(
    _ input: Pieces, _ cache: inout WordCache, to ids: inout [Int]
  ) throws(TokenizerError) {
    var pieces = input
    for step in preTokenizers { step.apply(to: &pieces) }
    let ranges = pieces.ranges
    try pieces.text.withUnsafeBufferPointer { (text) throws(TokenizerError) in
      for range in ranges {
        let piece = UnsafeBufferPointer(rebasing: text[range])
        switch model {
        case .bytePair(let model): model.encode(piece, &cache, to: &ids)
        case .unigram(let model): try model.encode(piece, &cache, to: &ids)
        }
      }
    }
  }
}

// MARK: - Decoding

extension Tokenizer {
  /// The UTF-8 text of ids; what is no character becomes U+FFFD. Ids inside the vocabulary that
  /// no token has are left out.
  /// - Throws: `unknownID` for an id outside the vocabulary.
  public func decode(
    _ ids: [Int], skipSpecialTokens: Bool = true
  ) throws(TokenizerError) -> [UInt8] {
    var pipeline = decoderPipeline(isEager: false)
    for id in ids {
      if let token = try decodedToken(id, skipsSpecialTokens: skipSpecialTokens) {
        pipeline.push(token)
      }
    }
    pipeline.finish()
    return UTF8Sequence.repaired(pipeline.output)
  }

  /// A decoder for ids that arrive one by one.
  public func streamingDecoder(skipSpecialTokens: Bool = true) -> StreamingDecoder {
    StreamingDecoder(self, skipsSpecialTokens: skipSpecialTokens)
  }

  func decoderPipeline(isEager: Bool) -> DecoderPipeline {
    DecoderPipeline(decoders, isEager: isEager)
  }

  /// The token to decode; `nil` for one that is skipped.
  func decodedToken(
    _ id: Int, skipsSpecialTokens: Bool
  ) throws(TokenizerError) -> [UInt8]? {
    guard tokens.indices.contains(id) else {
      throw .unknownID(id, vocabularySize: tokens.count)
    }
    if skipsSpecialTokens, specialIDs.contains(id) { return nil }
    return normalizedSpellings[id] ?? tokens[id]
  }
}
