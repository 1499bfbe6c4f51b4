import Text

/// Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909), over characters as SentencePiece
/// does it or over bytes as GPT-2 does it.
struct BytePairModel: Sendable {
  /// The tokens as the file spells them.
  let vocabulary: Vocabulary
  /// With byte-level text, the ids of the single bytes: text is then encoded without being
  /// spelled in GPT-2's alphabet first.
  private let byteIDs: [Int32]?
  /// Whole words, for `ignore_merges`; keys are what `encode` is given.
  private let words: Vocabulary?
  private let merges: MergeTable
  private let characters: CharacterIDs
  private let joints: CharacterJoints?
  private let fallbackIDs: [Int32]
  private let unknownID: Int32?
  private let fusesUnknown: Bool
  private let continuingPrefix: [UInt8]
  private let endSuffix: [UInt8]

  /// - Parameter isByteLevel: whether the last pre-tokenizer is `ByteLevel`.
  init(_ model: Component, isByteLevel: Bool) throws(TokenizerError) {
    if let dropout = model.object["dropout"], !dropout.isNull, dropout.double != 0 {
      throw model.unsupported("`model.dropout`, which makes encoding random,")
    }
    let vocabulary = try Vocabulary.read(model, "vocab")
    self.vocabulary = vocabulary
    continuingPrefix = try model.optionalBytes("continuing_subword_prefix") ?? []
    endSuffix = try model.optionalBytes("end_of_word_suffix") ?? []
    fusesUnknown = try model.bool("fuse_unk", default: false)
    let hasFallback = try model.bool("byte_fallback", default: false)
    fallbackIDs =
      hasFallback
      ? (0..<256).map { vocabulary.id(of: ByteFallback.token(UInt8($0))) ?? -1 } : []
    if let unknown = try model.optionalBytes("unk_token") {
      guard let id = vocabulary.id(of: unknown) else {
        throw model.wrong("unk_token", "is not in the vocabulary")
      }
      unknownID = id
    } else {
      unknownID = nil
    }
    let isSpelledInBytes =
      isByteLevel && continuingPrefix.isEmpty && endSuffix.isEmpty && !hasFallback
    byteIDs =
      isSpelledInBytes
      ? (0..<256).map { byte in
        var spelling: [UInt8] = []
        ByteLevelAlphabet.append(UInt8(byte), to: &spelling)
        return vocabulary.id(of: spelling) ?? -1
      } : nil

    let pairs = try Self.readMerges(model)
    var merges = MergeTable(capacity: pairs.count + 1)
    var joints = CharacterJoints()
    for (rank, pair) in pairs.enumerated() {
      let result = pair.left + pair.right.dropFirst(continuingPrefix.count)
      func id(_ token: [UInt8]) throws(TokenizerError) -> Int32 {
        if let id = vocabulary.id(of: token) { return id }
        throw .mergeOutsideVocabulary(
          file: model.file, merge: rank, token: String(decoding: token, as: UTF8.self))
      }
      let left = try id(pair.left)
      let right = try id(pair.right)
      merges.insert(left, right, .init(rank: UInt32(rank), result: try id(result)))
      if !isSpelledInBytes { joints.insert(pairsOf: result) }
    }
    self.merges = merges
    self.joints =
      !isSpelledInBytes && continuingPrefix.isEmpty && endSuffix.isEmpty ? joints : nil
    characters = CharacterIDs(vocabulary)

    if try model.bool("ignore_merges", default: false) {
      if isSpelledInBytes {
        var words = Vocabulary(capacity: vocabulary.size)
        for (id, token) in vocabulary.tokens.enumerated() {
          guard let token, let bytes = ByteLevelAlphabet.decoded(token) else { continue }
          _ = words.insert(bytes, id: id)
        }
        self.words = words
      } else {
        words = vocabulary
      }
    } else {
      words = nil
    }
  }

  /// Whether `encode` takes plain bytes rather than GPT-2's spelling of them.
  var takesPlainBytes: Bool { byteIDs != nil }

  /// Merges in either form, `"a b"` or `["a", "b"]`.
  private static func readMerges(
    _ model: Component
  ) throws(TokenizerError) -> [(left: [UInt8], right: [UInt8])] {
    var pairs: [(left: [UInt8], right: [UInt8])] = []
    let merges = try model.array("merges")
    pairs.reserveCapacity(merges.count)
    for (index, merge) in merges.enumerated() {
      switch merge {
      case .string(let bytes):
        guard let space = bytes.firstIndex(of: 0x20), space == bytes.lastIndex(of: 0x20) else {
          throw model.wrong("merges[\(index)]", "is not two tokens with a space between")
        }
        pairs.append((Array(bytes[..<space]), Array(bytes[(space + 1)...])))
      case .array(let parts):
        guard parts.count == 2, let left = parts[0].bytes, let right = parts[1].bytes else {
          throw model.wrong("merges[\(index)]", "is not a pair of tokens")
        }
        pairs.append((left, right))
      default: throw model.wrong("merges[\(index)]", "is \(merge.kind) instead of a pair")
      }
    }
    return pairs
  }

