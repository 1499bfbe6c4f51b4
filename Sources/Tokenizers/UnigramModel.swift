import Text

/// The unigram language model (Kudo 2018, arXiv:1804.10959): of all ways to cut a piece into
/// tokens, the one whose log-probabilities sum highest.
struct UnigramModel: Sendable {
  let vocabulary: Vocabulary
  private let scores: [Double]
  private let trie: ByteTrie
  private let unknownID: Int32?
  private let unknownScore: Double
  private let fallbackIDs: [Int32]

  /// SentencePiece's penalty of an unknown character below the rarest token.
  private static let unknownPenalty = 10.0

  init(_ model: Component) throws(TokenizerError) {
    var vocabulary = Vocabulary()
    var scores: [Double] = []
    for (id, entry) in try model.array("vocab").enumerated() {
      guard let pair = entry.array, pair.count == 2, let token = pair[0].bytes,
        let score = pair[1].double
      else { throw model.wrong("vocab[\(id)]", "is not a token with its score") }
      guard id < Vocabulary.maximumSize, vocabulary.insert(token, id: id) else {
        throw model.wrong("vocab", "has too many tokens")
      }
      scores.append(score)
    }
    guard !scores.isEmpty else { throw model.wrong("vocab", "is empty") }
    if model.has("unk_id") {
      let id = try model.int("unk_id")
      guard scores.indices.contains(id) else {
        throw model.wrong("unk_id", "lies outside the vocabulary")
      }
      unknownID = Int32(id)
    } else {
      unknownID = nil
    }
    let hasFallback = try model.bool("byte_fallback", default: false)
    fallbackIDs =
      hasFallback
      ? (0..<256).map { vocabulary.id(of: ByteFallback.token(UInt8($0))) ?? -1 } : []
    unknownScore = (scores.min() ?? 0) - Self.unknownPenalty
    trie = ByteTrie(vocabulary)
    self.vocabulary = vocabulary
    self.scores = scores
  }

  /// Appends the ids of one piece.
  func encode(
    _ piece: UnsafeBufferPointer<UInt8>, _ cache: inout WordCache, to ids: inout [Int]
  ) throws(TokenizerError) {
    let key = UnsafeRawBufferPointer(piece)
    guard key.count <= WordCache.maximumKeyCount else { return try appendBest(piece, to: &ids) }
    let hash = WordCache.hash(key)
    if cache.append(key, hash, to: &ids) { return }
    let start = ids.count
    try appendBest(piece, to: &ids)
    cache.insert(key, hash, ids[start...])
  }

  private struct Arrival {
    var score = 0.0
    var start: Int32 = -1
    var id: Int32 = 0
  }

  /// Viterbi over byte positions, as `encode_optimized` of `tokenizers`.
  private func appendBest(
    _ piece: UnsafeBufferPointer<UInt8>, to ids: inout [Int]
  ) throws(TokenizerError) {
    var best = [Arrival](repeating: Arrival(), count: piece.count + 1)
    var start = 0
    while start < piece.count {
      let length = max(1, UTF8Sequence.length(in: piece, at: start))
      let score = best[start].score
      var hasSingle = false
      trie.forEachPrefix(of: piece, from: start) { end, id in
        let candidate = scores[Int(id)] + score
        if best[end].start < 0 || candidate > best[end].score {
          best[end] = Arrival(score: candidate, start: Int32(start), id: id)
        }
        if end - start == length { hasSingle = true }
      }
      let end = start + length
      if !hasSingle, best[end].start < 0 || unknownScore + score > best[end].score {
        guard let unknownID else {
          throw .noUnknownToken(piece: String(decoding: piece[start..<end], as: UTF8.self))
        }
        best[end] = Arrival(score: unknownScore + score, start: Int32(start), id: unknownID)
      }
      start = end
    }

    // Walk back; neighbouring unknown characters are one piece.
    var pieces: [Range<Int>] = []
    var end = piece.count
    var isInUnknown = false
    while end > 0 {
      let arrival = best[end]
      let start = Int(arrival.start)
      let isUnknown = arrival.id == unknownID
      if isUnknown, isInUnknown, let last = pieces.popLast() {
        pieces.append(start..<last.upperBound)
      } else {
        pieces.append(start..<end)
      }
      isInUnknown = isUnknown
      end = start
    }
    for range in pieces.reversed() {
      let token = UnsafeBufferPointer(rebasing: piece[range])
      if let id = vocabulary.id(of: UnsafeRawBufferPointer(token)) {
        ids.append(Int(id))
      } else if !fallbackIDs.isEmpty, token.allSatisfy({ fallbackIDs[Int($0)] >= 0 }) {
        for byte in token { ids.append(Int(fallbackIDs[Int(byte)])) }
      } else if let unknownID {
        ids.append(Int(unknownID))
      }
    }
  }
}

/// A trie of byte strings: the children of a node lie together, sorted by their byte.
struct ByteTrie: Sendable {
  private var firstChild: [Int32] = []
  private var childCount: [UInt16] = []
  private var labels: [UInt8] = []
  private var ids: [Int32] = []
  private var rootChildren = [Int32](repeating: -1, count: 256)

  init(_ vocabulary: Vocabulary) {
    var sorted: [(token: [UInt8], id: Int32)] = []
    for (id, token) in vocabulary.tokens.enumerated() {
      if let token, !token.isEmpty { sorted.append((token, Int32(id))) }
    }
    sorted.sort {
      ($0.token.lexicographicallyPrecedes($1.token)) || ($0.token == $1.token && $0.id < $1.id)
    }
    addNode(label: 0)
    // Breadth first, so that siblings are neighbours.
    var pending: [(node: Int, tokens: Range<Int>, depth: Int)] = [(0, 0..<sorted.count, 0)]
    var head = 0
    while head < pending.count {
      let (node, tokens, depth) = pending[head]
      head += 1
      firstChild[node] = Int32(labels.count)
      var low = tokens.lowerBound
      while low < tokens.upperBound {
        guard sorted[low].token.count > depth else {
          if ids[node] < 0 { ids[node] = sorted[low].id }
          low += 1
          continue
        }
        let label = sorted[low].token[depth]
        var high = low
        while high < tokens.upperBound, sorted[high].token[depth] == label { high += 1 }
        if node == 0 { rootChildren[Int(label)] = Int32(labels.count) }
        pending.append((labels.count, low..<high, depth + 1))
        addNode(label: label)
        childCount[node] += 1
        low = high
      }
    }
  }

  private mutating func addNode(label: UInt8) {
    firstChild.append(0)
    childCount.append(0)
    labels.append(label)
    ids.append(-1)
  }

  /// Calls `body` with the end and id of each token that starts at `start`, shortest first.
  @inline(__always)
  func forEachPrefix(
    of text: UnsafeBufferPointer<UInt8>, from start: Int, _ body: (_ end: Int, _ id: Int32) -> Void
  ) {
    var node = Int(rootChildren[Int(text[start])])
    var index = start + 1
    while node >= 0 {
      if ids[node] >= 0 { body(index, ids[node]) }
      if index == text.count { return }
      node = child(of: node, text[index])
      index += 1
    }
  }

  @inline(__always)
  private func child(of node: Int, _ label: UInt8) -> Int {
    var low = Int(firstChild[node])
    var high = low + Int(childCount[node])
    let end = high
    while low < high {
      let middle = (low + high) / 2
      if labels[middle] < label { low = middle + 1 } else { high = middle }
    }
    return low < end && labels[low] == label ? low : -1
  }
}
