/// The syntax tree of a pattern.
indirect enum PatternNode {
  /// One scalar of a set.
  case set(CharacterSet)
  case sequence([PatternNode])
  /// The earlier alternative wins, as in every backtracking engine.
  case alternation([PatternNode])
  case repetition(PatternNode, minimum: Int, maximum: Int?, isGreedy: Bool)
  /// Looks at one scalar without taking it.
  case lookahead(NextScalar)
}

/// What must follow: a scalar of the set or, if allowed, the end of the text.
struct NextScalar: Hashable {
  var set: CharacterSet
  var allowsEnd: Bool
  var inverted: NextScalar { NextScalar(set: set.inverted, allowsEnd: !allowsEnd) }
}

/// Reads the Oniguruma syntax that tokenizers use. Whatever one scalar of lookahead cannot
/// express is refused by its name.
struct PatternParser {
  private let source: String
  private let scalars: [Unicode.Scalar]
  private var position = 0
  private var ignoresCase = false
  private var depth = 0

  init(_ source: String) {
    self.source = source
    scalars = Array(source.unicodeScalars)
  }

  static func parse(_ source: String) throws(PatternError) -> PatternNode {
    var parser = PatternParser(source)
    let node = try parser.alternation()
    if parser.position < parser.scalars.count { throw parser.malformed("an unopened ')'") }
    return node
  }

  // MARK: Structure

  private mutating func alternation() throws(PatternError) -> PatternNode {
    depth += 1
    if depth > 100 { throw malformed("groups are nested too deep") }
    let outerIgnoresCase = ignoresCase
    var alternatives = [try sequence()]
    while take("|") { alternatives.append(try sequence()) }
    ignoresCase = outerIgnoresCase
    depth -= 1
    return alternatives.count == 1 ? alternatives[0] : .alternation(alternatives)
  }

  private mutating func sequence() throws(PatternError) -> PatternNode {
    var items: [PatternNode] = []
    while let next = peek, next != "|", next != ")" {
      items.append(try repeated(try atom()))
    }
    return items.count == 1 ? items[0] : .sequence(items)
  }

  private mutating func repeated(_ atom: PatternNode) throws(PatternError) -> PatternNode {
    var node = atom
    while let next = peek {
      var minimum = 0
      var maximum: Int? = nil
      let isInterval = next == "{"
      switch next {
      case "*": position += 1
      case "+":
        position += 1
        minimum = 1
      case "?":
        position += 1
        maximum = 1
      case "{":
        guard let bounds = try interval() else { return node }
        (minimum, maximum) = bounds
      default: return node
      }
      if case .lookahead = node { throw unsupported("a repeated lookahead") }
      if take("?") {
        if isInterval, maximum == minimum { throw unsupported("`{n}?`") }
        node = .repetition(node, minimum: minimum, maximum: maximum, isGreedy: false)
      } else if peek == "+" {
        position += 1
        if isInterval {  // not possessive in Oniguruma's Ruby syntax: the interval, repeated
          node = .repetition(node, minimum: minimum, maximum: maximum, isGreedy: true)
          node = .repetition(node, minimum: 1, maximum: nil, isGreedy: true)
        } else {
          node = try possessive(node, minimum: minimum, maximum: maximum)
        }
      } else {
        node = .repetition(node, minimum: minimum, maximum: maximum, isGreedy: true)
      }
    }
    return node
  }

  /// A possessive repetition of one scalar gives nothing back: it may only stop before a scalar
  /// outside its set, or at its maximum.
  private func possessive(
    _ node: PatternNode, minimum: Int, maximum: Int?
  ) throws(PatternError) -> PatternNode {
    guard case .set(let set) = node else {
      throw unsupported("a possessive quantifier on more than one character")
    }
    let stops = PatternNode.lookahead(NextScalar(set: set.inverted, allowsEnd: true))
    if maximum == 1 { return .alternation([node, stops]) }
    return .sequence([
      .repetition(node, minimum: minimum, maximum: nil, isGreedy: true), stops,
    ])
  }

  /// `{n}`, `{n,}`, `{,n}` or `{m,n}`; `nil` when the brace is an ordinary character.
  private mutating func interval() throws(PatternError) -> (Int, Int?)? {
    let start = position
    position += 1
    let low = decimal()
    var high = low
    if take(",") { high = decimal() } else if low == nil { return literalBrace(start) }
    guard take("}"), low != nil || high != nil else { return literalBrace(start) }
    if let low, let high, low > high { throw malformed("an interval that ends before it starts") }
    if max(low ?? 0, high ?? 0) > 1000 { throw unsupported("an interval beyond 1000") }
    return (low ?? 0, high)
  }

