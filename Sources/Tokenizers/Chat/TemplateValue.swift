import Text

/// What a template computes with: Python's values as far as templates meet them.
indirect enum TemplateValue {
  /// Why the value is missing, such as "'x' is undefined".
  case undefined(String)
  /// An attribute that the sandbox hides: using it is an error.
  case hidden(String)
  case null
  case bool(Bool)
  case integer(Int)
  case float(Double)
  case string([UInt8])
  case list([TemplateValue])
  case tuple([TemplateValue])
  case dictionary(TemplateDictionary)
  case namespace(TemplateNamespace)
  case loop(TemplateLoopState)
  case macro(TemplateClosure)
  case function(TemplateFunction)
  case method(of: TemplateValue, String)

  static func text(_ text: String) -> TemplateValue { .string(Array(text.utf8)) }
}

enum TemplateFunction: String, CaseIterable {
  case raiseException = "raise_exception"
  case formattedTime = "strftime_now"
  case range, namespace, dict
}

/// A dictionary in the order of insertion. Keys are compared as Python compares them.
struct TemplateDictionary {
  private(set) var keys: [TemplateValue] = []
  private(set) var values: [TemplateValue] = []
  private var places: [TemplateValue: Int] = [:]

  var count: Int { keys.count }

  subscript(key: TemplateValue) -> TemplateValue? {
    get { places[key].map { values[$0] } }
    set {
      guard let newValue else { return }
      if let place = places[key] {
        values[place] = newValue
      } else {
        places[key] = keys.count
        keys.append(key)
        values.append(newValue)
      }
    }
  }

  subscript(key: [UInt8]) -> TemplateValue? { self[.string(key)] }

  var pairs: [TemplateValue] { zip(keys, values).map { .tuple([$0, $1]) } }
}

/// The one thing that inner scopes can change for outer ones.
final class TemplateNamespace {
  var attributes: [String: TemplateValue] = [:]
}

/// What `loop` shows.
final class TemplateLoopState {
  let items: [TemplateValue]
  var index = 0
  /// What `loop.changed` saw last.
  var observed: [TemplateValue]?

  init(_ items: [TemplateValue]) { self.items = items }
}

/// A macro with the variables around it, which hold the macro in turn: hence the weak reference.
final class TemplateClosure {
  let macro: TemplateMacro
  private(set) weak var scope: TemplateScope?

  init(_ macro: TemplateMacro, _ scope: TemplateScope) {
    self.macro = macro
    self.scope = scope
  }
}

/// Variables, innermost first.
final class TemplateScope {
  private var variables: [String: TemplateValue] = [:]
  private let outer: TemplateScope?

  init(in outer: TemplateScope?) { self.outer = outer }

  func find(_ name: String) -> TemplateValue? {
    var scope: TemplateScope? = self
    while let current = scope {
      if let value = current.variables[name] { return value }
      scope = current.outer
    }
    return nil
  }

  func set(_ name: String, _ value: TemplateValue) { variables[name] = value }
}

extension TemplateValue {
  init(_ json: JSON) {
    switch json {
    case .null: self = .null
    case .bool(let value): self = .bool(value)
    case .number(let number):
      let isInteger = !number.spelling.contains { ".eE".utf8.contains($0) }
      if isInteger, let value = number.int {
        self = .integer(value)
      } else {
        self = .float(number.double ?? .infinity)
      }
    case .string(let bytes): self = .string(UTF8Sequence.repaired(bytes))
    case .array(let elements): self = .list(elements.map { TemplateValue($0) })
    case .object(let members):
      var dictionary = TemplateDictionary()
      for (key, value) in members { dictionary[.string(key)] = TemplateValue(value) }
      self = .dictionary(dictionary)
    }
  }

  /// Python's name of the type, for messages.
  var typeName: String {
    switch self {
    case .undefined, .hidden: "undefined"
    case .null: "NoneType"
    case .bool: "bool"
    case .integer: "int"
    case .float: "float"
    case .string: "str"
    case .list: "list"
    case .tuple: "tuple"
    case .dictionary: "dict"
    case .namespace: "namespace"
    case .loop: "loop"
    case .macro, .function, .method: "function"
    }
  }

  var isTrue: Bool {
    switch self {
    case .undefined, .hidden, .null: false
    case .bool(let value): value
    case .integer(let value): value != 0
    case .float(let value): value != 0
    case .string(let bytes): !bytes.isEmpty
    case .list(let elements), .tuple(let elements): !elements.isEmpty
    case .dictionary(let dictionary): dictionary.count > 0
    case .namespace, .loop, .macro, .function, .method: true
    }
  }

  var isUndefined: Bool {
    switch self {
    case .undefined, .hidden: true
    default: false
    }
  }

  /// `True` counts as 1.
  var integer: Int? {
    switch self {
    case .bool(let value): value ? 1 : 0
    case .integer(let value): value
    default: nil
    }
  }

  var number: Double? {
    if case .float(let value) = self { return value }
    return integer.map(Double.init)
  }

  var bytes: [UInt8]? {
    if case .string(let bytes) = self { bytes } else { nil }
  }
}

/// Equality as Python's `==`: numbers by value, text by its scalars, dictionaries in any order.
extension TemplateValue: Hashable {
  static func == (a: TemplateValue, b: TemplateValue) -> Bool {
    switch (a, b) {
    case (.undefined, .undefined), (.null, .null): true
    case (.string(let a), .string(let b)): a == b
    case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)): a == b
    case (.dictionary(let a), .dictionary(let b)):
      a.count == b.count && zip(a.keys, a.values).allSatisfy { b[$0] == $1 }
    case (.namespace(let a), .namespace(let b)): a === b
    case (.loop(let a), .loop(let b)): a === b
    case (.macro(let a), .macro(let b)): a === b
    case (.function(let a), .function(let b)): a == b
    default:
      if let a = a.integer, let b = b.integer {
        a == b
      } else if let a = a.number, let b = b.number {
        a == b
      } else {
        false
      }
    }
  }

  func hash(into hasher: inout Hasher) {
    switch self {
    case .bool, .integer, .float: hasher.combine(number)
    case .string(let bytes): hasher.combine(bytes)
    case .list(let elements), .tuple(let elements): hasher.combine(elements)
    default: hasher.combine(typeName)
    }
  }
}
