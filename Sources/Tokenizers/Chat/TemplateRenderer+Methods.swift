extension TemplateRenderer {
  static let stringMethods: Set<String> = [
    "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "upper",
    "lower", "title", "capitalize", "replace", "join", "find", "rfind", "index", "count", "isdigit",
    "isalpha", "isalnum", "isspace", "isupper", "islower", "removeprefix", "removesuffix",
    "partition", "rpartition", "format",
  ]
  static let listMethods: Set<String> = ["index", "count", "copy"]
  static let dictionaryMethods: Set<String> = ["items", "keys", "values", "get", "copy"]
  /// transformers renders in a sandbox that hides these.
  static let changingMethods: Set<String> = [
    "append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "update",
    "setdefault", "popitem",
  ]

  func call(
    _ name: String, of value: Value, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    switch value {
    case .string(let text):
      try charge(bytes: text.count)
      return try stringMethod(name, text, arguments)
    case .list(let elements), .tuple(let elements):
      try charge(elements.count)
      return try listMethod(name, value, elements, arguments)
    case .dictionary(let dictionary):
      try charge(dictionary.count)
      return try dictionaryMethod(name, dictionary, arguments)
    case .loop(let state): return try loopMethod(name, state, arguments)
    case .function(.dict):
      let values = try bind(arguments, ["keys", "value"], to: name)
      var dictionary = TemplateDictionary()
      for key in try iterated(values[0] ?? .null) {
        try checkHashable(key)
        dictionary[key] = values[1] ?? .null
      }
      try checkStorable(.dictionary(dictionary))
      return .dictionary(dictionary)
    default: throw wrong("a \(value.typeName) has no method \"\(name)\"")
    }
  }

  private func stringMethod(
    _ name: String, _ text: [UInt8], _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    switch name {
    case "strip", "lstrip", "rstrip":
      let characters = try string(bind(arguments, ["chars"], to: name)[0])
      return .string(stripped(text, name, characters))
    case "upper": return .string(PythonText.uppercased(text))
    case "lower": return .string(PythonText.lowercased(text))
    case "title": return .string(PythonText.titled(text))
    case "capitalize": return .string(PythonText.capitalized(text))
    case "split", "rsplit": return try split(name, text, arguments)
    case "splitlines":
      let keeps = try bind(arguments, ["keepends"], to: name)[0]?.isTrue ?? false
      return strings(PythonText.lines(text, keepsEnds: keeps))
    case "startswith", "endswith": return try .bool(hasAffix(name, text, arguments))
    case "replace":
      let values = try bind(arguments, ["old", "new", "count"], to: name)
      return .string(try replaced(text, values))
    case "join":
      let values = try bind(arguments, ["iterable"], to: name)
      return .string(try joined(iterated(values[0] ?? .null), text, isStrict: true))
    case "removeprefix", "removesuffix":
      let affix = try string(bind(arguments, ["affix"], to: name)[0]) ?? []
      if name == "removeprefix" {
        return .string(text.starts(with: affix) ? Array(text.dropFirst(affix.count)) : text)
      }
      let ends = text.count >= affix.count && text.suffix(affix.count).elementsEqual(affix)
      return .string(ends ? Array(text.dropLast(affix.count)) : text)
    case "format": return .string(try formatted(text, arguments))
    case "partition", "rpartition", "find", "rfind", "index", "count":
      return try searched(name, text, arguments)
    default: return .bool(hasKind(name, text))
    }
  }

  func stripped(_ text: [UInt8], _ name: String, _ characters: [UInt8]?) -> [UInt8] {
    var isStripped = PythonText.isSpace
    if let characters {
      let set = Set(PythonText.scalars(characters))
      isStripped = { set.contains($0) }
    }
    switch name {
    case "lstrip": return PythonText.leftStripped(text, isStripped)
    case "rstrip": return PythonText.rightStripped(text, isStripped)
    default: return PythonText.stripped(text, isStripped)
    }
  }

  func strings(_ parts: [[UInt8]]) -> Value { .list(parts.map { .string($0) }) }

  private func split(
    _ name: String, _ text: [UInt8], _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    let values = try bind(arguments, ["sep", "maxsplit"], to: name)
    let limit = try integer(values[1], default: -1)
    let bound = limit < 0 ? Int.max : limit
    guard let separator = try string(values[0]) else {
      guard name == "split" || bound == .max else {
        throw .unsupported(line: line, feature: "\"rsplit\" at whitespace with a limit")
      }
      return strings(PythonText.words(text, limit: bound))
    }
    guard !separator.isEmpty else { throw wrong("a separator cannot be empty") }
    try chargeSearch(of: separator, in: text)
    return strings(
      name == "split"
        ? PythonText.split(text, by: separator, limit: bound)
        : PythonText.splitFromRight(text, by: separator, limit: bound))
  }

  private func hasAffix(
    _ name: String, _ text: [UInt8], _ arguments: Arguments
  ) throws(TemplateError) -> Bool {
    guard let wanted = try bind(arguments, ["affix"], to: name)[0] else {
      throw wrong("\"\(name)\" needs a text")
    }
    var affixes = [wanted]
    if case .tuple(let several) = wanted { affixes = several }
    for value in affixes {
      let affix = try string(value) ?? []
      if name == "startswith" ? text.starts(with: affix) : text.suffix(affix.count) == affix[...] {
        return true
      }
    }
    return false
  }

  func replaced(_ text: [UInt8], _ values: [Value?]) throws(TemplateError) -> [UInt8] {
    guard let old = try string(values[0]), let new = try string(values[1]) else {
      throw wrong("\"replace\" needs an old and a new text")
    }
    let count = try integer(values[2], default: -1)
    try chargeSearch(of: old, in: text)
    let matches = old.isEmpty ? text.count : text.count / old.count
    let (size, overflow) = matches.multipliedReportingOverflow(by: new.count)
    // The exact growth is known only afterwards; small texts need no second look.
    if overflow || size > 1 << 24 {
      let found = old.isEmpty ? matches : PythonText.occurrences(of: old, in: text).count
      let (size, overflow) = found.multipliedReportingOverflow(by: new.count)
      try charge(bytes: overflow ? .max : size)
    }
    let result = PythonText.replaced(text, old, new, limit: count < 0 ? .max : count)
    try charge(bytes: result.count)
    return result
  }

  func joined(
    _ parts: [Value], _ separator: [UInt8], isStrict: Bool
  ) throws(TemplateError) -> [UInt8] {
    var result: [UInt8] = []
    for (index, part) in parts.enumerated() {
      if isStrict, part.bytes == nil {
        throw missing(part) ?? wrong("join needs text, found a \(part.typeName)")
      }
      let text = try self.text(part)
      try charge(bytes: text.count + separator.count)
      if index > 0 { result += separator }
      result += text
    }
    return result
  }

  /// `str.format` with fields that are empty, numbers or names; nothing else is put between braces.
  private func formatted(_ text: [UInt8], _ arguments: Arguments) throws(TemplateError) -> [UInt8] {
    let (open, close) = (UInt8(ascii: "{"), UInt8(ascii: "}"))
    var result: [UInt8] = []
    var next = 0, index = 0
    while index < text.count {
      let byte = text[index]
      index += 1
      guard byte == open || byte == close else {
        result.append(byte)
        continue
      }
      if index < text.count, text[index] == byte {
        result.append(byte)
        index += 1
        continue
      }
      guard byte == open, let end = text[index...].firstIndex(of: close) else {
        throw wrong("a brace of the format has no partner")
      }
      let field = String(decoding: text[index..<end], as: UTF8.self)
      index = end + 1
      guard field.utf8.allSatisfy({ $0 == 0x5F || $0 >= 0x80 || ($0 | 0x20).isLetterOrDigit })
      else {
        throw .unsupported(line: line, feature: "the format field \"{\(field)}\"")
      }
      let position = field.isEmpty ? next : Int(field)
      if field.isEmpty { next += 1 }
      var value = arguments.named.first { $0.name == field }?.value
      if let position, arguments.positional.indices.contains(position) {
        value = arguments.positional[position]
      }
      guard let value else { throw wrong("the format has no value for \"{\(field)}\"") }
      result += try self.text(value)
    }
    try charge(bytes: result.count)
    return result
  }

  private func searched(
    _ name: String, _ text: [UInt8], _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    let needle = try string(bind(arguments, ["sub"], to: name)[0]) ?? []
    try chargeSearch(of: needle, in: text)
    if needle.isEmpty {
      let count = PythonText.count(text)
      switch name {
      case "count": return .integer(count + 1)
      case "find", "index": return .integer(0)
      case "rfind": return .integer(count)
      default: throw wrong("a separator cannot be empty")
      }
    }
    let isFromRight = name == "rfind" || name == "rpartition"
    var offset: Int?
    if isFromRight {
      let found = PythonText.occurrences(of: needle.reversed(), in: text.reversed(), limit: 1)
      offset = found.first.map { text.count - $0 - needle.count }
    } else if name == "count" {
      return .integer(PythonText.occurrences(of: needle, in: text).count)
    } else {
      offset = PythonText.occurrences(of: needle, in: text, limit: 1).first
    }
    switch name {
    case "partition", "rpartition":
      guard let offset else {
        let parts: [[UInt8]] = isFromRight ? [[], [], text] : [text, [], []]
        return .tuple(parts.map { .string($0) })
      }
      let parts = [
        Array(text[..<offset]), needle, Array(text[(offset + needle.count)...]),
      ]
      return .tuple(parts.map { .string($0) })
    default:
      guard let offset else {
        if name == "index" { throw wrong("the text to find is not there") }
        return .integer(-1)
      }
      return .integer(PythonText.count(Array(text[..<offset])))
    }
  }

  func hasKind(_ name: String, _ text: [UInt8]) -> Bool {
    let scalars = String(decoding: text, as: UTF8.self).unicodeScalars
    func isLetter(_ scalar: Unicode.Scalar) -> Bool {
      switch scalar.properties.generalCategory {
      case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
      default: false
      }
    }
    switch name {
    case "isspace": return !text.isEmpty && scalars.allSatisfy { PythonText.isSpace($0.value) }
    case "isdigit":
      return !text.isEmpty
        && scalars.allSatisfy {
          $0.properties.numericType == .decimal || $0.properties.numericType == .digit
        }
    case "isalpha": return !text.isEmpty && scalars.allSatisfy(isLetter)
    case "isalnum":
      return !text.isEmpty
        && scalars.allSatisfy { isLetter($0) || $0.properties.numericType != nil }
    case "isupper", "islower":
      let isUpper = name == "isupper"
      var hasCase = false
      for scalar in scalars {
        let properties = scalar.properties
        if isUpper ? properties.isLowercase : properties.isUppercase { return false }
        if properties.generalCategory == .titlecaseLetter { return false }
        if isUpper ? properties.isUppercase : properties.isLowercase { hasCase = true }
      }
      return hasCase
    default: return false
    }
  }

  private func listMethod(
    _ name: String, _ value: Value, _ elements: [Value], _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    if name == "copy" { return value }
    guard let wanted = try bind(arguments, ["value"], to: name)[0] else {
      throw wrong("\"\(name)\" needs a value")
    }
    if name == "count" { return .integer(elements.count { $0 == wanted }) }
    guard let index = elements.firstIndex(of: wanted) else {
      throw wrong("\(shown(wanted)) is not in the \(value.typeName)")
    }
    return .integer(index)
  }

  private func dictionaryMethod(
    _ name: String, _ dictionary: TemplateDictionary, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    switch name {
    case "items": return .list(dictionary.pairs)
    case "keys": return .list(dictionary.keys)
    case "values": return .list(dictionary.values)
    case "get":
      let values = try bind(arguments, ["key", "default"], to: name)
      guard let key = values[0] else { throw wrong("\"get\" needs a key") }
      try checkHashable(key)
      return dictionary[key] ?? values[1] ?? .null
    default: return .dictionary(dictionary)
    }
  }

  private func loopMethod(
    _ name: String, _ state: TemplateLoopState, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    guard name == "cycle" else {
      let isSame = state.observed == arguments.positional
      state.observed = arguments.positional
      return .bool(!isSame)
    }
    guard !arguments.positional.isEmpty else { throw wrong("\"cycle\" needs values") }
    return arguments.positional[state.index % arguments.positional.count]
  }
}

extension UInt8 {
  /// For a letter in lower case.
  fileprivate var isLetterOrDigit: Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(self)
      || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self)
  }
}
