import Text

/// Tokens as byte strings, found by id and by bytes.
struct Vocabulary: Sendable {
  /// The token of each id; `nil` where an id is not used.
  private(set) var tokens: [[UInt8]?] = []
  /// Open addressing over `tokens`: id + 1, 0 where free.
  private var slots: [Int32] = []
  private var count = 0

  /// Ids beyond this are damage: no model has embeddings for them.
  static let maximumSize = 1 << 24

  init() {}

  /// - Parameter capacity: how many tokens to make room for.
  init(capacity: Int) {
    var size = 64
    while size < capacity * 2 { size *= 2 }
    slots = [Int32](repeating: 0, count: size)
    tokens.reserveCapacity(capacity)
  }

  /// One more than the largest id.
  var size: Int { tokens.count }

  func id(of token: [UInt8]) -> Int32? {
    token.withUnsafeBytes { id(of: $0) }
  }

  func id(of token: UnsafeRawBufferPointer) -> Int32? {
    if slots.isEmpty { return nil }
    let entry = slots[slot(for: token)]
    return entry == 0 ? nil : entry - 1
  }

  /// Adds a token; the first of two with the same bytes stays findable. `false` when the id is
  /// taken by another token.
  mutating func insert(_ token: [UInt8], id: Int) -> Bool {
    if id >= tokens.count {
      tokens.append(contentsOf: repeatElement(nil, count: id + 1 - tokens.count))
    } else if let present = tokens[id] {
      return present == token
    }
    if (count + 1) * 2 > slots.count { grow() }
    tokens[id] = token
    let slot = token.withUnsafeBytes { bytes in self.slot(for: bytes) }
    if slots[slot] == 0 {
      slots[slot] = Int32(id + 1)
      count += 1
    }
    return true
  }

  private func slot(for token: UnsafeRawBufferPointer) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: ByteHash.hash(token)) & mask
    while slots[slot] != 0 {
      if let known = tokens[Int(slots[slot]) - 1], known.count == token.count,
        known.elementsEqual(token)
      {
        break
      }
      slot = (slot + 1) & mask
    }
    return slot
  }

  private mutating func grow() {
    let old = slots
    slots = [Int32](repeating: 0, count: max(64, old.count * 2))
    for entry in old where entry != 0 {
      guard let token = tokens[Int(entry) - 1] else { continue }
      slots[token.withUnsafeBytes { slot(for: $0) }] = entry
    }
  }

  /// Reads `{"token": id, …}`.
  static func read(_ component: Component, _ key: String) throws(TokenizerError) -> Vocabulary {
    let members = try component.child(key).object
    var vocabulary = Vocabulary(capacity: members.count)
    for (token, value) in zip(members.keys, members.values) {
      let text = String(decoding: token, as: UTF8.self)
      guard let id = value.int, id >= 0, id < maximumSize else {
        throw component.wrong(key, "gives \"\(text)\" an id that is not one")
      }
      guard vocabulary.insert(token, id: id) else {
        throw component.wrong(key, "gives two tokens the id \(id), one of them \"\(text)\"")
      }
    }
    return vocabulary
  }
}
