/// Reads `[…]` and the escapes that denote one scalar of a set.
struct CharacterClassParser {
  private let source: String
  private let scalars: [Unicode.Scalar]
  private let ignoresCase: Bool
  private(set) var position: Int
  private var depth = 0

  init(_ source: String, _ scalars: [Unicode.Scalar], at position: Int, ignoresCase: Bool) {
    self.source = source
    self.scalars = scalars
    self.position = position
    self.ignoresCase = ignoresCase
  }

  /// The set after an opening bracket: ranges, escapes, nested classes and `&&`.
  mutating func bracketed() throws(PatternError) -> CharacterSet {
    depth += 1
    if depth > 50 { throw malformed("character classes are nested too deep") }
    defer { depth -= 1 }
    let isNegated = take("^")
    var ranges: [ClosedRange<UInt32>] = []
    var intersection: CharacterSet?
    var isFirst = true
    while true {
      let next = try advance()
      if next == "]", !isFirst { break }
      isFirst = false
      if next == "[" {
        ranges += try (take(":") ? posixClass() : bracketed()).ranges
        continue
      }
      if next == "&", take("&") {
        let left = CharacterSet(ranges)
        intersection = intersection.map { $0.intersection(left) } ?? left
        ranges = []
        continue
      }
      position -= 1
      let low = try item()
      guard let first = low.single, peek == "-", position + 1 < scalars.count,
        scalars[position + 1] != "]", scalars[position + 1] != "["
      else {
        ranges += low.set.ranges
        continue
      }
      position += 1
      guard let last = try item().single, first <= last else {
        throw malformed("a range that has no order")
      }
      ranges.append(first...last)
    }
    var set = CharacterSet(ranges)
    if let intersection { set = intersection.intersection(set) }
    if ignoresCase { set = set.caseInsensitive }
    return isNegated ? set.inverted : set
  }

  /// `alpha:]` or `^alpha:]`, after `[:`.
  private mutating func posixClass() throws(PatternError) -> CharacterSet {
    let isNegated = take("^")
    var name = ""
    while let next = peek, next != ":", next != "]" { name.unicodeScalars.append(try advance()) }
    guard take(":"), take("]"), let set = UnicodeProperties.posixClass(name) else {
      throw unsupported("the POSIX class `[:\(name):]`")
    }
    return isNegated ? set.inverted : set
  }

  /// The set after a backslash.
  mutating func escape() throws(PatternError) -> CharacterSet {
    let letter = try advance()
    switch letter {
    case "s": return UnicodeProperties.whitespace
    case "S": return UnicodeProperties.whitespace.inverted
    case "d": return UnicodeProperties.decimalDigits
    case "D": return UnicodeProperties.decimalDigits.inverted
    case "w": return UnicodeProperties.word
    case "W": return UnicodeProperties.word.inverted
    case "h": return UnicodeProperties.hexadecimalDigits
    case "H": return UnicodeProperties.hexadecimalDigits.inverted
    case "p": return try property()
    case "P": return try property().inverted
    case "n": return CharacterSet(0x0A)
    case "r": return CharacterSet(0x0D)
    case "t": return CharacterSet(0x09)
    case "f": return CharacterSet(0x0C)
    case "v": return CharacterSet(0x0B)
    case "a": return CharacterSet(0x07)
    case "e": return CharacterSet(0x1B)
    case "x":
      if take("{") {
        let value = try hexadecimal(atMost: 8)
        guard take("}") else { throw malformed("a `\\x{` that is never closed") }
        return CharacterSet(value)
      }
      return CharacterSet(try hexadecimal(atMost: 2))
    case "u": return CharacterSet(try hexadecimal(atMost: 4))
    case "0": return CharacterSet(0)
    case "1"..."9": throw unsupported("a back-reference `\\\(letter)`")
    case "k": throw unsupported("a back-reference `\\k`")
    case "b", "B": throw unsupported("the word boundary `\\\(letter)`")
    case "A", "G", "Z": throw unsupported("the anchor `\\\(letter)`")
    case "a"..."z", "A"..."Z": throw unsupported("the escape `\\\(letter)`")
    default:
      let set = CharacterSet(letter.value)
      return ignoresCase ? set.caseInsensitive : set
    }
  }

  /// `L`, `{Lu}`, `{^Han}`, `{Script=Han}` after `\p`.
  private mutating func property() throws(PatternError) -> CharacterSet {
    var name = ""
    if take("{") {
      while !take("}") { name.unicodeScalars.append(try advance()) }
    } else {
      name.unicodeScalars.append(try advance())
    }
    let isNegated = name.hasPrefix("^")
    if isNegated { name.removeFirst() }
    guard let set = UnicodeProperties.named(name) else {
      throw unsupported("the property `\\p{\(name)}`")
    }
    return isNegated ? set.inverted : set
  }

  private mutating func item() throws(PatternError) -> (set: CharacterSet, single: UInt32?) {
    let next = try advance()
    guard next == "\\" else { return (CharacterSet(next.value), next.value) }
    let isSet = peek.map { "sSdDwWhHpP".unicodeScalars.contains($0) } ?? false
    let set = try escape()
    return (set, isSet ? nil : set.ranges.first?.lowerBound)
  }

  // MARK: Scalars

  private var peek: Unicode.Scalar? { position < scalars.count ? scalars[position] : nil }

  private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
    guard peek == scalar else { return false }
    position += 1
    return true
  }

  private mutating func advance() throws(PatternError) -> Unicode.Scalar {
    guard let next = peek else { throw malformed("it ends too early") }
    position += 1
    return next
  }

  private mutating func hexadecimal(atMost count: Int) throws(PatternError) -> UInt32 {
    let start = position
    var value: UInt32 = 0
    while let next = peek,
      let digit = next.properties.isASCIIHexDigit ? Character(next).hexDigitValue : nil,
      position - start < count
    {
      value = value << 4 | UInt32(digit)
      position += 1
    }
    guard position > start, Unicode.Scalar(value) != nil else {
      throw malformed("an escape that names no character")
    }
    return value
  }

  private func malformed(_ problem: String) -> PatternError {
    .malformed(pattern: source, offset: position, problem: problem)
  }

  private func unsupported(_ construct: String) -> PatternError {
    .unsupported(pattern: source, construct: construct)
  }
}
