/// Decompositions and compositions, from `DecompositionTable` and, for Hangul, arithmetic
/// (Unicode Standard, section 3.12). Scalars later than Unicode 9 are left alone.
struct UnicodeDecomposition: Sendable {
  static let shared = UnicodeDecomposition()

  /// A scalar's one-step mapping: a slice of `scalars`.
  private struct Mapping {
    var start: Int32
    var count: Int16
    var isCompatible: Bool
  }

  private var mappings: [UInt32: Mapping] = [:]
  private var scalars: [UInt32] = []
  private var composites: [UInt64: UInt32] = [:]
  private var seconds: Set<UInt32> = []

  private init() {
    let table = DecompositionTable.base64
    let text = UnsafeBufferPointer(start: table.utf8Start, count: table.utf8CodeUnitCount)
    let bytes = Base64.decoded(text) ?? []
    precondition(!bytes.isEmpty, "the decomposition table is base64")
    var position = 0
    func varint() -> UInt32 {
      var value: UInt32 = 0
      var shift: UInt32 = 0
      while true {
        let byte = bytes[position]
        position += 1
        value |= UInt32(byte & 0x7F) << shift
        if byte < 0x80 { return value }
        shift += 7
      }
    }
    var key: UInt32 = 0
    while position < bytes.count {
      key += varint()
      let header = varint()
      let start = scalars.count
      var previous = Int(key)
      for _ in 0..<header >> 1 {
        let zigzag = Int(varint())
        previous += zigzag & 1 == 0 ? zigzag >> 1 : -(zigzag + 1) >> 1
        scalars.append(UInt32(previous))
      }
      guard Self.isKnown(key) else { continue }
      let isCompatible = header & 1 == 1
      mappings[key] = Mapping(
        start: Int32(start), count: Int16(scalars.count - start), isCompatible: isCompatible)
      if !isCompatible, scalars.count - start == 2,
        Unicode.Scalar(key)?.properties.isFullCompositionExclusion == false
      {
        composites[UInt64(scalars[start]) << 32 | UInt64(scalars[start + 1])] = key
        seconds.insert(scalars[start + 1])
      }
    }
  }

  /// Whether Unicode 9 has the scalar.
  private static func isKnown(_ scalar: UInt32) -> Bool {
    Unicode.Scalar(scalar)?.properties.age.map { $0.major <= 9 } ?? false
  }

  /// `Canonical_Combining_Class`.
  static func combiningClass(_ scalar: UInt32) -> UInt8 {
    if scalar < 0x300 { return 0 }
    guard let known = Unicode.Scalar(scalar)?.properties,
      known.canonicalCombiningClass != .notReordered, isKnown(scalar)
    else { return 0 }
    return known.canonicalCombiningClass.rawValue
  }

  /// Appends the full decomposition of a scalar.
  func append(_ scalar: UInt32, isCompatible: Bool, to output: inout [UInt32]) {
    if scalar < 0x80 {
      output.append(scalar)
    } else if let syllable = Hangul.syllable(scalar) {
      output.append(Hangul.leading + syllable / Hangul.blockSize)
      output.append(Hangul.vowel + syllable % Hangul.blockSize / Hangul.trailingCount)
      let trailing = syllable % Hangul.trailingCount
      if trailing != 0 { output.append(Hangul.trailing + trailing) }
    } else if let mapping = mappings[scalar], isCompatible || !mapping.isCompatible {
      let start = Int(mapping.start)
      for part in scalars[start..<start + Int(mapping.count)] {
        append(part, isCompatible: isCompatible, to: &output)
      }
    } else {
      output.append(scalar)
    }
  }

  /// The primary composite of two scalars.
  func composite(_ first: UInt32, _ second: UInt32) -> UInt32? {
    if let composite = Hangul.composite(first, second) { return composite }
    return composites[UInt64(first) << 32 | UInt64(second)]
  }

  /// Whether a scalar is the second of any composite.
  func mayJoinPrevious(_ scalar: UInt32) -> Bool {
    seconds.contains(scalar) || Hangul.vowels.contains(scalar) || Hangul.trailings.contains(scalar)
  }
}

private enum Hangul {
  static let syllables: UInt32 = 0xAC00
  static let leading: UInt32 = 0x1100
  static let vowel: UInt32 = 0x1161
  static let trailing: UInt32 = 0x11A7
  static let vowelCount: UInt32 = 21
  static let trailingCount: UInt32 = 28
  static let blockSize = vowelCount * trailingCount
  static let leadings = leading..<leading + 19
  static let vowels = vowel..<vowel + vowelCount
  static let trailings = trailing + 1..<trailing + trailingCount

  static func syllable(_ scalar: UInt32) -> UInt32? {
    scalar >= syllables && scalar < syllables + 11172 ? scalar - syllables : nil
  }

  static func composite(_ first: UInt32, _ second: UInt32) -> UInt32? {
    if leadings.contains(first), vowels.contains(second) {
      return syllables + ((first - leading) * vowelCount + second - vowel) * trailingCount
    }
    if let syllable = syllable(first), syllable % trailingCount == 0, trailings.contains(second) {
      return first + second - trailing
    }
    return nil
  }
}
