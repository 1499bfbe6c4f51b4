import Text

extension TemplateRenderer {
  static let filterNames: Set<String> = [
    "trim", "length", "count", "join", "upper", "lower", "title", "capitalize", "replace",
    "default", "d", "tojson", "first", "last", "list", "string", "int", "float", "abs", "sum",
    "min", "max", "unique", "sort", "reverse", "map", "select", "reject", "selectattr",
    "rejectattr", "items", "dictsort", "escape", "e", "safe", "indent", "batch", "round",
  ]

  func filter(
    _ name: String, _ input: TemplateExpression, _ arguments: TemplateArguments,
    _ scope: TemplateScope, line: Int
  ) throws(TemplateError) -> Value {
    let value = try evaluate(input, scope)
    let values = try evaluate(arguments, scope)
    self.line = line
    return try filter(name, value, values)
  }

  func filter(_ name: String, _ value: Value, _ arguments: Arguments) throws(TemplateError) -> Value
  {
    switch name {
    case "trim", "upper", "lower", "title", "capitalize", "replace", "string", "escape", "e",
      "safe", "indent":
      return try textFilter(name, value, arguments)
    case "default", "d":
      let values = try bind(arguments, ["default_value", "boolean"], to: name)
      let isReplaced = values[1]?.isTrue == true ? !value.isTrue : value.isUndefined
      return isReplaced ? values[0] ?? .string([]) : value
    case "tojson": return .string(try json(value, arguments))
    case "length", "count", "first", "last", "list", "reverse", "items", "batch", "join", "unique":
      return try sequenceFilter(name, value, arguments)
    case "int", "float", "abs", "round": return try numberFilter(name, value, arguments)
    case "map", "select", "reject", "selectattr", "rejectattr":
      return try selection(name, value, arguments)
    default: return try orderFilter(name, value, arguments)
    }
  }

  // MARK: Text

  private func textFilter(
    _ name: String, _ value: Value, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    let text = try self.text(value)
    switch name {
    case "trim":
      let characters = try string(bind(arguments, ["chars"], to: name)[0])
      return .string(stripped(text, "strip", characters))
    case "replace":
      return .string(try replaced(text, try bind(arguments, ["old", "new", "count"], to: name)))
    case "indent":
      let values = try bind(arguments, ["width", "first", "blank"], to: name)
      return .string(try indented(text, values))
    default:
      _ = try bind(arguments, [], to: name)
      switch name {
      case "upper": return .string(PythonText.uppercased(text))
      case "lower": return .string(PythonText.lowercased(text))
      case "capitalize": return .string(PythonText.capitalized(text))
      case "title": return .string(titled(text))
      case "escape", "e": return .string(escaped(text))
      default: return .string(text)
      }
    }
  }

  /// Jinja's own: words start after blanks, hyphens and opening brackets.
  private func titled(_ text: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    var word: [UInt32] = []
    func flush() {
      result += PythonText.uppercased(PythonText.bytes(word.prefix(1)))
      result += PythonText.lowercased(PythonText.bytes(word.dropFirst()))
      word = []
    }
    for scalar in PythonText.scalars(text) {
      let separates =
        PythonText.isSpace(scalar) || (scalar < 0x80 && "-({[<".utf8.contains(UInt8(scalar)))
      if separates {
        flush()
        UTF8Sequence.append(scalar, to: &result)
      } else {
        word.append(scalar)
      }
    }
    flush()
    return result
  }

  private func escaped(_ text: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    for byte in text {
      switch byte {
      case UInt8(ascii: "&"): result += "&amp;".utf8
      case UInt8(ascii: "<"): result += "&lt;".utf8
      case UInt8(ascii: ">"): result += "&gt;".utf8
      case UInt8(ascii: "'"): result += "&#39;".utf8
      case UInt8(ascii: "\""): result += "&#34;".utf8
      default: result.append(byte)
      }
    }
    return result
  }

  private func indented(_ text: [UInt8], _ values: [Value?]) throws(TemplateError) -> [UInt8] {
    let indent: [UInt8]
    if case .string(let bytes)? = values[0] {
      indent = bytes
    } else {
      indent = try spaces(integer(values[0], default: 4))
    }
    // A final line break counts as a line of its own.
    let lines = PythonText.lines(text + [0x0A], keepsEnds: false)
    var result: [UInt8] = []
    for (index, line) in lines.enumerated() {
      try charge(bytes: indent.count + line.count)
      if index > 0 { result.append(0x0A) }
      let isIndented =
        index == 0 ? values[1]?.isTrue == true : !line.isEmpty || values[2]?.isTrue == true
      if isIndented { result += indent }
      result += line
    }
    return result
  }

