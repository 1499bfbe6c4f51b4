import Text

/// How values are spelled: `str`, `repr` and `json.dumps` of Python.
extension TemplateValue {
  /// `str(value)`, what an output tag prints.
  var text: [UInt8] {
    switch self {
    case .undefined, .hidden: []
    case .string(let bytes): bytes
    default: representation
    }
  }

  var representation: [UInt8] {
    switch self {
    case .undefined, .hidden: Array("Undefined".utf8)
    case .null: Array("None".utf8)
    case .bool(let value): Array((value ? "True" : "False").utf8)
    case .integer(let value): Array(String(value).utf8)
    case .float(let value): Array(Self.spelled(value).utf8)
    case .string(let bytes): Self.quoted(bytes)
    case .list(let elements): Self.joined(elements.map(\.representation), "[", "]")
    case .tuple(let elements):
      Self.joined(elements.map(\.representation), "(", elements.count == 1 ? ",)" : ")")
    case .dictionary(let dictionary):
      Self.joined(
        zip(dictionary.keys, dictionary.values).map {
          $0.representation + Array(": ".utf8) + $1.representation
        }, "{", "}")
    case .namespace, .loop, .macro, .function, .method: Array("<\(typeName)>".utf8)
    }
  }

  private static func joined(_ parts: [[UInt8]], _ open: String, _ close: String) -> [UInt8] {
    Array(open.utf8) + parts.joined(separator: Array(", ".utf8)) + Array(close.utf8)
  }

  /// The shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
  static func spelled(_ value: Double) -> String {
    guard value.isFinite else { return value.isNaN ? "nan" : value < 0 ? "-inf" : "inf" }
    let description = value.magnitude.description
    let parts = description.split(separator: "e")
    let halves = parts[0].split(separator: ".")
    var digits = Array(String(halves[0]).utf8) + (halves.count > 1 ? Array(halves[1].utf8) : [])
    var point = halves[0].utf8.count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
    let zero = UInt8(ascii: "0")
    while digits.count > 1, digits.first == zero {
      digits.removeFirst()
      point -= 1
    }
    while digits.count > 1, digits.last == zero { digits.removeLast() }
    if digits == [zero] { point = 1 }
    let sign = value.sign == .minus ? "-" : ""
    func string(_ bytes: some Sequence<UInt8>) -> String {
      String(decoding: Array(bytes), as: UTF8.self)
    }
    if point > 16 || point < -3 {
      let exponent = point - 1
      let shown = (exponent < 0 ? "-" : "+") + (abs(exponent) < 10 ? "0" : "") + "\(abs(exponent))"
      let fraction = digits.count > 1 ? "." + string(digits.dropFirst()) : ""
      return sign + string(digits.prefix(1)) + fraction + "e" + shown
    }
    if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + string(digits) }
    if digits.count <= point {
      return sign + string(digits) + String(repeating: "0", count: point - digits.count) + ".0"
    }
    return sign + string(digits.prefix(point)) + "." + string(digits.dropFirst(point))
  }

  private static func quoted(_ bytes: [UInt8]) -> [UInt8] {
    let quote: UInt8 =
      bytes.contains(UInt8(ascii: "'")) && !bytes.contains(UInt8(ascii: "\""))
      ? UInt8(ascii: "\"") : UInt8(ascii: "'")
    var result = [quote]
    for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
      switch scalar.value {
      case UInt32(quote): result += [UInt8(ascii: "\\"), quote]
      case 0x5C: result += Array("\\\\".utf8)
      case 0x0A: result += Array("\\n".utf8)
      case 0x0D: result += Array("\\r".utf8)
      case 0x09: result += Array("\\t".utf8)
      case _ where isPrintable(scalar): UTF8Sequence.append(scalar.value, to: &result)
      case 0..<0x100: result += escaped(scalar.value, "x", 2)
      case 0x100..<0x10000: result += escaped(scalar.value, "u", 4)
      default: result += escaped(scalar.value, "U", 8)
      }
    }
    return result + [quote]
  }

  /// `str.isprintable`
  private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    if scalar.value == 0x20 { return true }
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator,
      .paragraphSeparator, .spaceSeparator:
      return false
    default: return true
    }
  }

  private static func escaped(_ value: UInt32, _ kind: String, _ width: Int) -> [UInt8] {
    let digits = String(value, radix: 16)
    let zeros = String(repeating: "0", count: max(0, width - digits.utf8.count))
    return Array("\\\(kind)\(zeros)\(digits)".utf8)
  }
}

