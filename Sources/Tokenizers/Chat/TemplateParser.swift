/// Reads a template's statements; expressions are in the extension beside.
/// The grammar and its precedences are those of jinja2 3.1.
struct TemplateParser {
  var tokens: [TemplateLexer.Located]
  var index = 0
  /// Names that expressions have used, to know what a macro's body asks for.
  var usedNames: Set<String> = []
  var nesting = 0

  /// Deeper trees are refused, so that no template exhausts the stack.
  static let deepest = 80

  static func statements(of source: [UInt8]) throws(TemplateError) -> [TemplateStatement] {
    var parser = TemplateParser(tokens: try TemplateLexer.tokens(of: source))
    let statements = try parser.body(until: [])
    guard parser.token == .end else { throw parser.unexpected() }
    return statements
  }

  // MARK: Tokens

  var token: TemplateToken { tokens[min(index, tokens.count - 1)].token }
  var line: Int { tokens[min(index, tokens.count - 1)].line }
  var following: TemplateToken { tokens[min(index + 1, tokens.count - 1)].token }

  mutating func accept(_ wanted: TemplateToken) -> Bool {
    guard token == wanted else { return false }
    index += 1
    return true
  }

  mutating func accept(mark: String) -> Bool { accept(.mark(mark)) }
  mutating func accept(word: String) -> Bool { accept(.name(word)) }

  mutating func expect(_ wanted: TemplateToken) throws(TemplateError) {
    guard accept(wanted) else {
      throw .syntax(line: line, problem: "\(wanted.shown) is expected, found \(token.shown)")
    }
  }

  mutating func expectName() throws(TemplateError) -> String {
    guard case .name(let name) = token else {
      throw .syntax(line: line, problem: "a name is expected, found \(token.shown)")
    }
    index += 1
    return name
  }

  func unexpected() -> TemplateError {
    .syntax(line: line, problem: "\(token.shown) is not expected here")
  }

  // MARK: Statements

  /// Statements up to a block tag that starts with one of `ends`, which is left to be read.
  mutating func body(until ends: [String]) throws(TemplateError) -> [TemplateStatement] {
    nesting += 1
    defer { nesting -= 1 }
    guard nesting < Self.deepest / 2 else {
      throw .syntax(line: line, problem: "blocks are nested too deeply")
    }
    var statements: [TemplateStatement] = []
    while true {
      switch token {
      case .data(let text):
        statements.append(.text(text))
        index += 1
      case .variableBegin:
        index += 1
        statements.append(.output(try tupleOrExpression()))
        try expect(.variableEnd)
      case .blockBegin:
        if case .name(let word) = following, ends.contains(word) { return statements }
        index += 1
        statements.append(try statement())
      case .end:
        guard ends.isEmpty else {
          throw .syntax(line: line, problem: "\"\(ends[ends.count - 1])\" is missing")
        }
        return statements
      default: throw unexpected()
      }
    }
  }

  /// Skips `{% word`, which `body(until:)` has seen.
  private mutating func enterTag() -> String {
    index += 1
    defer { index += 1 }
    if case .name(let word) = token { return word }
    return ""
  }

  private mutating func block(until end: String) throws(TemplateError) -> [TemplateStatement] {
    try expect(.blockEnd)
    let statements = try body(until: [end])
    _ = enterTag()
    try expect(.blockEnd)
    return statements
  }

  private mutating func statement() throws(TemplateError) -> TemplateStatement {
    let start = line
    let word = try expectName()
    switch word {
    case "if": return try branch()
    case "for": return try loop(line: start)
    case "set": return try assignment()
    case "with": return try with()
    case "macro": return try macro()
    case "call": return try callBlock(line: start)
    case "filter":
      let filter = try filterChain(of: node(.captured, line: start))
      return .filtered(try block(until: "endfilter"), filter: filter)
    case "generation": return .group(try block(until: "endgeneration"))
    case "break", "continue":
      try expect(.blockEnd)
      return word == "break" ? .breakLoop(line: start) : .continueLoop(line: start)
    case "block", "extends", "include", "import", "from", "do", "trans", "debug", "autoescape":
      throw .unsupported(line: start, feature: "the statement \"\(word)\"")
    default: throw .syntax(line: start, problem: "\"\(word)\" is not a statement")
    }
  }

  private mutating func branch() throws(TemplateError) -> TemplateStatement {
    var branches: [(condition: TemplateExpression, body: [TemplateStatement])] = []
    var otherwise: [TemplateStatement] = []
    var condition = try tupleOrExpression(isConditional: false)
    while true {
      try expect(.blockEnd)
      branches.append((condition, try body(until: ["elif", "else", "endif"])))
      let word = enterTag()
      if word == "elif" {
        condition = try tupleOrExpression(isConditional: false)
        continue
      }
      if word == "else" { otherwise = try block(until: "endif") } else { try expect(.blockEnd) }
      return .branch(branches, otherwise)
    }
  }

