import Text

/// The ids of the tokens that are one character.
struct CharacterIDs: Sendable {
  private var ascii = [Int32](repeating: -1, count: 128)
  private var others = ScalarPairTable()

  init(_ vocabulary: Vocabulary) {
    for (id, token) in vocabulary.tokens.enumerated() {
      guard let token, let first = token.first else { continue }
      token.withUnsafeBufferPointer { bytes in
        let length = UTF8Sequence.length(in: bytes, at: 0)
        guard length == bytes.count else { return }
        if length == 1 {
          if ascii[Int(first)] < 0 { ascii[Int(first)] = Int32(id) }
        } else {
          let scalar = UTF8Sequence.scalar(in: bytes, at: 0, length: length)
          if others.value(UInt64(scalar)) == nil { others.insert(UInt64(scalar), Int32(id)) }
        }
      }
    }
  }

  @inline(__always)
  func id(of scalar: UInt32) -> Int32? {
    if scalar < 128 {
      let id = ascii[Int(scalar)]
      return id < 0 ? nil : id
    }
    return others.value(UInt64(scalar))
  }
}

/// The pairs of characters that stand side by side inside some merged token.
struct CharacterJoints: Sendable {
  private var ascii = [Bool](repeating: false, count: 128 * 128)
  private var others = ScalarPairTable()

  mutating func insert(pairsOf token: [UInt8]) {
    var previous: UInt32?
    token.withUnsafeBufferPointer { token in
      var index = 0
      while index < token.count {
        let length = max(1, UTF8Sequence.length(in: token, at: index))
        let scalar = UTF8Sequence.scalar(in: token, at: index, length: length)
        if let left = previous {
          if left < 128, scalar < 128 {
            ascii[Int(left << 7 | scalar)] = true
          } else {
            others.insert(UInt64(left) << 32 | UInt64(scalar), 1)
          }
        }
        previous = scalar
        index += length
      }
    }
  }

  @inline(__always)
  func contains(_ left: UInt32, _ right: UInt32) -> Bool {
    if left < 128, right < 128 { return ascii[Int(left << 7 | right)] }
    return others.value(UInt64(left) << 32 | UInt64(right)) != nil
  }
}

/// An open-addressed map from scalars, or pairs of them, to small numbers.
struct ScalarPairTable: Sendable {
  private var keys = [UInt64](repeating: .max, count: 64)
  private var values = [Int32](repeating: 0, count: 64)
  private var count = 0

  @inline(__always)
  func value(_ key: UInt64) -> Int32? {
    let slot = slot(for: key)
    return keys[slot] == key ? values[slot] : nil
  }

  mutating func insert(_ key: UInt64, _ value: Int32) {
    var place = slot(for: key)
    if keys[place] != key {
      count += 1
      if count * 2 > keys.count {
        let old = zip(keys, values).filter { $0.0 != .max }
        keys = [UInt64](repeating: .max, count: keys.count * 2)
        values = [Int32](repeating: 0, count: keys.count)
        for (key, value) in old {
          let place = slot(for: key)
          keys[place] = key
          values[place] = value
        }
        place = slot(for: key)
      }
    }
    keys[place] = key
    values[place] = value
  }

  @inline(__always)
  private func slot(for key: UInt64) -> Int {
    let mask = keys.count - 1
    var slot = Int(truncatingIfNeeded: ByteHash.mix(key)) & mask
    while keys[slot] != .max, keys[slot] != key { slot = (slot + 1) & mask }
    return slot
  }
}
