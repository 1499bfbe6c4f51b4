import Text

/// Runs a template's statements. It can reach nothing but the variables it is given, and every step
/// and every byte it makes counts against a budget, so that no template runs for ever.
final class TemplateRenderer {
  typealias Value = TemplateValue

  /// Evaluations inside evaluations, macro calls included.
  static let depthLimit = 250
  /// The longest range, as jinja2's sandbox has it.
  static let rangeLimit = 100_000

  /// Of what is being evaluated, for errors.
  var line = 1
  private var work = 0
  private let workLimit: Int
  private var depth = 0
  /// Seconds since 1970 for `strftime_now`; the present time when nil.
  let time: Int?

  private enum Flow { case normal, breakLoop, continueLoop }

  init(time: Int?, workLimit: Int) {
    self.time = time
    self.workLimit = workLimit
  }

  func render(
    _ statements: [TemplateStatement], _ variables: [(String, Value)]
  ) throws(TemplateError) -> [UInt8] {
    let globals = TemplateScope(in: nil)
    for function in TemplateFunction.allCases {
      globals.set(function.rawValue, .function(function))
    }
    let scope = TemplateScope(in: globals)
    for (name, value) in variables { scope.set(name, value) }
    var output: [UInt8] = []
    _ = try run(statements, scope, &output)
    return output
  }

  // MARK: Bounds and errors

  func charge(_ amount: Int) throws(TemplateError) {
    let (sum, overflow) = work.addingReportingOverflow(max(amount, 0))
    guard !overflow, sum <= workLimit else {
      throw .limitExceeded(line: line, limit: "the work that a template may take")
    }
    work = sum
  }

  /// Text is cheaper than steps: 16 bytes cost one.
  func charge(bytes: Int) throws(TemplateError) { try charge(bytes / 16) }

  /// `value.text`, its length charged before it is made: shared parts are spelled each time.
  func text(_ value: Value) throws(TemplateError) -> [UInt8] {
    try chargeSpelling(of: value)
    return value.text
  }

  func chargeSpelling(of value: Value) throws(TemplateError) {
    switch value {
    case .string(let bytes): try charge(bytes: bytes.count)
    case .list(let elements), .tuple(let elements):
      try charge(elements.count)
      for element in elements { try chargeSpelling(of: element) }
    case .dictionary(let dictionary):
      try charge(dictionary.count)
      for value in dictionary.keys { try chargeSpelling(of: value) }
      for value in dictionary.values { try chargeSpelling(of: value) }
    default: break
    }
  }

  /// What a search may take that compares the whole needle everywhere.
  func chargeSearch(of needle: [UInt8], in text: [UInt8]) throws(TemplateError) {
    let (product, overflow) = needle.count.multipliedReportingOverflow(by: text.count)
    try charge(overflow ? .max : text.count / 16 + product / 64)
  }

  func nested<R>(_ body: () throws(TemplateError) -> R) throws(TemplateError) -> R {
    guard depth < Self.depthLimit else {
      throw .limitExceeded(line: line, limit: "a depth of \(Self.depthLimit)")
    }
    depth += 1
    defer { depth -= 1 }
    return try body()
  }

  func wrong(_ problem: String) -> TemplateError { .wrongValue(line: line, problem: problem) }

  /// The error of using a value that is missing or hidden; nil for any other value.
  func missing(_ value: Value) -> TemplateError? {
    switch value {
    case .undefined(let problem): .undefined(line: line, problem: problem)
    case .hidden(let problem): .forbidden(line: line, problem: problem)
    default: nil
    }
  }

  /// Only plain data may be stored in other values, and not nested without end: what is stored can
  /// neither refer to itself nor grow deeper than the stack that takes it apart.
  func checkStorable(_ value: Value, depth: Int = 0) throws(TemplateError) {
    switch value {
    case .namespace, .loop, .macro, .function, .method:
      throw .forbidden(line: line, problem: "storing a \(value.typeName) in another value")
    case .list(let elements), .tuple(let elements):
      try charge(elements.count)
      try checkStorable(elements, depth: depth)
    case .dictionary(let dictionary):
      try charge(dictionary.count)
      try checkStorable(dictionary.keys, depth: depth)
      try checkStorable(dictionary.values, depth: depth)
    default: break
    }
  }

  private func checkStorable(_ values: [Value], depth: Int) throws(TemplateError) {
    guard depth < JSON.maximumDepth + 8 else {
      throw .limitExceeded(line: line, limit: "a depth of \(JSON.maximumDepth) values")
    }
    for value in values { try checkStorable(value, depth: depth + 1) }
  }

  // MARK: Statements

  private func run(
    _ statements: [TemplateStatement], _ scope: TemplateScope, _ output: inout [UInt8]
  ) throws(TemplateError) -> Flow {
    for statement in statements {
      let flow = try run(statement, scope, &output)
      if flow != .normal { return flow }
    }
    return .normal
  }

  private func run(
    _ statement: TemplateStatement, _ scope: TemplateScope, _ output: inout [UInt8]
  ) throws(TemplateError) -> Flow {
    try charge(1)
    switch statement {
    case .text(let text): try append(text, to: &output)
    case .output(let expression):
      try append(try text(try evaluate(expression, scope)), to: &output)
    case .branch(let branches, let otherwise):
      for (condition, body) in branches where try evaluate(condition, scope).isTrue {
        return try inside(body, scope, &output)
      }
      return try inside(otherwise, scope, &output)
    case .loop(let loop): return try run(loop, scope, &output)
    case .assign(let target, let expression):
      try assign(try evaluate(expression, scope), to: target, scope)
    case .capture(let target, let body, let filter):
      try assign(try captured(body, filter, scope), to: target, scope)
    case .filtered(let body, let filter):
      try append(try text(try captured(body, filter, scope)), to: &output)
    case .with(let assignments, let body):
      let inner = TemplateScope(in: scope)
      for (target, expression) in assignments {
        try assign(try evaluate(expression, scope), to: target, inner)
      }
      return try inside(body, inner, &output)
    case .macro(let macro): scope.set(macro.name, .macro(TemplateClosure(macro, scope)))
    case .callBlock(let macro, let call): try append(try block(macro, call, scope), to: &output)
    case .group(let body): return try inside(body, scope, &output)
    case .breakLoop: return .breakLoop
    case .continueLoop: return .continueLoop
    }
    return .normal
  }

