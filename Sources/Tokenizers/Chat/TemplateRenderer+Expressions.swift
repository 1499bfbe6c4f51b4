extension TemplateRenderer {
  /// What a call was given.
  struct Arguments {
    var positional: [Value] = []
    var named: [(name: String, value: Value)] = []
  }

  // Small functions: what one evaluation keeps on the stack is what the deepest nesting multiplies.
  func evaluate(
    _ expression: TemplateExpression, _ scope: TemplateScope
  ) throws(TemplateError) -> Value {
    try charge(1)
    line = expression.line
    return try nested { () throws(TemplateError) in
      switch expression.kind {
      case .null: .null
      case .bool(let value): .bool(value)
      case .integer(let value): .integer(value)
      case .float(let value): .float(value)
      case .string(let bytes): .string(bytes)
      case .name(let name): scope.find(name) ?? .undefined("'\(name)' is undefined")
      case .captured: scope.find(Self.capturedName) ?? .null
      case .list(let elements): try stored(.list(try evaluate(elements, scope)))
      case .tuple(let elements): try stored(.tuple(try evaluate(elements, scope)))
      case .dictionary(let members): try dictionary(members, scope)
      case .attribute(let value, let name): try attribute(name, of: try evaluate(value, scope))
      case .element(let value, let key):
        try element(try evaluate(key, scope), of: try evaluate(value, scope))
      case .slice(let value, let bounds):
        try slice(try evaluate(value, scope), bounds, scope, line: expression.line)
      case .call(let callee, let arguments):
        try call(callee, arguments, scope, line: expression.line)
      case .filter(let input, let name, let arguments):
        try filter(name, input, arguments, scope, line: expression.line)
      case .test(let input, let name, let arguments):
        try test(name, input, arguments, scope, line: expression.line)
      case .not(let value): .bool(!(try evaluate(value, scope).isTrue))
      case .negative(let value): try negative(try evaluate(value, scope))
      case .positive(let value): try positive(try evaluate(value, scope))
      case .arithmetic(let operation, let a, let b):
        try arithmetic(operation, try evaluate(a, scope), try evaluate(b, scope))
      case .concatenation(let parts): try concatenation(parts, scope)
      case .comparison(let first, let rest): try comparison(first, rest, scope)
      case .and(let a, let b): try either(a, b, scope, stopsAt: false)
      case .or(let a, let b): try either(a, b, scope, stopsAt: true)
      case .conditional(let value, let condition, let otherwise):
        try conditional(value, condition, otherwise, scope)
      }
    }
  }

  private func evaluate(
    _ expressions: [TemplateExpression], _ scope: TemplateScope
  ) throws(TemplateError) -> [Value] {
    var values: [Value] = []
    for expression in expressions { values.append(try evaluate(expression, scope)) }
    return values
  }

  private func either(
    _ a: TemplateExpression, _ b: TemplateExpression, _ scope: TemplateScope, stopsAt: Bool
  ) throws(TemplateError) -> Value {
    let first = try evaluate(a, scope)
    return first.isTrue == stopsAt ? first : try evaluate(b, scope)
  }

  private func conditional(
    _ value: TemplateExpression, _ condition: TemplateExpression,
    _ otherwise: TemplateExpression?, _ scope: TemplateScope
  ) throws(TemplateError) -> Value {
    if try evaluate(condition, scope).isTrue { return try evaluate(value, scope) }
    guard let otherwise else {
      return .undefined("the inline if-expression evaluated to false and has no else")
    }
    return try evaluate(otherwise, scope)
  }

  private func concatenation(
    _ parts: [TemplateExpression], _ scope: TemplateScope
  ) throws(TemplateError) -> Value {
    var text: [UInt8] = []
    for part in parts { text += try self.text(try evaluate(part, scope)) }
    try charge(bytes: text.count)
    return .string(text)
  }

  private func dictionary(
    _ members: [(key: TemplateExpression, value: TemplateExpression)], _ scope: TemplateScope
  ) throws(TemplateError) -> Value {
    var dictionary = TemplateDictionary()
    for (key, value) in members {
      let key = try evaluate(key, scope)
      try checkHashable(key)
      dictionary[key] = try evaluate(value, scope)
    }
    return try stored(.dictionary(dictionary))
  }

  private func stored(_ value: Value) throws(TemplateError) -> Value {
    try checkStorable(value)
    return value
  }

  func checkHashable(_ key: Value) throws(TemplateError) {
    switch key {
    case .list, .dictionary, .namespace: throw wrong("a \(key.typeName) cannot be a key")
    default: break
    }
  }

  // MARK: Parts of values

  private func attribute(_ name: [UInt8], of value: Value) throws(TemplateError) -> Value {
    let text = String(decoding: name, as: UTF8.self)
    switch value {
    case .undefined, .hidden: throw missing(value) ?? wrong("it is undefined")
    case .namespace(let namespace):
      if let found = namespace.attributes[text] { return found }
    case .loop(let state):
      if let found = loopAttribute(text, state) { return found }
    case .string where Self.stringMethods.contains(text),
      .list where Self.listMethods.contains(text),
      .tuple where Self.listMethods.contains(text) && text != "copy",
      .dictionary where Self.dictionaryMethods.contains(text),
      .function(.dict) where text == "fromkeys":
      return .method(of: value, text)
    case .list where Self.changingMethods.contains(text),
      .dictionary where Self.changingMethods.contains(text):
      return .hidden("\"\(text)\" changes a \(value.typeName)")
    case .dictionary(let dictionary):
      if let found = dictionary[name] { return found }
    default: break
    }
    if text.hasPrefix("__") {
      return .hidden("\"\(text)\" reaches into a \(value.typeName)")
    }
    return .undefined("a \(value.typeName) has no attribute '\(text)'")
  }

  func element(_ key: Value, of value: Value) throws(TemplateError) -> Value {
    if let error = missing(value) { throw error }
    switch value {
    case .dictionary(let dictionary):
      try checkHashable(key)
      if let found = dictionary[key] { return found }
    case .list(let elements), .tuple(let elements):
      if let index = key.integer {
        let place = index < 0 ? index + elements.count : index
        if elements.indices.contains(place) { return elements[place] }
      }
    case .string(let bytes):
      if let index = key.integer {
        let scalars = PythonText.scalars(bytes)
        try charge(scalars.count)
        let place = index < 0 ? index + scalars.count : index
        if scalars.indices.contains(place) { return .string(PythonText.bytes([scalars[place]])) }
      }
    default: break
    }
    if case .string(let name) = key { return try attribute(name, of: value) }
    return .undefined("a \(value.typeName) has no element \(shown(key))")
  }

  private func slice(
    _ value: Value, _ bounds: [TemplateExpression?], _ scope: TemplateScope, line: Int
  ) throws(TemplateError) -> Value {
    var limits: [Int?] = []
    for bound in bounds {
      guard let bound else {
        limits.append(nil)
        continue
      }
      let limit = try evaluate(bound, scope)
      if case .null = limit {
        limits.append(nil)
        continue
      }
      guard let number = limit.integer else {
        throw wrong("a \(limit.typeName) cannot bound a slice")
      }
      limits.append(number)
    }
    self.line = line
    if let error = missing(value) { throw error }
    func places(_ count: Int) throws(TemplateError) -> [Int] {
      try charge(count)
      return try slicePlaces(count, limits)
    }
    switch value {
    case .string(let bytes):
      let scalars = PythonText.scalars(bytes)
      return .string(PythonText.bytes(try places(scalars.count).map { scalars[$0] }))
    case .list(let elements): return .list(try places(elements.count).map { elements[$0] })
    case .tuple(let elements): return .tuple(try places(elements.count).map { elements[$0] })
    default: throw wrong("a \(value.typeName) cannot be sliced")
    }
  }

  /// The indices that `[start:stop:step]` selects, as Python's `slice.indices` has them.
  private func slicePlaces(_ count: Int, _ limits: [Int?]) throws(TemplateError) -> [Int] {
    let step = (limits.count > 2 ? limits[2] : nil) ?? 1
    guard step != 0 else { throw wrong("a slice's step cannot be zero") }
    let (low, high) = step > 0 ? (0, count) : (-1, count - 1)
    func bound(_ limit: Int?, _ initial: Int) -> Int {
      guard let limit else { return initial }
      return min(max(limit < 0 ? limit + count : limit, low), high)
    }
    let start = bound(limits[0], step > 0 ? low : high)
    let stop = bound(limits[1], step > 0 ? high : low)
    // A step beyond the length takes one element at most.
    return Array(stride(from: start, to: stop, by: max(-count - 1, min(step, count + 1))))
  }

  /// What a loop, a join or a test of membership goes through.
  func iterated(_ value: Value) throws(TemplateError) -> [Value] {
    switch value {
    case .undefined, .hidden: return []
    case .list(let elements), .tuple(let elements):
      try charge(elements.count)
      return elements
    case .dictionary(let dictionary):
      try charge(dictionary.count)
      return dictionary.keys
    case .string(let bytes):
      try charge(bytes.count)
      return PythonText.scalars(bytes).map { .string(PythonText.bytes([$0])) }
    default: throw wrong("a \(value.typeName) cannot be iterated")
    }
  }

  func shown(_ value: Value) -> String { String(decoding: value.representation, as: UTF8.self) }

  private func loopAttribute(_ name: String, _ state: TemplateLoopState) -> Value? {
    let (index, count) = (state.index, state.items.count)
    switch name {
    case "index": return .integer(index + 1)
    case "index0": return .integer(index)
    case "revindex": return .integer(count - index)
    case "revindex0": return .integer(count - index - 1)
    case "first": return .bool(index == 0)
    case "last": return .bool(index == count - 1)
    case "length": return .integer(count)
    case "depth": return .integer(1)
    case "depth0": return .integer(0)
    case "previtem":
      return index > 0 ? state.items[index - 1] : .undefined("there is no previous item")
    case "nextitem":
      return index + 1 < count ? state.items[index + 1] : .undefined("there is no next item")
    case "cycle", "changed": return .method(of: .loop(state), name)
    default: return nil
    }
  }

  // MARK: Calls

  func evaluate(
    _ arguments: TemplateArguments, _ scope: TemplateScope
  ) throws(TemplateError) -> Arguments {
    var values = Arguments()
    values.positional = try evaluate(arguments.positional, scope)
    if let spread = arguments.spread { values.positional += try iterated(evaluate(spread, scope)) }
    for (name, value) in arguments.named { values.named.append((name, try evaluate(value, scope))) }
    if let spread = arguments.namedSpread {
      guard case .dictionary(let dictionary) = try evaluate(spread, scope) else {
        throw wrong("only a dict can follow \"**\"")
      }
      for (key, value) in zip(dictionary.keys, dictionary.values) {
        values.named.append((String(decoding: key.text, as: UTF8.self), value))
      }
    }
    return values
  }

  private func call(
    _ callee: TemplateExpression, _ arguments: TemplateArguments, _ scope: TemplateScope, line: Int
  ) throws(TemplateError) -> Value {
    let function = try evaluate(callee, scope)
    let values = try evaluate(arguments, scope)
    self.line = line
    return try call(function, values)
  }

  func call(_ function: Value, _ arguments: Arguments) throws(TemplateError) -> Value {
    switch function {
    case .macro(let closure): return try call(closure, arguments)
    case .function(let function): return try call(function, arguments)
    case .method(let value, let name): return try call(name, of: value, arguments)
    default:
      throw missing(function) ?? wrong("a \(function.typeName) cannot be called")
    }
  }
}
