#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension TemplateRenderer {
  func negative(_ value: Value) throws(TemplateError) -> Value {
    if let integer = value.integer {
      return try whole(Int(0).subtractingReportingOverflow(integer))
    }
    guard let number = value.number else {
      throw missing(value) ?? wrong("a \(value.typeName) has no negative")
    }
    return .float(-number)
  }

  func positive(_ value: Value) throws(TemplateError) -> Value {
    if let integer = value.integer { return .integer(integer) }
    guard value.number != nil else {
      throw missing(value) ?? wrong("a \(value.typeName) is no number")
    }
    return value
  }

  private func whole(
    _ result: (partialValue: Int, overflow: Bool)
  ) throws(TemplateError) -> Value {
    guard !result.overflow else { throw wrong("a number leaves the range of 64 bits") }
    return .integer(result.partialValue)
  }

  func arithmetic(
    _ operation: TemplateExpression.Arithmetic, _ a: Value, _ b: Value
  ) throws(TemplateError) -> Value {
    if let error = missing(a) ?? missing(b) { throw error }
    if let x = a.integer, let y = b.integer { return try arithmetic(operation, x, y) }
    if let x = a.number, let y = b.number { return try arithmetic(operation, x, y) }
    switch (operation, a, b) {
    case (.add, .string(let x), .string(let y)):
      try charge(bytes: x.count + y.count)
      return .string(x + y)
    case (.add, .list(let x), .list(let y)):
      try charge(8 * (x.count + y.count))
      return .list(x + y)
    case (.add, .tuple(let x), .tuple(let y)):
      try charge(8 * (x.count + y.count))
      return .tuple(x + y)
    case (.multiply, _, _):
      if let count = b.integer, let value = try repeated(a, count) { return value }
      if let count = a.integer, let value = try repeated(b, count) { return value }
    default: break
    }
    throw wrong(
      "\"\(operation.rawValue)\" does not work on a \(a.typeName) and a \(b.typeName)")
  }

  private func repeated(_ value: Value, _ count: Int) throws(TemplateError) -> Value? {
    func size(_ length: Int) -> Int {
      let (size, overflow) = length.multipliedReportingOverflow(by: max(count, 0))
      return overflow ? .max : size
    }
    switch value {
    case .string(let bytes):
      try charge(bytes: size(bytes.count))
      return .string(Array(repeatElement(bytes, count: bytes.isEmpty ? 0 : max(count, 0)).joined()))
    case .list(let elements):
      try charge(size(8 * elements.count))
      let count = elements.isEmpty ? 0 : max(count, 0)
      return .list(Array(repeatElement(elements, count: count).joined()))
    default: return nil
    }
  }

  private func arithmetic(
    _ operation: TemplateExpression.Arithmetic, _ a: Int, _ b: Int
  ) throws(TemplateError) -> Value {
    switch operation {
    case .add: return try whole(a.addingReportingOverflow(b))
    case .subtract: return try whole(a.subtractingReportingOverflow(b))
    case .multiply: return try whole(a.multipliedReportingOverflow(by: b))
    case .divide:
      guard b != 0 else { throw wrong("division by zero") }
      return .float(Double(a) / Double(b))
    case .floorDivide, .remainder:
      guard b != 0 else { throw wrong("division by zero") }
      let (quotient, overflow) = a.dividedReportingOverflow(by: b)
      if overflow { return operation == .remainder ? .integer(0) : try whole((0, true)) }
      let rest = a % b
      let isBelow = rest != 0 && (rest < 0) != (b < 0)
      return .integer(
        operation == .floorDivide ? quotient - (isBelow ? 1 : 0) : rest + (isBelow ? b : 0))
    case .power:
      guard b >= 0 else { return .float(pow(Double(a), Double(b))) }
      var result = 1
      if a == 0 || a == 1 { return .integer(b == 0 ? 1 : a) }
      if a == -1 { return .integer(b % 2 == 0 ? 1 : -1) }
      for _ in 0..<min(b, 64) {
        let (product, overflow) = result.multipliedReportingOverflow(by: a)
        if overflow { return try whole((0, true)) }
        result = product
      }
      return .integer(result)
    }
  }

  private func arithmetic(
    _ operation: TemplateExpression.Arithmetic, _ a: Double, _ b: Double
  ) throws(TemplateError) -> Value {
    switch operation {
    case .add: return .float(a + b)
    case .subtract: return .float(a - b)
    case .multiply: return .float(a * b)
    case .divide, .floorDivide, .remainder:
      guard b != 0 else { throw wrong("division by zero") }
      if operation == .divide { return .float(a / b) }
      var rest = fmod(a, b)
      if rest != 0, (rest < 0) != (b < 0) { rest += b }
      return .float(operation == .remainder ? rest : ((a - rest) / b).rounded())
    case .power: return .float(pow(a, b))
    }
  }

  // MARK: Comparisons

  func comparison(
    _ first: TemplateExpression, _ rest: [(TemplateExpression.Comparison, TemplateExpression)],
    _ scope: TemplateScope
  ) throws(TemplateError) -> Value {
    var left = try evaluate(first, scope)
    for (operation, expression) in rest {
      let right = try evaluate(expression, scope)
      guard try compare(operation, left, right) else { return .bool(false) }
      left = right
    }
    return .bool(true)
  }

  func compare(
    _ operation: TemplateExpression.Comparison, _ a: Value, _ b: Value
  ) throws(TemplateError) -> Bool {
    switch operation {
    case .equal: a == b
    case .notEqual: a != b
    case .less: try precedes(a, b, "<")
    case .lessOrEqual: try !precedes(b, a, "<=")
    case .greater: try precedes(b, a, ">")
    case .greaterOrEqual: try !precedes(a, b, ">=")
    case .contained: try contains(b, a)
    case .notContained: try !contains(b, a)
    }
  }

  /// Python's order: numbers, text by scalars, sequences element by element.
  func precedes(_ a: Value, _ b: Value, _ sign: String = "<") throws(TemplateError) -> Bool {
    if let error = missing(a) ?? missing(b) { throw error }
    if let x = a.integer, let y = b.integer { return x < y }
    if let x = a.number, let y = b.number { return x < y }
    switch (a, b) {
    case (.string(let x), .string(let y)): return x.lexicographicallyPrecedes(y)
    case (.list(let x), .list(let y)), (.tuple(let x), .tuple(let y)):
      try charge(min(x.count, y.count))
      for (a, b) in zip(x, y) where a != b {
        return try nested { () throws(TemplateError) in try precedes(a, b, sign) }
      }
      return x.count < y.count
    default:
      throw wrong("a \(a.typeName) and a \(b.typeName) have no order (\"\(sign)\")")
    }
  }

  private func contains(_ container: Value, _ value: Value) throws(TemplateError) -> Bool {
    switch container {
    case .string(let text):
      guard case .string(let part) = value else {
        throw missing(value) ?? wrong("a \(value.typeName) cannot be in a str")
      }
      try chargeSearch(of: part, in: text)
      return part.isEmpty || !PythonText.occurrences(of: part, in: text, limit: 1).isEmpty
    case .dictionary(let dictionary):
      try checkHashable(value)
      return dictionary[value] != nil
    default: return try iterated(container).contains(value)
    }
  }
}