  private mutating func literalBrace(_ start: Int) -> (Int, Int?)? {
    position = start
    return nil
  }

  private mutating func atom() throws(PatternError) -> PatternNode {
    let next = try advance()
    switch next {
    case "(": return try group()
    case "[":
      var parser = CharacterClassParser(source, scalars, at: position, ignoresCase: ignoresCase)
      let set = try parser.bracketed()
      position = parser.position
      return .set(set)
    case ".": return .set(CharacterSet(0x0A).inverted)
    case "\\":
      switch peek {
      case "z":
        position += 1
        return .lookahead(NextScalar(set: .none, allowsEnd: true))
      case "w", "W":
        let word = UnicodeProperties.wordOutsideBrackets
        return .set(try advance() == "w" ? word : word.inverted)
      default:
        var parser = CharacterClassParser(source, scalars, at: position, ignoresCase: ignoresCase)
        let set = try parser.escape()
        position = parser.position
        return .set(set)
      }
    case "$": return .lookahead(NextScalar(set: CharacterSet(0x0A), allowsEnd: true))
    case "^": throw unsupported("the anchor `^`")
    case "*", "+", "?": throw malformed("a quantifier with nothing before it")
    default:
      if ignoresCase, next.properties.uppercaseMapping.unicodeScalars.count > 1 {
        throw unsupported("`\(next)` without regard to case")  // it would match several letters
      }
      let set = CharacterSet(next.value)
      return .set(ignoresCase ? set.caseInsensitive : set)
    }
  }

  /// What follows an opening parenthesis.
  private mutating func group() throws(PatternError) -> PatternNode {
    guard take("?") else { return try closed(try alternation()) }
    switch try advance() {
    case ":": return try closed(try alternation())
    case "=": return .lookahead(try nextScalar(of: try closed(try alternation())))
    case "!": return .lookahead(try nextScalar(of: try closed(try alternation())).inverted)
    case "i":
      // `(?i:…)` covers its group, `(?i)` the rest of the enclosing one.
      let outer = ignoresCase
      ignoresCase = true
      if take(")") { return try alternation() }
      guard take(":") else { throw unsupported("a group with options other than `i`") }
      let body = try closed(try alternation())
      ignoresCase = outer
      return body
    case ">": throw unsupported("an atomic group `(?>…)`")
    case "<":
      if peek == "=" || peek == "!" { throw unsupported("a lookbehind") }
      throw unsupported("a named group")
    case "P": throw unsupported("a named group")
    case "#": throw unsupported("a comment")
    case let other: throw unsupported("the group `(?\(other)…)`")
    }
  }

  private mutating func closed(_ node: PatternNode) throws(PatternError) -> PatternNode {
    guard take(")") else { throw malformed("a '(' that is never closed") }
    return node
  }

  /// The single scalar a lookahead asks for: `(?!\S)`, `(?=\s|$)`.
  private func nextScalar(of node: PatternNode) throws(PatternError) -> NextScalar {
    switch node {
    case .set(let set): return NextScalar(set: set, allowsEnd: false)
    case .lookahead(let next): return next
    case .alternation(let nodes):
      var union = NextScalar(set: .none, allowsEnd: false)
      for node in nodes {
        let next = try nextScalar(of: node)
        union.set = union.set.union(next.set)
        union.allowsEnd = union.allowsEnd || next.allowsEnd
      }
      return union
    case .repetition(let node, minimum: 1, maximum: _, isGreedy: _):
      return try nextScalar(of: node)
    default: throw unsupported("a lookahead over more than one character")
    }
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

  private mutating func decimal() -> Int? {
    let start = position
    var value = 0
    while let next = peek, ("0"..."9").contains(next), position - start < 6 {
      value = value * 10 + Int(next.value - 0x30)
      position += 1
    }
    return position == start ? nil : value
  }

  private func malformed(_ problem: String) -> PatternError {
    .malformed(pattern: source, offset: position, problem: problem)
  }

  private func unsupported(_ construct: String) -> PatternError {
    .unsupported(pattern: source, construct: construct)
  }
}
