/// A regular expression compiled into a table: one lookup per character, whatever the pattern.
///
/// The syntax is the part of Oniguruma's that tokenizers use; alternatives and quantifiers prefer
/// what a backtracking engine prefers (leftmost, first alternative). Lookahead sees one character.
/// Without regard to case, one letter matches one letter: `ss` does not match `ß`.
/// The automaton is built whole when the pattern is read (subset construction over lists ordered
/// by preference, as in Cox 2010, "Regular Expression Matching in the Wild"), so a `Pattern` is
/// immutable. A transition is chosen by the *next* character, which is how lookahead is resolved:
/// its low bit says that a match ends before that character.
public struct Pattern: Sendable {
  /// The pattern as written.
  public let source: String
  private let classes: ScalarClasses
  /// `[state, class]`, the last class being the end of the text; `next state << 1 | match`.
  private let transitions: [UInt32]

  static let maximumStates = 4096

  /// - Throws: what is malformed, or the construct that is not supported.
  public init(_ source: String) throws(PatternError) {
    try self.init(try PatternParser.parse(source), source: source)
  }

  /// One scalar of what the `Punctuation` pre-tokenizer splits at.
  package static func punctuation() throws(PatternError) -> Pattern {
    try Pattern(.set(UnicodeProperties.punctuation), source: "punctuation")
  }

  /// One scalar of what the `Digits` pre-tokenizer splits at.
  package static func numeric() throws(PatternError) -> Pattern {
    try Pattern(.set(UnicodeProperties.numeric), source: "numeric")
  }

  private init(_ node: PatternNode, source: String) throws(PatternError) {
    self.source = source
    let program = try PatternProgram(node, source: source)
    guard let classes = ScalarClasses(program.sets) else {
      throw .tooComplex(pattern: source, limit: "255 kinds of characters")
    }
    self.classes = classes
    var automaton = PatternAutomaton(program, classes)
    guard let transitions = automaton.determinized(maximumStates: Self.maximumStates) else {
      throw .tooComplex(pattern: source, limit: "\(Self.maximumStates) states")
    }
    self.transitions = transitions
  }

  /// A pattern that matches exactly this text.
  public init(literal text: String) throws(PatternError) {
    var source = ""
    for scalar in text.unicodeScalars {
      if scalar.isASCII, !scalar.properties.isAlphabetic, scalar.properties.numericType == nil {
        source.append("\\")
      }
      source.unicodeScalars.append(scalar)
    }
    try self.init(source)
  }

  /// Calls `body` with each match of the UTF-8 text, from left to right, none overlapping. An
  /// empty match counts unless it touches the end of the match before it.
  @inline(__always)
  public func forEachMatch(
    in text: UnsafeBufferPointer<UInt8>, _ body: (_ start: Int, _ end: Int) -> Void
  ) {
    let stride = classes.count + 1
    transitions.withUnsafeBufferPointer { transitions in
      classes.ascii.withUnsafeBufferPointer { ascii in
        var memo = MatchMemo()
        var start = 0
        var lastEnd = -1
        while start <= text.count {
          var state = 1
          var index = start
          var end = -1
          var checkpoint = MatchMemo.firstCheckpoint(after: start)
          var isLong = false
          while true {
            if index >= checkpoint {
              isLong = true
              if memo.isHopeless(state, index) { break }
              checkpoint = MatchMemo.checkpoint(after: index)
            }
            let scalarClass: Int
            var length = 1
            if index == text.count {
              scalarClass = stride - 1
            } else if text[index] < 0x80 {
              scalarClass = Int(ascii[Int(text[index])])
            } else {
              (scalarClass, length) = wideClass(in: text, at: index)
            }
            let transition = transitions[state * stride + scalarClass]
            if transition & 1 != 0 { end = index }
            state = Int(transition >> 1)
            if state == 0 { break }
            index += length
          }
          if isLong { memo.finish(end) }
          if end > start || (end == start && end > lastEnd) {
            body(start, end)
            lastEnd = end
          }
          if end > start {
            start = end
          } else if start < text.count {
            start += max(1, UTF8Sequence.length(in: text, at: start))
          } else {
            break
          }
        }
      }
    }
  }

  /// The matches of a UTF-8 text.
  public func matches(in text: [UInt8]) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    text.withUnsafeBufferPointer { text in
      forEachMatch(in: text) { ranges.append($0..<$1) }
    }
    return ranges
  }

  /// Class and byte count of a scalar beyond ASCII; a stray byte counts as U+FFFD.
  @inline(__always)
  private func wideClass(in text: UnsafeBufferPointer<UInt8>, at index: Int) -> (Int, Int) {
    let length = UTF8Sequence.length(in: text, at: index)
    let scalar =
      length == 0 ? 0xFFFD : Int(UTF8Sequence.scalar(in: text, at: index, length: length))
    let page = Int(classes.pageOfBlock[scalar >> 8])
    return (Int(classes.pages[page << 8 | scalar & 0xFF]), max(length, 1))
  }
}

/// Subset construction. A state is the list of instructions, most preferred first, that wait
/// for the next character.
private struct PatternAutomaton {
  private let program: PatternProgram
  private let classes: ScalarClasses
  private var visited: [Bool]

  init(_ program: PatternProgram, _ classes: ScalarClasses) {
    self.program = program
    self.classes = classes
    visited = [Bool](repeating: false, count: program.instructions.count)
  }

  /// The whole table, state 0 dead and state 1 the start; `nil` when it grows too large.
  mutating func determinized(maximumStates: Int) -> [UInt32]? {
    let stride = classes.count + 1
    var numbers: [[Int32]: Int] = [[]: 0, [Int32(program.start)]: 1]
    var states: [[Int32]] = [[], [Int32(program.start)]]
    var table = [UInt32](repeating: 0, count: stride)
    var work = 0
    var state = 1
    while state < states.count {
      for scalarClass in 0..<stride {
        let (matched, next) = step(states[state], scalarClass)
        work += states[state].count + next.count
        let number: Int
        if let known = numbers[next] {
          number = known
        } else {
          number = states.count
          guard number < maximumStates, work < 20_000_000 else { return nil }
          numbers[next] = number
          states.append(next)
        }
        table.append(UInt32(number) << 1 | (matched ? 1 : 0))
      }
      state += 1
    }
    return table
  }

  /// Where a state goes when the next character has this class, and whether a match ends first.
  private mutating func step(
    _ state: [Int32], _ scalarClass: Int
  ) -> (matched: Bool, next: [Int32]) {
    let isEnd = scalarClass == classes.count
    var next: [Int32] = []
    var pending: [Int] = []
    var touched: [Int] = []
    defer { for index in touched { visited[index] = false } }
    for entry in state {
      pending.append(Int(entry))
      while let index = pending.popLast() {
        if visited[index] { continue }
        visited[index] = true
        touched.append(index)
        switch program.instructions[index] {
        case .match: return (true, unique(next))  // whatever is less preferred loses
        case .split(let first, let second):
          pending.append(second)
          pending.append(first)
        case .require(let target, let set, let allowsEnd):
          if isEnd ? allowsEnd : classes.membership[scalarClass][set] { pending.append(target) }
        case .take(let set, let target):
          if !isEnd, classes.membership[scalarClass][set] { next.append(Int32(target)) }
        }
      }
    }
    return (false, unique(next))
  }

  private func unique(_ list: [Int32]) -> [Int32] {
    var seen: Set<Int32> = []
    return list.filter { seen.insert($0).inserted }
  }
}
