/// A recursive-descent reader over bytes. One pass; each string is allocated once.
struct JSONParser {
  private let bytes: UnsafeBufferPointer<UInt8>
  private let name: String
  private var position = 0
  private var depth = 0

  init(_ bytes: UnsafeRawBufferPointer, name: String) {
    self.bytes = bytes.assumingMemoryBound(to: UInt8.self)
    self.name = name
  }

  mutating func document() throws(JSONError) -> JSON {
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) {
      throw malformed("the text starts with a byte order mark, which JSON forbids")
    }
    skipSpace()
    let value = try value()
    skipSpace()
    if position < bytes.count { throw malformed("there is text after the document's end") }
    return value
  }

  // MARK: Values

  private mutating func value() throws(JSONError) -> JSON {
    switch try peek("a value") {
    case UInt8(ascii: "\""):
      return .string(try string())
    case UInt8(ascii: "{"):
      return try nested { (parser) throws(JSONError) in .object(try parser.object()) }
    case UInt8(ascii: "["):
      return try nested { (parser) throws(JSONError) in .array(try parser.array()) }
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
      return .number(try number())
    case UInt8(ascii: "t"):
      try word("true")
      return .bool(true)
    case UInt8(ascii: "f"):
      try word("false")
      return .bool(false)
    case UInt8(ascii: "n"):
      try word("null")
      return .null
    default:
      throw malformed("a value was expected here")
    }
  }

  @inline(__always)
  private mutating func nested(
    _ read: (inout JSONParser) throws(JSONError) -> JSON
  ) throws(JSONError) -> JSON {
    if depth == JSON.maximumDepth {
      throw malformed("arrays and objects are nested deeper than \(JSON.maximumDepth)")
    }
    depth += 1
    position += 1
    let value = try read(&self)
    depth -= 1
    return value
  }

  private mutating func array() throws(JSONError) -> [JSON] {
    var elements: [JSON] = []
    skipSpace()
    if try peek("a value or ']'") == UInt8(ascii: "]") {
      position += 1
      return elements
    }
    while true {
      skipSpace()
      elements.append(try value())
      skipSpace()
      switch try peek("',' or ']'") {
      case UInt8(ascii: ","): position += 1
      case UInt8(ascii: "]"):
        position += 1
        return elements
      default: throw malformed("',' or ']' was expected here")
      }
    }
  }

  private mutating func object() throws(JSONError) -> JSONObject {
    var members = JSONObject()
    skipSpace()
    if try peek("a key or '}'") == UInt8(ascii: "}") {
      position += 1
      return members
    }
    while true {
      skipSpace()
      let start = position
      guard try peek("a key") == UInt8(ascii: "\"") else {
        throw malformed("a key in double quotes was expected here")
      }
      let key = try string()
      skipSpace()
      guard try peek("':'") == UInt8(ascii: ":") else {
        throw malformed("':' was expected here")
      }
      position += 1
      skipSpace()
      if !members.append(key, try value()) {
        let (line, column) = place(of: start)
        throw .duplicateKey(
          file: name, line: line, column: column, key: String(decoding: key, as: UTF8.self))
      }
      skipSpace()
      switch try peek("',' or '}'") {
      case UInt8(ascii: ","): position += 1
      case UInt8(ascii: "}"):
        position += 1
        return members
      default: throw malformed("',' or '}' was expected here")
      }
    }
  }

  private mutating func word(_ expected: StaticString) throws(JSONError) {
    let count = expected.utf8CodeUnitCount
    let letters = UnsafeBufferPointer(start: expected.utf8Start, count: count)
    guard position + count <= bytes.count,
      bytes[position..<position + count].elementsEqual(letters)
    else { throw malformed("a value was expected here") }
    position += count
  }

  private mutating func number() throws(JSONError) -> JSONNumber {
    let start = position
    var isInteger = true
    if bytes[position] == UInt8(ascii: "-") { position += 1 }
    if try peek("a digit") == UInt8(ascii: "0") {
      position += 1
      if let next = byte, isDigit(next) { throw malformed("a number may not start with a zero") }
    } else {
      try digits()
    }
    if byte == UInt8(ascii: ".") {
      isInteger = false
      position += 1
      try digits()
    }
    if let exponent = byte, exponent | 0x20 == UInt8(ascii: "e") {
      isInteger = false
      position += 1
      if let sign = byte, sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { position += 1 }
      try digits()
    }
    return JSONNumber(
      checkedSpelling: UnsafeBufferPointer(rebasing: bytes[start..<position]), isInteger: isInteger)
  }

  private mutating func digits() throws(JSONError) {
    let start = position
    while let next = byte, isDigit(next) { position += 1 }
    if position == start { throw malformed("a digit was expected here") }
  }

  // MARK: Strings

  /// Reads the string whose opening quote is at `position`.
  private mutating func string() throws(JSONError) -> [UInt8] {
    position += 1
    let start = position
    // Nearly every string of a tokenizer is plain: copy it whole.
    try skipPlainText()
    if bytes[position] == UInt8(ascii: "\"") {
      position += 1
      return Array(UnsafeBufferPointer(rebasing: bytes[start..<position - 1]))
    }
    var text = Array(UnsafeBufferPointer(rebasing: bytes[start..<position]))
    while bytes[position] != UInt8(ascii: "\"") {
      position += 1
      try appendEscape(to: &text)
      let plain = position
      try skipPlainText()
      text.append(contentsOf: UnsafeBufferPointer(rebasing: bytes[plain..<position]))
    }
    position += 1
    return text
  }

  /// Advances to the next quote or backslash.
  private mutating func skipPlainText() throws(JSONError) {
    while position < bytes.count {
      let next = bytes[position]
      if next >= 0x80 {
        let length = UTF8Sequence.length(in: bytes, at: position)
        if length == 0 { throw malformed("the text is not valid UTF-8") }
        position += length
      } else if next == UInt8(ascii: "\"") || next == UInt8(ascii: "\\") {
        return
      } else if next < 0x20 {
        throw malformed("a control character must be written as an escape inside a string")
      } else {
        position += 1
      }
    }
    throw malformed("the file ends inside a string")
  }

  /// Reads what follows a backslash.
  private mutating func appendEscape(to text: inout [UInt8]) throws(JSONError) {
    let letter = try peek("an escape")
    position += 1
    switch letter {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(letter)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "u"):
      let unit = try hexadecimalUnit()
      var value = unit
      if unit & 0xFC00 == 0xD800 {
        guard position + 1 < bytes.count, bytes[position] == UInt8(ascii: "\\"),
          bytes[position + 1] == UInt8(ascii: "u")
        else { throw malformed("a high surrogate must be followed by a low one") }
        position += 2
        let low = try hexadecimalUnit()
        guard low & 0xFC00 == 0xDC00 else {
          throw malformed("a high surrogate must be followed by a low one")
        }
        value = 0x10000 + (unit & 0x3FF) << 10 + low & 0x3FF
      }
      guard let scalar = Unicode.Scalar(value) else {
        throw malformed("a low surrogate must follow a high one")
      }
      UTF8Sequence.append(scalar.value, to: &text)
    default:
      position -= 1
      throw malformed("an unknown escape in a string")
    }
  }

  private mutating func hexadecimalUnit() throws(JSONError) -> UInt32 {
    var unit: UInt32 = 0
    for _ in 0..<4 {
      let digit = try peek("a hexadecimal digit")
      switch digit {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): unit = unit << 4 | UInt32(digit - 0x30)
      case UInt8(ascii: "a")...UInt8(ascii: "f"): unit = unit << 4 | UInt32(digit - 0x57)
      case UInt8(ascii: "A")...UInt8(ascii: "F"): unit = unit << 4 | UInt32(digit - 0x37)
      default: throw malformed("four hexadecimal digits must follow \\u")
      }
      position += 1
    }
    return unit
  }

  // MARK: Bytes

  private var byte: UInt8? { position < bytes.count ? bytes[position] : nil }

  @inline(__always)
  private func isDigit(_ byte: UInt8) -> Bool { byte &- UInt8(ascii: "0") < 10 }

  @inline(__always)
  private func peek(_ expected: StaticString) throws(JSONError) -> UInt8 {
    guard position < bytes.count else {
      throw malformed("the file ends where \(expected) was expected")
    }
    return bytes[position]
  }

  @inline(__always)
  private mutating func skipSpace() {
    while position < bytes.count {
      switch bytes[position] {
      case 0x20, 0x0A, 0x0D, 0x09: position += 1
      default: return
      }
    }
  }

  private func malformed(_ problem: String) -> JSONError {
    let (line, column) = place(of: position)
    return .malformed(file: name, line: line, column: column, problem: problem)
  }

  /// Line and column of a byte, counted from 1, columns in characters.
  private func place(of offset: Int) -> (line: Int, column: Int) {
    var line = 1
    var column = 1
    for byte in bytes[..<offset] {
      if byte == 0x0A {
        line += 1
        column = 1
      } else if byte & 0xC0 != 0x80 {
        column += 1
      }
    }
    return (line, column)
  }
}