  private func append(_ text: [UInt8], to output: inout [UInt8]) throws(TemplateError) {
    try charge(bytes: text.count)
    output += text
  }

  private func inside(
    _ body: [TemplateStatement], _ scope: TemplateScope, _ output: inout [UInt8]
  ) throws(TemplateError) -> Flow {
    try nested { () throws(TemplateError) in try run(body, scope, &output) }
  }

  private func run(
    _ loop: TemplateLoop, _ scope: TemplateScope, _ output: inout [UInt8]
  ) throws(TemplateError) -> Flow {
    var items = try iterated(try evaluate(loop.items, scope))
    if let condition = loop.condition {
      var kept: [Value] = []
      for item in items {
        let inner = TemplateScope(in: scope)
        try assign(item, to: loop.target, inner)
        if try evaluate(condition, inner).isTrue { kept.append(item) }
      }
      items = kept
    }
    guard !items.isEmpty else { return try inside(loop.otherwise, scope, &output) }
    let state = TemplateLoopState(items)
    for (index, item) in items.enumerated() {
      try charge(1)
      state.index = index
      let inner = TemplateScope(in: scope)
      line = loop.line
      try assign(item, to: loop.target, inner)
      inner.set("loop", .loop(state))
      if try inside(loop.body, inner, &output) == .breakLoop { break }
    }
    return .normal
  }

  private func captured(
    _ body: [TemplateStatement], _ filter: TemplateExpression?, _ scope: TemplateScope
  ) throws(TemplateError) -> Value {
    var output: [UInt8] = []
    let inner = TemplateScope(in: scope)
    _ = try inside(body, inner, &output)
    guard let filter else { return .string(output) }
    inner.set(Self.capturedName, .string(output))
    return try evaluate(filter, inner)
  }

  /// Cannot be a name in a template.
  static let capturedName = "|"

  private func assign(
    _ value: Value, to target: TemplateTarget, _ scope: TemplateScope
  ) throws(TemplateError) {
    switch target {
    case .name(let name): scope.set(name, value)
    case .attribute(let name, let attribute):
      guard case .namespace(let namespace)? = scope.find(name) else {
        throw wrong("\"\(name)\" is not a namespace, whose attributes alone can be set")
      }
      guard !attribute.hasPrefix("_") else {
        throw .forbidden(line: line, problem: "setting \"\(attribute)\" of a namespace")
      }
      try checkStorable(value)
      namespace.attributes[attribute] = value
    case .tuple(let targets):
      let values = try iterated(value)
      guard values.count == targets.count else {
        throw wrong("\(values.count) values cannot be assigned to \(targets.count) names")
      }
      for (target, value) in zip(targets, values) { try assign(value, to: target, scope) }
    }
  }

  // MARK: Macros

  private func block(
    _ macro: TemplateMacro, _ call: TemplateExpression, _ scope: TemplateScope
  ) throws(TemplateError) -> [UInt8] {
    guard case .call(let callee, let arguments) = call.kind else { return [] }
    var values = try evaluate(arguments, scope)
    values.named.append(("caller", .macro(TemplateClosure(macro, scope))))
    return try self.call(try evaluate(callee, scope), values).text
  }

  func call(
    _ closure: TemplateClosure, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    let macro = closure.macro
    guard let outer = closure.scope else {
      throw .forbidden(line: line, problem: "calling a macro outside its scope")
    }
    let scope = TemplateScope(in: outer)
    var named = arguments.named
    for (index, parameter) in macro.parameters.enumerated() {
      let position = named.firstIndex { $0.name == parameter.name }
      if index < arguments.positional.count {
        guard position == nil else {
          throw wrong("macro \"\(macro.name)\" got two values for \"\(parameter.name)\"")
        }
        scope.set(parameter.name, arguments.positional[index])
      } else if let position {
        scope.set(parameter.name, named.remove(at: position).value)
      } else if let initial = parameter.initial {
        scope.set(parameter.name, try evaluate(initial, scope))
      } else {
        let problem = "parameter '\(parameter.name)' was not provided"
        scope.set(parameter.name, .undefined(problem))
      }
    }
    if macro.usesCaller {
      let position = named.firstIndex { $0.name == "caller" }
      let none = Value.undefined("No caller defined")
      scope.set("caller", position.map { named.remove(at: $0).value } ?? none)
    }
    let extra = arguments.positional.dropFirst(macro.parameters.count)
    if macro.gathersPositional {
      scope.set("varargs", .tuple(Array(extra)))
    } else if !extra.isEmpty {
      throw wrong("macro \"\(macro.name)\" takes only \(macro.parameters.count) arguments")
    }
    if macro.gathersNamed {
      var gathered = TemplateDictionary()
      for (name, value) in named { gathered[.text(name)] = value }
      scope.set("kwargs", .dictionary(gathered))
    } else if let first = named.first {
      throw wrong("macro \"\(macro.name)\" takes no argument \"\(first.name)\"")
    }
    var output: [UInt8] = []
    _ = try inside(macro.body, scope, &output)
    return .string(output)
  }
}
