/// An expression of a template. Its depth is bounded, so that walking it cannot exhaust the stack.
struct TemplateExpression: Sendable {
  indirect enum Kind: Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case float(Double)
    case string([UInt8])
    case name(String)
    case list([TemplateExpression])
    case tuple([TemplateExpression])
    case dictionary([(key: TemplateExpression, value: TemplateExpression)])
    case attribute(TemplateExpression, [UInt8])
    case element(TemplateExpression, TemplateExpression)
    case slice(TemplateExpression, [TemplateExpression?])
    case call(TemplateExpression, TemplateArguments)
    case filter(TemplateExpression, String, TemplateArguments)
    case test(TemplateExpression, String, TemplateArguments)
    case not(TemplateExpression)
    case negative(TemplateExpression)
    case positive(TemplateExpression)
    case arithmetic(Arithmetic, TemplateExpression, TemplateExpression)
    case concatenation([TemplateExpression])
    case comparison(TemplateExpression, [(Comparison, TemplateExpression)])
    case and(TemplateExpression, TemplateExpression)
    case or(TemplateExpression, TemplateExpression)
    case conditional(
      then: TemplateExpression, condition: TemplateExpression, otherwise: TemplateExpression?)
    /// What a filter block filters.
    case captured
  }

  enum Arithmetic: String, Sendable {
    case add = "+"
    case subtract = "-"
    case multiply = "*"
    case divide = "/"
    case floorDivide = "//"
    case remainder = "%"
    case power = "**"
  }

  enum Comparison: String, Sendable {
    case equal = "=="
    case notEqual = "!="
    case less = "<"
    case lessOrEqual = "<="
    case greater = ">"
    case greaterOrEqual = ">="
    case contained = "in"
    case notContained = "not in"
  }

  let kind: Kind
  let line: Int
  let depth: Int
}

struct TemplateArguments: Sendable {
  var positional: [TemplateExpression] = []
  var named: [(name: String, value: TemplateExpression)] = []
  /// `*list` and `**dictionary`.
  var spread: TemplateExpression?
  var namedSpread: TemplateExpression?

  var depth: Int {
    let all = positional + named.map(\.value) + [spread, namedSpread].compactMap { $0 }
    return all.map(\.depth).max() ?? 0
  }
}

/// Where an assignment goes.
indirect enum TemplateTarget: Sendable {
  case name(String)
  case tuple([TemplateTarget])
  /// `namespace.attribute`
  case attribute(of: String, String)
}

struct TemplateMacro: Sendable {
  var name: String
  var parameters: [(name: String, initial: TemplateExpression?)]
  var body: [TemplateStatement]
  /// Which of the names that gather what no parameter takes the body uses.
  var gathersPositional: Bool
  var gathersNamed: Bool
  var usesCaller: Bool
}

indirect enum TemplateStatement: Sendable {
  case text([UInt8])
  case output(TemplateExpression)
  case branch([(condition: TemplateExpression, body: [TemplateStatement])], [TemplateStatement])
  case loop(TemplateLoop)
  case assign(TemplateTarget, TemplateExpression)
  /// A block whose output is assigned, after a filter if there is one.
  case capture(TemplateTarget, [TemplateStatement], filter: TemplateExpression?)
  case filtered([TemplateStatement], filter: TemplateExpression)
  case with([(TemplateTarget, TemplateExpression)], [TemplateStatement])
  case macro(TemplateMacro)
  case callBlock(TemplateMacro, TemplateExpression)
  case group([TemplateStatement])
  case breakLoop(line: Int)
  case continueLoop(line: Int)
}

struct TemplateLoop: Sendable {
  var target: TemplateTarget
  var items: TemplateExpression
  var condition: TemplateExpression?
  var body: [TemplateStatement]
  var otherwise: [TemplateStatement]
  var line: Int
}