  private func spaces(_ count: Int) throws(TemplateError) -> [UInt8] {
    try charge(bytes: count)
    return Array(repeating: 0x20, count: max(0, count))
  }

  private func json(_ value: Value, _ arguments: Arguments) throws(TemplateError) -> [UInt8] {
    let values = try bind(
      arguments, ["ensure_ascii", "indent", "separators", "sort_keys"], to: "tojson")
    var indent: [UInt8]?
    if case .string(let bytes)? = values[1] {
      indent = bytes
    } else if let width = values[1], width != .null {
      indent = try spaces(integer(width, default: 0))
    }
    var separators: [[UInt8]] = []
    if let pair = values[2], pair != .null {
      for part in try iterated(pair) { separators.append(try string(part) ?? []) }
      guard separators.count == 2 else { throw wrong("two separators are expected") }
    }
    try chargeSpelling(of: value)
    guard (indent?.count ?? 0) <= 64 else { throw wrong("an indent of more than 64 is too wide") }
    var writer = TemplateJSONWriter(
      indent: indent, itemSeparator: separators.first, keySeparator: separators.last,
      isASCII: values[0]?.isTrue == true, sortsKeys: values[3]?.isTrue == true)
    if let type = writer.write(value) { throw missing(value) ?? wrong("JSON has no \(type)") }
    try charge(bytes: writer.output.count)
    return writer.output
  }

  // MARK: Sequences

  private func sequenceFilter(
    _ name: String, _ value: Value, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    switch name {
    case "length", "count":
      if case .string(let bytes) = value { return .integer(PythonText.count(bytes)) }
      return .integer(try iterated(value).count)
    case "first", "last":
      let elements = try iterated(value)
      let element = name == "first" ? elements.first : elements.last
      return element ?? .undefined("No \(name) item, sequence was empty.")
    case "list": return .list(try iterated(value))
    case "reverse":
      let elements = try iterated(value)
      guard value.bytes != nil else { return .list(elements.reversed()) }
      return .string(elements.reversed().flatMap(\.text))
    case "items":
      if value.isUndefined { return .list([]) }
      guard case .dictionary(let dictionary) = value else {
        throw wrong("a \(value.typeName) has no items")
      }
      return .list(dictionary.pairs)
    case "batch":
      let values = try bind(arguments, ["linecount", "fill_with"], to: name)
      return try batched(iterated(value), try integer(values[0], default: 0), values[1])
    case "unique":
      let values = try bind(arguments, ["case_sensitive", "attribute"], to: name)
      let keys = try orderKeys(iterated(value), values[1], isExact: values[0]?.isTrue == true)
      var seen: Set<Value> = []
      return .list(keys.filter { seen.insert($0.key).inserted }.map(\.value))
    default:
      let values = try bind(arguments, ["d", "attribute"], to: name)
      var parts = try iterated(value)
      if let attribute = values[1] { parts = try self.values(of: attribute, in: parts) }
      return .string(try joined(parts, values[0]?.text ?? [], isStrict: false))
    }
  }

  private func batched(
    _ elements: [Value], _ size: Int, _ filler: Value?
  ) throws(TemplateError) -> Value {
    guard size > 0 else { throw wrong("a batch holds at least one element") }
    var batches: [Value] = []
    for start in stride(from: 0, to: elements.count, by: size) {
      var batch = Array(elements[start..<min(start + size, elements.count)])
      if let filler, filler != .null, batch.count < size {
        try charge(size)
        batch += Array(repeating: filler, count: size - batch.count)
      }
      batches.append(.list(batch))
    }
    try checkStorable(.list(batches))
    return .list(batches)
  }

  /// `a.b.0` of each element.
  private func values(
    of path: Value, in elements: [Value], default initial: Value? = nil
  ) throws(TemplateError) -> [Value] {
    var results: [Value] = []
    for element in elements { results.append(try part(path, of: element, default: initial)) }
    return results
  }

  /// A default takes the place of every part that is missing on the way.
  private func part(
    _ path: Value, of element: Value, default initial: Value? = nil
  ) throws(TemplateError) -> Value {
    var keys = [path]
    if case .string(let text) = path {
      keys = PythonText.split(text, by: [UInt8(ascii: ".")]).map { name in
        Int(String(decoding: name, as: UTF8.self)).map { .integer($0) } ?? .string(name)
      }
    }
    var value = element
    for key in keys {
      value = try item(key, of: value)
      if value.isUndefined, let initial { value = initial }
    }
    return value
  }

  private func item(_ key: Value, of value: Value) throws(TemplateError) -> Value {
    try charge(1)
    return try element(key, of: value)
  }

