extension TemplateRenderer {
  static let testNames: Set<String> = [
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number",
    "integer", "float", "boolean", "true", "false", "callable", "even", "odd", "divisibleby",
    "equalto", "eq", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan", ">",
    "ge", ">=", "in", "lower", "upper", "sameas",
  ]

  func test(
    _ name: String, _ input: TemplateExpression, _ arguments: TemplateArguments,
    _ scope: TemplateScope, line: Int
  ) throws(TemplateError) -> Value {
    let value = try evaluate(input, scope)
    let values = try evaluate(arguments, scope)
    self.line = line
    return .bool(try test(name, value, values))
  }

  func test(_ name: String, _ value: Value, _ arguments: Arguments) throws(TemplateError) -> Bool {
    switch name {
    case "defined": return !value.isUndefined
    case "undefined": return value.isUndefined
    case "none": if case .null = value { return true }
    case "string": return value.bytes != nil
    case "boolean": if case .bool = value { return true }
    case "true": if case .bool(true) = value { return true }
    case "false": if case .bool(false) = value { return true }
    case "integer": if case .integer = value { return true }
    case "float": if case .float = value { return true }
    case "number": return value.number != nil
    case "mapping": if case .dictionary = value { return true }
    case "iterable", "sequence":
      switch value {
      case .undefined, .hidden, .string, .list, .tuple, .dictionary: return true
      case .loop: return name == "iterable"
      default: return false
      }
    case "callable":
      switch value {
      // Undefined can be called, if only to fail.
      case .macro, .function, .method, .undefined: return true
      default: return false
      }
    case "even", "odd", "divisibleby":
      let divisor =
        name == "divisibleby" ? try integer(bind(arguments, ["num"], to: name)[0], default: 0) : 2
      guard let rest = try arithmetic(.remainder, value, .integer(divisor)).number else { break }
      return name == "odd" ? rest == 1 : rest == 0
    case "lower", "upper": return hasKind("is" + name, value.text)
    default: return try comparisonTest(name, value, arguments)
    }
    return false
  }

  private func comparisonTest(
    _ name: String, _ value: Value, _ arguments: Arguments
  ) throws(TemplateError) -> Bool {
    guard let other = try bind(arguments, ["other"], to: name)[0] else {
      throw wrong("the test \"\(name)\" needs a value to compare with")
    }
    switch name {
    case "equalto", "eq", "==": return value == other
    case "ne", "!=": return value != other
    case "lt", "lessthan", "<": return try compare(.less, value, other)
    case "le", "<=": return try compare(.lessOrEqual, value, other)
    case "gt", "greaterthan", ">": return try compare(.greater, value, other)
    case "ge", ">=": return try compare(.greaterOrEqual, value, other)
    case "in": return try compare(.contained, value, other)
    default: return value.typeName == other.typeName && value == other
    }
  }
}
