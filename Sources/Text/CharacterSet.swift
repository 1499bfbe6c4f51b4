/// A set of Unicode scalars as sorted, disjoint, non-adjacent ranges: what `[^\s\p{L}]` denotes.
struct CharacterSet: Hashable, Sendable {
  private(set) var ranges: [ClosedRange<UInt32>]

  static let none = CharacterSet([])
  static let all = CharacterSet([0...0x10FFFF])

  init(_ ranges: [ClosedRange<UInt32>]) {
    var merged: [ClosedRange<UInt32>] = []
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = merged.last, range.lowerBound <= last.upperBound &+ 1 {
        merged[merged.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        merged.append(range)
      }
    }
    self.ranges = merged
  }

  init(_ scalar: UInt32) { ranges = [scalar...scalar] }

  func union(_ other: CharacterSet) -> CharacterSet { CharacterSet(ranges + other.ranges) }

  func intersection(_ other: CharacterSet) -> CharacterSet {
    inverted.union(other.inverted).inverted
  }

  /// Every scalar value that is not in the set. Surrogates count as values: no text has them.
  var inverted: CharacterSet {
    var gaps: [ClosedRange<UInt32>] = []
    var next: UInt32 = 0
    for range in ranges {
      if range.lowerBound > next { gaps.append(next...range.lowerBound - 1) }
      next = range.upperBound + 1
    }
    if next <= 0x10FFFF { gaps.append(next...0x10FFFF) }
    return CharacterSet(gaps)
  }

  func contains(_ scalar: UInt32) -> Bool {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound < scalar { low = middle + 1 } else { high = middle }
    }
    return low < ranges.count && ranges[low].contains(scalar)
  }

  /// The set with every scalar that differs from a member only in case.
  var caseInsensitive: CharacterSet {
    var closed = ranges
    for range in ranges {
      for value in range where value < 0x20000 {
        for twin in Self.caseVariants(of: value) { closed.append(twin...twin) }
      }
    }
    return CharacterSet(closed)
  }

  private static func caseVariants(of value: UInt32) -> [UInt32] {
    switch value {
    // Two letters beyond ASCII fold into it: the long s and the Kelvin sign.
    case 0x53, 0x73: return [0x53, 0x73, 0x17F]
    case 0x4B, 0x6B: return [0x4B, 0x6B, 0x212A]
    case 0x41...0x5A, 0x61...0x7A: return [value ^ 0x20]
    case 0..<0x80: return []
    default: return caseFold(value).flatMap { variantsOfFold[$0] } ?? []
    }
  }

  /// One scalar for all that differ only in case.
  private static func caseFold(_ value: UInt32) -> UInt32? {
    func single(_ mapping: String) -> Unicode.Scalar? {
      mapping.unicodeScalars.count == 1 ? mapping.unicodeScalars.first : nil
    }
    guard let scalar = Unicode.Scalar(value) else { return nil }
    let upper = single(scalar.properties.uppercaseMapping) ?? scalar
    return (single(upper.properties.lowercaseMapping) ?? upper).value
  }

  private static let variantsOfFold: [UInt32: [UInt32]] = {
    var variants: [UInt32: [UInt32]] = [:]
    for value in UInt32(0)..<0x20000 {
      if let fold = caseFold(value) { variants[fold, default: []].append(value) }
    }
    return variants
  }()
}
