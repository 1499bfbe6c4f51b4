/// Thompson's automaton of a pattern: instructions in order of preference.
struct PatternProgram {
  enum Instruction {
    /// Takes a scalar of the set, goes on at `next`.
    case take(set: Int, next: Int)
    /// Tries `first`, then `second`.
    case split(first: Int, second: Int)
    /// Goes on at `next` if the next scalar (or end) is allowed.
    case require(next: Int, set: Int, allowsEnd: Bool)
    case match
  }

  private(set) var instructions: [Instruction] = []
  private(set) var sets: [CharacterSet] = []
  private(set) var start = 0
  private let source: String

  static let maximumInstructions = 20_000

  init(_ node: PatternNode, source: String) throws(PatternError) {
    self.source = source
    let match = try emit(.match)
    start = try compile(node, then: match)
  }

  /// Emits the code of `node` that continues at `next`; returns its entry. Built back to front.
  private mutating func compile(
    _ node: PatternNode, then next: Int
  ) throws(PatternError) -> Int {
    switch node {
    case .set(let set): return try emit(.take(set: index(of: set), next: next))
    case .lookahead(let required):
      return try emit(
        .require(next: next, set: index(of: required.set), allowsEnd: required.allowsEnd))
    case .sequence(let nodes):
      var entry = next
      for node in nodes.reversed() { entry = try compile(node, then: entry) }
      return entry
    case .alternation(let nodes):
      guard
        var entry = try nodes.last.map({ (node) throws(PatternError) in
          try compile(node, then: next)
        })
      else { return next }
      for node in nodes.dropLast().reversed() {
        entry = try emit(.split(first: try compile(node, then: next), second: entry))
      }
      return entry
    case .repetition(let node, let minimum, let maximum, let isGreedy):
      var entry = next
      if let maximum {
        for _ in minimum..<maximum {
          let body = try compile(node, then: entry)
          // Leaving skips every further optional copy.
          entry = try split(body, next, isGreedy)
        }
      } else {
        let loop = try emit(.match)  // a place to come back to
        let body = try compile(node, then: loop)
        instructions[loop] =
          isGreedy ? .split(first: body, second: next) : .split(first: next, second: body)
        entry = loop
      }
      for _ in 0..<minimum { entry = try compile(node, then: entry) }
      return entry
    }
  }

  private mutating func split(
    _ body: Int, _ exit: Int, _ isGreedy: Bool
  ) throws(PatternError) -> Int {
    try emit(isGreedy ? .split(first: body, second: exit) : .split(first: exit, second: body))
  }

  private mutating func emit(_ instruction: Instruction) throws(PatternError) -> Int {
    guard instructions.count < Self.maximumInstructions else {
      throw .tooComplex(pattern: source, limit: "\(Self.maximumInstructions) instructions")
    }
    instructions.append(instruction)
    return instructions.count - 1
  }

  private mutating func index(of set: CharacterSet) -> Int {
    if let index = sets.firstIndex(of: set) { return index }
    sets.append(set)
    return sets.count - 1
  }
}