  // MARK: Numbers

  private func numberFilter(
    _ name: String, _ value: Value, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    switch name {
    case "int":
      let values = try bind(arguments, ["default", "base"], to: name)
      return try wholeNumber(value, values[0], base: integer(values[1], default: 10))
    case "float":
      let initial = try bind(arguments, ["default"], to: name)[0] ?? .float(0)
      if let number = value.number { return .float(number) }
      if let error = missing(value) { throw error }
      return value.bytes.flatMap(Self.parsedNumber).map { .float($0) } ?? initial
    case "abs":
      if let integer = value.integer {
        return integer < 0 ? try negative(value) : .integer(integer)
      }
      guard let number = value.number else {
        throw missing(value) ?? wrong("a \(value.typeName) has no magnitude")
      }
      return .float(abs(number))
    default:
      let values = try bind(arguments, ["precision", "method"], to: name)
      let precision = try integer(values[0], default: 0)
      let method = String(decoding: try string(values[1]) ?? Array("common".utf8), as: UTF8.self)
      return try rounded(value, precision, method)
    }
  }

  private static func parsedNumber(_ bytes: [UInt8]) -> Double? {
    Double(String(decoding: PythonText.stripped(bytes), as: UTF8.self))
  }

  private func wholeNumber(
    _ value: Value, _ initial: Value?, base: Int
  ) throws(TemplateError) -> Value {
    let initial = initial ?? .integer(0)
    if let integer = value.integer { return .integer(integer) }
    if let error = missing(value) { throw error }
    if let bytes = value.bytes {
      var text = String(decoding: PythonText.stripped(bytes), as: UTF8.self)
      let prefixes = [16: "0x", 8: "0o", 2: "0b"]
      if let prefix = prefixes[base], text.lowercased().hasPrefix(prefix) { text.removeFirst(2) }
      if (2...36).contains(base), let number = Int(text, radix: base) { return .integer(number) }
    }
    guard let number = value.number ?? value.bytes.flatMap(Self.parsedNumber),
      let whole = Int(exactly: number.rounded(.towardZero))
    else { return initial }
    return .integer(whole)
  }

  private func rounded(
    _ value: Value, _ precision: Int, _ method: String
  ) throws(TemplateError) -> Value {
    guard ["common", "ceil", "floor"].contains(method) else {
      throw wrong("rounding is common, ceil or floor")
    }
    guard let number = value.number else {
      throw missing(value) ?? wrong("a \(value.typeName) cannot be rounded")
    }
    guard abs(precision) < 300 else { throw wrong("the precision is out of range") }
    if method == "common", let integer = value.integer {
      return .integer(tens(integer, -precision))
    }
    var scale = 1.0
    for _ in 0..<abs(precision) { scale *= 10 }
    if precision < 0 { scale = 1 / scale }
    switch method {
    case "ceil": return .float((number * scale).rounded(.up) / scale)
    case "floor": return .float((number * scale).rounded(.down) / scale)
    default: return .float((number * scale).rounded(.toNearestOrEven) / scale)
    }
  }

  /// A whole number rounded to a multiple of 10^places, halves to the even multiple.
  private func tens(_ number: Int, _ places: Int) -> Int {
    guard places > 0 else { return number }
    guard places < 19 else { return 0 }
    let unit = (0..<places).reduce(1) { power, _ in power * 10 }
    let (quotient, rest) = number.quotientAndRemainder(dividingBy: unit)
    let twice = rest.magnitude * 2
    let isUp = twice > UInt(unit) || (twice == UInt(unit) && quotient % 2 != 0)
    let (product, overflow) = (quotient + (isUp ? number.signum() : 0))
      .multipliedReportingOverflow(by: unit)
    return overflow ? number : product
  }

  // MARK: Choosing

