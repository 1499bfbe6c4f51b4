import Text

/// Remembers the ids of short pieces. Natural text repeats its words, so nearly every piece of a
/// long text is found here. Bounded: when full, it starts anew.
struct WordCache: Sendable {
  private struct Entry {
    var hash: UInt64 = 0  // 0 where free
    var keyStart: Int32 = 0
    var idStart: Int32 = 0
    var keyCount: UInt16 = 0
    var idCount: UInt16 = 0
  }

  private var entries = [Entry](repeating: Entry(), count: 1 << 10)
  private var keys: [UInt8] = []
  private var ids: [Int32] = []
  private var count = 0

  /// Longer pieces rarely return, and would crowd out those that do.
  static let maximumKeyCount = 64
  private static let maximumEntries = 1 << 16

  @inline(__always)
  static func hash(_ key: UnsafeRawBufferPointer) -> UInt64 { ByteHash.hash(key) | 1 << 63 }

  /// Appends the ids of a piece seen before; `false` when it was not.
  @inline(__always)
  func append(_ key: UnsafeRawBufferPointer, _ hash: UInt64, to output: inout [Int]) -> Bool {
    let mask = entries.count - 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    while true {
      let entry = entries[slot]
      if entry.hash == 0 { return false }
      if entry.hash == hash, Int(entry.keyCount) == key.count, matches(entry, key) {
        let start = Int(entry.idStart)
        for index in start..<start + Int(entry.idCount) { output.append(Int(ids[index])) }
        return true
      }
      slot = (slot + 1) & mask
    }
  }

  @inline(__always)
  private func matches(_ entry: Entry, _ key: UnsafeRawBufferPointer) -> Bool {
    let start = Int(entry.keyStart)
    for index in 0..<key.count where keys[start + index] != key[index] { return false }
    return true
  }

  /// Keeps the ids of a new piece.
  mutating func insert(_ key: UnsafeRawBufferPointer, _ hash: UInt64, _ newIDs: ArraySlice<Int>) {
    guard key.count <= Self.maximumKeyCount else { return }
    if count * 2 >= entries.count { grow() }
    let mask = entries.count - 1
    var slot = Int(truncatingIfNeeded: hash) & mask
    while entries[slot].hash != 0 { slot = (slot + 1) & mask }
    entries[slot] = Entry(
      hash: hash, keyStart: Int32(keys.count), idStart: Int32(ids.count),
      keyCount: UInt16(key.count), idCount: UInt16(newIDs.count))
    keys.append(contentsOf: key)
    for id in newIDs { ids.append(Int32(id)) }
    count += 1
  }

  private mutating func grow() {
    guard entries.count < Self.maximumEntries else {
      self = WordCache()
      return
    }
    let old = entries
    entries = [Entry](repeating: Entry(), count: old.count * 4)
    let mask = entries.count - 1
    for entry in old where entry.hash != 0 {
      var slot = Int(truncatingIfNeeded: entry.hash) & mask
      while entries[slot].hash != 0 { slot = (slot + 1) & mask }
      entries[slot] = entry
    }
  }
}