/// Writes what `json.dumps` writes with the arguments of transformers' `tojson`.
struct TemplateJSONWriter {
  var indent: [UInt8]?
  var itemSeparator: [UInt8]
  var keySeparator: [UInt8]
  var isASCII: Bool
  var sortsKeys: Bool
  private(set) var output: [UInt8] = []

  init(
    indent: [UInt8]?, itemSeparator: [UInt8]?, keySeparator: [UInt8]?, isASCII: Bool,
    sortsKeys: Bool
  ) {
    self.indent = indent
    self.itemSeparator = itemSeparator ?? Array((indent == nil ? ", " : ",").utf8)
    self.keySeparator = keySeparator ?? Array(": ".utf8)
    self.isASCII = isASCII
    self.sortsKeys = sortsKeys
  }

  /// The name of a type that JSON does not have, nil when all is written.
  mutating func write(_ value: TemplateValue, level: Int = 0) -> String? {
    switch value {
    case .null: output += Array("null".utf8)
    case .bool(let value): output += Array((value ? "true" : "false").utf8)
    case .integer: output += value.text
    case .float(let number): output += Self.spelled(number)
    case .string(let bytes): write(string: bytes)
    case .list(let elements), .tuple(let elements):
      return write(elements, "[", "]", level) { (writer, element) in
        writer.write(element, level: level + 1)
      }
    case .dictionary(let dictionary):
      var pairs = Array(zip(dictionary.keys, dictionary.values))
      if sortsKeys { pairs.sort { $0.0.text.lexicographicallyPrecedes($1.0.text) } }
      return write(pairs, "{", "}", level) { (writer, pair) in
        guard let key = Self.key(pair.0) else { return pair.0.typeName }
        writer.write(string: key)
        writer.output += writer.keySeparator
        return writer.write(pair.1, level: level + 1)
      }
    default: return value.typeName
    }
    return nil
  }

  private static func spelled(_ value: Double) -> [UInt8] {
    if value.isNaN { return Array("NaN".utf8) }
    if value.isInfinite { return Array((value < 0 ? "-Infinity" : "Infinity").utf8) }
    return Array(TemplateValue.spelled(value).utf8)
  }

  private static func key(_ value: TemplateValue) -> [UInt8]? {
    switch value {
    case .string(let bytes): bytes
    case .bool(let value): Array((value ? "true" : "false").utf8)
    case .null: Array("null".utf8)
    case .integer: value.text
    case .float(let value): spelled(value)
    default: nil
    }
  }

  private mutating func write<Item>(
    _ items: [Item], _ open: String, _ close: String, _ level: Int,
    _ writeItem: (inout TemplateJSONWriter, Item) -> String?
  ) -> String? {
    output += Array(open.utf8)
    for (index, item) in items.enumerated() {
      if index > 0 { output += itemSeparator }
      newLine(level + 1)
      if let failure = writeItem(&self, item) { return failure }
    }
    if !items.isEmpty { newLine(level) }
    output += Array(close.utf8)
    return nil
  }

  private mutating func newLine(_ level: Int) {
    guard let indent else { return }
    output.append(0x0A)
    for _ in 0..<level { output += indent }
  }

  private mutating func write(string bytes: [UInt8]) {
    output.append(UInt8(ascii: "\""))
    for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
      switch scalar.value {
      case 0x22: output += Array("\\\"".utf8)
      case 0x5C: output += Array("\\\\".utf8)
      case 0x0A: output += Array("\\n".utf8)
      case 0x0D: output += Array("\\r".utf8)
      case 0x09: output += Array("\\t".utf8)
      case 0x08: output += Array("\\b".utf8)
      case 0x0C: output += Array("\\f".utf8)
      case 0..<0x20: escape(UInt16(scalar.value))
      case 0x7F... where isASCII: scalar.utf16.forEach { escape($0) }
      default: UTF8Sequence.append(scalar.value, to: &output)
      }
    }
    output.append(UInt8(ascii: "\""))
  }

  private mutating func escape(_ unit: UInt16) {
    let digits = String(unit, radix: 16)
    output += Array("\\u".utf8) + Array(String(repeating: "0", count: 4 - digits.count).utf8)
    output += Array(digits.utf8)
  }
}
