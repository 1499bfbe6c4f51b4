/// The members of a JSON object, in the order of the file, each key once.
///
/// Keys are compared as bytes. Small objects are searched in order; larger ones carry a hash
/// table, so that a vocabulary of 256,000 entries is read in one pass.
public struct JSONObject: Sendable {
  /// The keys as UTF-8, in order.
  public private(set) var keys: [[UInt8]] = []
  /// The values, in the order of `keys`.
  public private(set) var values: [JSON] = []
  /// Open addressing: index + 1 of a key, 0 where free. Empty while the object is small.
  private var slots: [Int32] = []

  public init() {}

  /// The members in order; a repeated key keeps its first place and its last value.
  public init(_ members: [(String, JSON)]) {
    for (key, value) in members { self[key] = value }
  }

  public var count: Int { keys.count }
  public var isEmpty: Bool { keys.isEmpty }

  /// Reads a member, replaces it in place, appends a new one, or with `nil` removes it.
  public subscript(_ key: String) -> JSON? {
    get { self[bytes: Array(key.utf8)] }
    set { self[bytes: Array(key.utf8)] = newValue }
  }

  /// The member whose key has exactly these bytes.
  public subscript(bytes key: [UInt8]) -> JSON? {
    get { index(of: key).map { values[$0] } }
    set {
      switch (index(of: key), newValue) {
      case (let index?, let value?): values[index] = value
      case (nil, let value?): append(key, value)
      case (let index?, nil):
        keys.remove(at: index)
        values.remove(at: index)
        if !slots.isEmpty { rebuildSlots() }
      case (nil, nil): break
      }
    }
  }

  /// Appends a member unless its key is already there; `false` says that it was.
  @discardableResult
  mutating func append(_ key: [UInt8], _ value: JSON) -> Bool {
    if slots.isEmpty {
      if keys.contains(key) { return false }
    } else {
      let slot = slot(for: key)
      if slots[slot] != 0 { return false }
      slots[slot] = Int32(truncatingIfNeeded: keys.count + 1)
    }
    keys.append(key)
    values.append(value)
    if keys.count > (slots.isEmpty ? Self.searchedInOrder : slots.count / 2) { rebuildSlots() }
    return true
  }

  private static let searchedInOrder = 12

  private func index(of key: [UInt8]) -> Int? {
    if slots.isEmpty { return keys.firstIndex(of: key) }
    let entry = slots[slot(for: key)]
    return entry == 0 ? nil : Int(entry) - 1
  }

  /// The slot that holds the key, or the free one where it belongs.
  private func slot(for key: [UInt8]) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: ByteHash.hash(key)) & mask
    while slots[slot] != 0, keys[Int(slots[slot]) - 1] != key { slot = (slot + 1) & mask }
    return slot
  }

  private mutating func rebuildSlots() {
    var capacity = 32
    while capacity < keys.count * 4 { capacity *= 2 }
    slots = [Int32](repeating: 0, count: capacity)
    for (index, key) in keys.enumerated() {
      slots[slot(for: key)] = Int32(truncatingIfNeeded: index + 1)
    }
  }
}

extension JSONObject: Equatable {
  /// The same members in the same order.
  public static func == (a: Self, b: Self) -> Bool { a.keys == b.keys && a.values == b.values }
}

extension JSONObject: Sequence {
  /// The members in order.
  public func makeIterator() -> Zip2Sequence<[[UInt8]], [JSON]>.Iterator {
    zip(keys, values).makeIterator()
  }
}

extension JSONObject {
  /// The keys as text, for objects whose keys are known to be plain.
  public var keyStrings: [String] { keys.map { String(decoding: $0, as: UTF8.self) } }
}