  private mutating func loop(line: Int) throws(TemplateError) -> TemplateStatement {
    let target = try target(allowsAttribute: false)
    try expect(.name("in"))
    let items = try tupleOrExpression(isConditional: false)
    let condition = accept(word: "if") ? try expression() : nil
    if token == .name("recursive") {
      throw .unsupported(line: line, feature: "a recursive loop")
    }
    try expect(.blockEnd)
    let body = try body(until: ["else", "endfor"])
    var otherwise: [TemplateStatement] = []
    if enterTag() == "else" {
      otherwise = try block(until: "endfor")
    } else {
      try expect(.blockEnd)
    }
    return .loop(
      TemplateLoop(
        target: target, items: items, condition: condition, body: body, otherwise: otherwise,
        line: line))
  }

  private mutating func assignment() throws(TemplateError) -> TemplateStatement {
    let target = try target(allowsAttribute: true)
    if accept(mark: "=") {
      let value = try tupleOrExpression()
      try expect(.blockEnd)
      return .assign(target, value)
    }
    let filter = token == .mark("|") ? try postfixFilters(of: node(.captured, line: line)) : nil
    return .capture(target, try block(until: "endset"), filter: filter)
  }

  private mutating func target(allowsAttribute: Bool) throws(TemplateError) -> TemplateTarget {
    var targets: [TemplateTarget] = []
    var isTuple = false
    repeat {
      if targets.count > 0, token == .name("in") || token == .mark("=") { break }
      if accept(mark: "(") {
        targets.append(try target(allowsAttribute: false))
        try expect(.mark(")"))
      } else {
        let start = line
        let name = try expectName()
        if ["true", "false", "none", "True", "False", "None"].contains(name) {
          throw .syntax(line: start, problem: "\"\(name)\" cannot be assigned")
        }
        if allowsAttribute, targets.isEmpty, accept(mark: ".") {
          return .attribute(of: name, try expectName())
        }
        targets.append(.name(name))
      }
      if token == .mark(",") { isTuple = true }
    } while accept(mark: ",")
    return isTuple ? .tuple(targets) : targets[0]
  }

  private mutating func with() throws(TemplateError) -> TemplateStatement {
    var assignments: [(TemplateTarget, TemplateExpression)] = []
    while token != .blockEnd {
      if !assignments.isEmpty { try expect(.mark(",")) }
      let name = try expectName()
      try expect(.mark("="))
      assignments.append((.name(name), try expression()))
    }
    return .with(assignments, try block(until: "endwith"))
  }

  // MARK: Macros

  private mutating func macro() throws(TemplateError) -> TemplateStatement {
    let name = try expectName()
    return .macro(try macro(named: name, parameters: try parameters(), end: "endmacro"))
  }

  private mutating func callBlock(line: Int) throws(TemplateError) -> TemplateStatement {
    let parameters = token == .mark("(") ? try parameters() : []
    let call = try expression()
    guard case .call = call.kind else {
      throw .syntax(line: line, problem: "a call block needs a call")
    }
    return .callBlock(
      try macro(named: "caller", parameters: parameters, end: "endcall"), call)
  }

  private mutating func macro(
    named name: String, parameters: [(name: String, initial: TemplateExpression?)], end: String
  ) throws(TemplateError) -> TemplateMacro {
    let outer = usedNames
    usedNames = []
    let body = try block(until: end)
    defer { usedNames.formUnion(outer) }
    return TemplateMacro(
      name: name, parameters: parameters, body: body,
      gathersPositional: usedNames.contains("varargs"),
      gathersNamed: usedNames.contains("kwargs"), usesCaller: usedNames.contains("caller"))
  }

  private mutating func parameters() throws(TemplateError) -> [(
    name: String, initial: TemplateExpression?
  )] {
    try expect(.mark("("))
    var parameters: [(name: String, initial: TemplateExpression?)] = []
    while token != .mark(")") {
      if !parameters.isEmpty { try expect(.mark(",")) }
      if token == .mark(")") { break }
      let name = try expectName()
      let initial = accept(mark: "=") ? try expression() : nil
      if initial == nil, parameters.last?.initial != nil {
        throw .syntax(line: line, problem: "\"\(name)\" needs a default like those before it")
      }
      parameters.append((name, initial))
    }
    try expect(.mark(")"))
    return parameters
  }
}
