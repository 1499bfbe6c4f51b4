extension TemplateParser {
  typealias Expression = TemplateExpression

  /// A node whose depth is one more than its deepest part's.
  func node(
    _ kind: Expression.Kind, line: Int, over parts: [Expression?] = [], depth: Int = 0
  ) throws(TemplateError) -> Expression {
    let depth = 1 + parts.reduce(depth) { max($0, $1?.depth ?? 0) }
    guard depth <= Self.deepest else {
      throw .syntax(line: line, problem: "an expression is nested too deeply")
    }
    return Expression(kind: kind, line: line, depth: depth)
  }

  /// `a` or `a, b`.
  mutating func tupleOrExpression(isConditional: Bool = true) throws(TemplateError) -> Expression {
    let start = line
    let first = isConditional ? try expression() : try disjunction()
    guard token == .mark(",") else { return first }
    var elements = [first]
    while accept(mark: ",") {
      switch token {
      case .variableEnd, .blockEnd, .mark(")"): break
      default:
        elements.append(isConditional ? try expression() : try disjunction())
        continue
      }
      break
    }
    return try node(.tuple(elements), line: start, over: elements)
  }

  /// `a if b else c`
  mutating func expression() throws(TemplateError) -> Expression {
    nesting += 1
    defer { nesting -= 1 }
    guard nesting < Self.deepest else {
      throw .syntax(line: line, problem: "an expression is nested too deeply")
    }
    var start = line
    var value = try disjunction()
    while accept(word: "if") {
      let condition = try disjunction()
      let otherwise = accept(word: "else") ? try expression() : nil
      value = try node(
        .conditional(then: value, condition: condition, otherwise: otherwise), line: start,
        over: [value, condition, otherwise])
      start = line
    }
    return value
  }

  private mutating func disjunction() throws(TemplateError) -> Expression {
    let start = line
    var left = try conjunction()
    while accept(word: "or") {
      let right = try conjunction()
      left = try node(.or(left, right), line: start, over: [left, right])
    }
    return left
  }

  private mutating func conjunction() throws(TemplateError) -> Expression {
    let start = line
    var left = try negation()
    while accept(word: "and") {
      let right = try negation()
      left = try node(.and(left, right), line: start, over: [left, right])
    }
    return left
  }

  private mutating func negation() throws(TemplateError) -> Expression {
    let start = line
    var count = 0
    while accept(word: "not") { count += 1 }
    var value = try comparison()
    for _ in 0..<count { value = try node(.not(value), line: start, over: [value]) }
    return value
  }

  private mutating func comparison() throws(TemplateError) -> Expression {
    let start = line
    let first = try sum()
    var rest: [(Expression.Comparison, Expression)] = []
    while true {
      var operation: Expression.Comparison?
      if case .mark(let mark) = token { operation = .init(rawValue: mark) }
      if token == .name("in") { operation = .contained }
      if token == .name("not"), following == .name("in") {
        operation = .notContained
        index += 1
      }
      guard let operation else { break }
      index += 1
      rest.append((operation, try sum()))
    }
    guard !rest.isEmpty else { return first }
    return try node(.comparison(first, rest), line: start, over: [first] + rest.map(\.1))
  }

  private mutating func sum() throws(TemplateError) -> Expression {
    let start = line
    var left = try concatenation()
    while case .mark(let mark) = token, mark == "+" || mark == "-",
      let operation = Expression.Arithmetic(rawValue: mark)
    {
      index += 1
      let right = try concatenation()
      left = try node(.arithmetic(operation, left, right), line: start, over: [left, right])
    }
    return left
  }

  private mutating func concatenation() throws(TemplateError) -> Expression {
    let start = line
    var parts = [try product()]
    while accept(mark: "~") { parts.append(try product()) }
    return parts.count == 1 ? parts[0] : try node(.concatenation(parts), line: start, over: parts)
  }

  private mutating func product() throws(TemplateError) -> Expression {
    let start = line
    var left = try power()
    while case .mark(let mark) = token, ["*", "/", "//", "%"].contains(mark),
      let operation = Expression.Arithmetic(rawValue: mark)
    {
      index += 1
      let right = try power()
      left = try node(.arithmetic(operation, left, right), line: start, over: [left, right])
    }
    return left
  }

  private mutating func power() throws(TemplateError) -> Expression {
    let start = line
    var left = try unary(allowsFilters: true)
    while accept(mark: "**") {
      let right = try unary(allowsFilters: true)
      left = try node(.arithmetic(.power, left, right), line: start, over: [left, right])
    }
    return left
  }

  private mutating func unary(allowsFilters: Bool) throws(TemplateError) -> Expression {
    nesting += 1
    defer { nesting -= 1 }
    guard nesting < Self.deepest else {
      throw .syntax(line: line, problem: "an expression is nested too deeply")
    }
    let start = line
    var value: Expression
    if accept(mark: "-") {
      let operand = try unary(allowsFilters: false)
      value = try node(.negative(operand), line: start, over: [operand])
    } else if accept(mark: "+") {
      let operand = try unary(allowsFilters: false)
      value = try node(.positive(operand), line: start, over: [operand])
    } else {
      value = try primary()
    }
    value = try postfix(value)
    return allowsFilters ? try postfixFilters(of: value) : value
  }

  private mutating func primary() throws(TemplateError) -> Expression {
    let start = line
    switch token {
    case .name(let name):
      index += 1
      switch name {
      case "true", "True": return try node(.bool(true), line: start)
      case "false", "False": return try node(.bool(false), line: start)
      case "none", "None": return try node(.null, line: start)
      default:
        usedNames.insert(name)
        return try node(.name(name), line: start)
      }
    case .string(var bytes):
      index += 1
      while case .string(let more) = token {
        bytes += more
        index += 1
      }
      return try node(.string(bytes), line: start)
    case .integer(let value):
      index += 1
      return try node(.integer(value), line: start)
    case .float(let value):
      index += 1
      return try node(.float(value), line: start)
    case .mark("("):
      index += 1
      if accept(mark: ")") { return try node(.tuple([]), line: start) }
      let value = try tupleOrExpression()
      try expect(.mark(")"))
      return value
    case .mark("["):
      index += 1
      let elements = try elements(until: "]")
      return try node(.list(elements), line: start, over: elements)
    case .mark("{"):
      index += 1
      return try dictionary(line: start)
    default: throw unexpected()
    }
  }

  private mutating func elements(until end: String) throws(TemplateError) -> [Expression] {
    var elements: [Expression] = []
    while token != .mark(end) {
      if !elements.isEmpty { try expect(.mark(",")) }
      if token == .mark(end) { break }
      elements.append(try expression())
    }
    try expect(.mark(end))
    return elements
  }

  private mutating func dictionary(line start: Int) throws(TemplateError) -> Expression {
    var members: [(key: Expression, value: Expression)] = []
    while token != .mark("}") {
      if !members.isEmpty { try expect(.mark(",")) }
      if token == .mark("}") { break }
      let key = try expression()
      try expect(.mark(":"))
      members.append((key, try expression()))
    }
    try expect(.mark("}"))
    return try node(
      .dictionary(members), line: start, over: members.map(\.key) + members.map(\.value))
  }

  // MARK: After a value

  private mutating func postfix(_ value: Expression) throws(TemplateError) -> Expression {
    var value = value
    while true {
      let start = line
      if accept(mark: ".") {
        if case .integer(let position) = token {
          index += 1
          let key = try node(.integer(position), line: start)
          value = try node(.element(value, key), line: start, over: [value])
        } else {
          let name = try expectName()
          value = try node(.attribute(value, Array(name.utf8)), line: start, over: [value])
        }
      } else if accept(mark: "[") {
        value = try subscripted(value, line: start)
      } else if token == .mark("(") {
        value = try call(value, line: start)
      } else {
        return value
      }
    }
  }

  private mutating func call(
    _ callee: Expression, line: Int
  ) throws(TemplateError) -> Expression {
    let arguments = try arguments()
    return try node(.call(callee, arguments), line: line, over: [callee], depth: arguments.depth)
  }

  private mutating func subscripted(
    _ value: Expression, line start: Int
  ) throws(TemplateError) -> Expression {
    var bounds: [Expression?] = [nil]
    while token != .mark("]") {
      if accept(mark: ":") {
        guard bounds.count < 3 else { throw unexpected() }
        bounds.append(nil)
      } else if bounds[bounds.count - 1] == nil {
        bounds[bounds.count - 1] = try expression()
      } else {
        throw unexpected()
      }
    }
    index += 1
    if bounds.count == 1 {
      guard let key = bounds[0] else {
        throw .syntax(line: start, problem: "an index is missing between \"[\" and \"]\"")
      }
      return try node(.element(value, key), line: start, over: [value, key])
    }
    return try node(.slice(value, bounds), line: start, over: [value] + bounds)
  }

  mutating func arguments() throws(TemplateError) -> TemplateArguments {
    try expect(.mark("("))
    var arguments = TemplateArguments()
    var isFirst = true
    while token != .mark(")") {
      if !isFirst { try expect(.mark(",")) }
      isFirst = false
      if token == .mark(")") { break }
      if accept(mark: "*") {
        arguments.spread = try expression()
      } else if accept(mark: "**") {
        arguments.namedSpread = try expression()
      } else if case .name(let name) = token, following == .mark("=") {
        index += 2
        arguments.named.append((name, try expression()))
      } else {
        guard arguments.named.isEmpty, arguments.namedSpread == nil else {
          throw .syntax(line: line, problem: "an unnamed argument follows a named one")
        }
        arguments.positional.append(try expression())
      }
    }
    try expect(.mark(")"))
    return arguments
  }

  /// `| filter`, `is test` and calls, as often as they come.
  mutating func postfixFilters(of input: Expression) throws(TemplateError) -> Expression {
    var value = input
    while true {
      let start = line
      if accept(mark: "|") {
        value = try filterChain(of: value)
      } else if accept(word: "is") {
        value = try test(of: value, line: start)
      } else if token == .mark("(") {
        value = try call(value, line: start)
      } else {
        return value
      }
    }
  }

  /// `name(arguments) | name …`, the first bar already read.
  mutating func filterChain(of input: Expression) throws(TemplateError) -> Expression {
    var value = input
    repeat {
      let start = line
      var name = try expectName()
      while accept(mark: ".") { name += "." + (try expectName()) }
      guard TemplateRenderer.filterNames.contains(name) else {
        throw .unsupported(line: start, feature: "the filter \"\(name)\"")
      }
      let arguments = token == .mark("(") ? try arguments() : TemplateArguments()
      value = try node(
        .filter(value, name, arguments), line: start, over: [value], depth: arguments.depth)
    } while accept(mark: "|")
    return value
  }

  private mutating func test(
    of input: Expression, line start: Int
  ) throws(TemplateError) -> Expression {
    let isNegated = accept(word: "not")
    let name = try testName()
    guard TemplateRenderer.testNames.contains(name) else {
      throw .unsupported(line: start, feature: "the test \"\(name)\"")
    }
    var arguments = TemplateArguments()
    switch token {
    case .mark("("): arguments = try self.arguments()
    case .name(let word):
      guard word != "is" else {
        throw .syntax(line: line, problem: "tests cannot be chained with \"is\"")
      }
      if !["else", "or", "and", "if", "recursive"].contains(word)
        && !(word == "in" || word == "not")
      {
        arguments.positional = [try postfix(try primary())]
      }
    case .string, .integer, .float, .mark("["), .mark("{"):
      arguments.positional = [try postfix(try primary())]
    default: break
    }
    let value = try node(
      .test(input, name, arguments), line: start, over: [input], depth: arguments.depth)
    return isNegated ? try node(.not(value), line: start, over: [value]) : value
  }

  /// `in` is a keyword elsewhere.
  private mutating func testName() throws(TemplateError) -> String {
    if case .mark(let mark) = token, Expression.Comparison(rawValue: mark) != nil {
      index += 1
      return mark
    }
    return try expectName()
  }
}