  private func selection(
    _ name: String, _ value: Value, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    // As in Jinja, none and other empty values hold nothing to choose from.
    guard value.isTrue else { return .list([]) }
    var rest = arguments
    if name == "map", let attribute = rest.named.first(where: { $0.name == "attribute" }) {
      let initial = rest.named.first { $0.name == "default" }?.value
      return .list(try values(of: attribute.value, in: iterated(value), default: initial))
    }
    func takeName() throws(TemplateError) -> Value? {
      rest.positional.isEmpty ? nil : rest.positional.removeFirst()
    }
    if name == "map" {
      guard let filter = try string(takeName()) else { throw wrong("\"map\" needs a filter") }
      let filterName = String(decoding: filter, as: UTF8.self)
      guard Self.filterNames.contains(filterName) else {
        throw .unsupported(line: line, feature: "the filter \"\(filterName)\"")
      }
      var results: [Value] = []
      for element in try iterated(value) {
        results.append(
          try nested { () throws(TemplateError) in try self.filter(filterName, element, rest) })
      }
      try checkStorable(.list(results))
      return .list(results)
    }
    var attribute: Value?
    if name.hasSuffix("attr") {
      guard let path = try takeName() else { throw wrong("\"\(name)\" needs an attribute") }
      attribute = path
    }
    let test = try string(takeName()).map { String(decoding: $0, as: UTF8.self) }
    if let test, !Self.testNames.contains(test) {
      throw .unsupported(line: line, feature: "the test \"\(test)\"")
    }
    var kept: [Value] = []
    for element in try iterated(value) {
      let subject = try attribute.map { (path) throws(TemplateError) in try part(path, of: element)
      }
      let tested = subject ?? element
      let holds =
        try test.map { (name) throws(TemplateError) in try self.test(name, tested, rest) }
        ?? tested.isTrue
      if holds == name.hasPrefix("select") { kept.append(element) }
    }
    return .list(kept)
  }

  // MARK: Order

  private func orderKeys(
    _ elements: [Value], _ attribute: Value?, isExact: Bool
  ) throws(TemplateError) -> [(key: Value, value: Value)] {
    var keys: [(key: Value, value: Value)] = []
    for element in elements {
      var key = element
      if let attribute, attribute != .null { key = try part(attribute, of: element) }
      if !isExact, case .string(let text) = key {
        try charge(bytes: text.count)
        key = .string(PythonText.lowercased(text))
      }
      keys.append((key, element))
    }
    return keys
  }

  /// A stable sort by merging, so that a comparison may fail.
  private func sorted(
    _ items: [(key: Value, value: Value)]
  ) throws(TemplateError) -> [(key: Value, value: Value)] {
    guard items.count > 1 else { return items }
    let middle = items.count / 2
    let low = try sorted(Array(items[..<middle])), high = try sorted(Array(items[middle...]))
    var merged: [(key: Value, value: Value)] = []
    var (i, j) = (0, 0)
    try charge(items.count)
    while i < low.count, j < high.count {
      if try precedes(high[j].key, low[i].key) {
        merged.append(high[j])
        j += 1
      } else {
        merged.append(low[i])
        i += 1
      }
    }
    return merged + low[i...] + high[j...]
  }

  private func orderFilter(
    _ name: String, _ value: Value, _ arguments: Arguments
  ) throws(TemplateError) -> Value {
    switch name {
    case "sum":
      let values = try bind(arguments, ["attribute", "start"], to: name)
      var elements = try iterated(value)
      if let attribute = values[0], attribute != .null {
        elements = try self.values(of: attribute, in: elements)
      }
      var total = values[1] ?? .integer(0)
      for element in elements { total = try arithmetic(.add, total, element) }
      return total
    case "sort":
      let values = try bind(arguments, ["reverse", "case_sensitive", "attribute"], to: name)
      let keys = try orderKeys(iterated(value), values[2], isExact: values[1]?.isTrue == true)
      return .list(try ordered(keys, isReversed: values[0]?.isTrue == true))
    case "dictsort":
      let values = try bind(arguments, ["case_sensitive", "by", "reverse"], to: name)
      guard case .dictionary(let dictionary) = value else {
        throw missing(value) ?? wrong("a \(value.typeName) has no keys to sort by")
      }
      let isByValue = try string(values[1]).map { $0 == Array("value".utf8) } ?? false
      let keys = try orderKeys(
        dictionary.pairs, .integer(isByValue ? 1 : 0), isExact: values[0]?.isTrue == true)
      return .list(try ordered(keys, isReversed: values[2]?.isTrue == true))
    default:
      let values = try bind(arguments, ["case_sensitive", "attribute"], to: name)
      let keys = try orderKeys(iterated(value), values[1], isExact: values[0]?.isTrue == true)
      guard var best = keys.first else {
        return .undefined("No aggregated item, sequence was empty.")
      }
      for item in keys.dropFirst() {
        let isBetter =
          name == "min" ? try precedes(item.key, best.key) : try precedes(best.key, item.key)
        if isBetter { best = item }
      }
      return best.value
    }
  }

  /// Python reverses a sort without touching the order of equals.
  private func ordered(
    _ keys: [(key: Value, value: Value)], isReversed: Bool
  ) throws(TemplateError) -> [Value] {
    guard isReversed else { return try sorted(keys).map(\.value) }
    return try sorted(keys.reversed()).reversed().map(\.value)
  }
}