  // MARK: Encoding

  /// Appends the ids of one piece of text.
  func encode(_ piece: UnsafeBufferPointer<UInt8>, _ cache: inout WordCache, to ids: inout [Int]) {
    guard let joints else { return encodeWord(piece, &cache, to: &ids) }
    // No merge reaches across two neighbouring characters that no token holds side by side, so
    // the piece may be cut there; that turns a whole text into words.
    var start = 0
    var index = 0
    var previous: UInt32?
    while index < piece.count {
      let length = max(1, UTF8Sequence.length(in: piece, at: index))
      let scalar = UTF8Sequence.scalar(in: piece, at: index, length: length)
      let current = characters.id(of: scalar) == nil ? nil : scalar
      if let left = previous, let right = current, !joints.contains(left, right) {
        encodeWord(UnsafeBufferPointer(rebasing: piece[start..<index]), &cache, to: &ids)
        start = index
      }
      previous = current
      index += length
    }
    encodeWord(UnsafeBufferPointer(rebasing: piece[start...]), &cache, to: &ids)
  }

  @inline(__always)
  private func encodeWord(
    _ word: UnsafeBufferPointer<UInt8>, _ cache: inout WordCache, to ids: inout [Int]
  ) {
    let key = UnsafeRawBufferPointer(word)
    if key.count > WordCache.maximumKeyCount { return appendMerged(word, to: &ids) }
    let hash = WordCache.hash(key)
    if cache.append(key, hash, to: &ids) { return }
    let start = ids.count
    appendMerged(word, to: &ids)
    cache.insert(key, hash, ids[start...])
  }

  private func appendMerged(_ word: UnsafeBufferPointer<UInt8>, to ids: inout [Int]) {
    if word.isEmpty { return }
    if let words, let id = words.id(of: UnsafeRawBufferPointer(word)) {
      ids.append(Int(id))
      return
    }
    var symbols = symbols(of: word)
    merges.mergeAll(&symbols)
    for symbol in symbols { ids.append(Int(symbol)) }
  }

  /// The characters (or bytes) of a word as ids, before any merge. Follows `merge_word` of
  /// `tokenizers`, which drops what has no token when there is no unknown token.
  private func symbols(of word: UnsafeBufferPointer<UInt8>) -> [Int32] {
    var symbols: [Int32] = []
    symbols.reserveCapacity(word.count)
    var pendingUnknown = false
    func addUnknown() {
      guard let unknownID else { return }
      if pendingUnknown, !fusesUnknown { symbols.append(unknownID) }
      pendingUnknown = true
    }
    func add(_ id: Int32) {
      if pendingUnknown, let unknownID { symbols.append(unknownID) }
      pendingUnknown = false
      symbols.append(id)
    }
    if let byteIDs {
      for byte in word {
        let id = byteIDs[Int(byte)]
        if id >= 0 { add(id) } else { addUnknown() }
      }
    } else {
      var index = 0
      while index < word.count {
        let length = max(1, UTF8Sequence.length(in: word, at: index))
        let character = word[index..<index + length]
        if let id = id(of: character, isFirst: index == 0, isLast: index + length == word.count) {
          add(id)
        } else if !fallbackIDs.isEmpty, character.allSatisfy({ fallbackIDs[Int($0)] >= 0 }) {
          for byte in character { symbols.append(fallbackIDs[Int(byte)]) }
        } else {
          addUnknown()
        }
        index += length
      }
    }
    if pendingUnknown, let unknownID { symbols.append(unknownID) }
    return symbols
  }

  private func id(
    of character: Slice<UnsafeBufferPointer<UInt8>>, isFirst: Bool, isLast: Bool
  ) -> Int32? {
    if continuingPrefix.isEmpty, endSuffix.isEmpty {
      let bytes = UnsafeBufferPointer(rebasing: character)
      return characters.id(of: UTF8Sequence.scalar(in: bytes, at: 0, length: bytes.count))
    }
    var token = isFirst ? [] : continuingPrefix
    token += character
    if isLast { token += endSuffix }
    return vocabulary.id(of: token)
  }
}

/// The spelling of single bytes in SentencePiece vocabularies, `<0x0A>`.
enum ByteFallback {
  static func token(_ byte: UInt8) -> [UInt8] {
    let digits = Array("0123456789ABCDEF".utf8)
    return Array("<0x".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]] + Array(">".utf8)
  }

  /// The byte a token spells; upper or lower case digits.
  static func byte(_ token: [UInt8]) -> UInt8? {
    guard token.count == 6, token.starts(with: "<0x".utf8), token[5] == UInt8(ascii: ">") else {
      return nil
    }
    return UInt8(String(decoding: token[3..<5], as: UTF8.self), radix: 16)
  }
}
