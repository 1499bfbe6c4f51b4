/// Cuts a template into text and tags, with Jinja's whitespace control as transformers sets it:
/// `trim_blocks` (a newline after a block tag goes) and `lstrip_blocks` (blanks before a block tag
/// that starts its line go); `-` strips all whitespace on its side, `+` keeps it.
struct TemplateLexer {
  typealias Located = (token: TemplateToken, line: Int)

  private let source: [UInt8]
  private var position = 0
  private var line = 1
  private var tokens: [Located] = []
  /// Whether the last consumed tag ended with a newline, so that the next text starts a line.
  private var startsLine = true

  static func tokens(of source: [UInt8]) throws(TemplateError) -> [Located] {
    var lexer = TemplateLexer(source: normalized(source))
    try lexer.run()
    return lexer.tokens
  }

  private init(source: [UInt8]) { self.source = source }

  /// Every line break is a newline, and one at the very end is dropped.
  private static func normalized(_ source: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(source.count)
    for (index, byte) in source.enumerated() {
      if byte == 0x0A, index > 0, source[index - 1] == 0x0D { continue }
      result.append(byte == 0x0D ? 0x0A : byte)
    }
    if result.last == 0x0A { result.removeLast() }
    return result
  }

  private mutating func run() throws(TemplateError) {
    while position < source.count {
      let start = position
      let opening = nextTag(from: start)
      guard let opening else {
        append(data: Array(source[start...]))
        position = source.count
        break
      }
      let kind = source[opening + 1]
      var after = opening + 2
      var sign: UInt8 = 0
      if after < source.count,
        source[after] == UInt8(ascii: "-") || source[after] == UInt8(ascii: "+")
      {
        sign = source[after]
        after += 1
      }
      let text = stripped(
        Array(source[start..<opening]), sign: sign, isVariable: kind == UInt8(ascii: "{"))
      let lineOfText = line
      line += newlines(in: start..<opening)
      if !text.isEmpty { tokens.append((.data(text), lineOfText)) }
      position = after
      switch kind {
      case UInt8(ascii: "#"): try skipComment()
      case UInt8(ascii: "%"):
        if try !readRaw() { try readTag(isBlock: true) }
      default: try readTag(isBlock: false)
      }
    }
    tokens.append((.end, line))
  }

  private mutating func append(data: [UInt8]) {
    if !data.isEmpty { tokens.append((.data(data), line)) }
    line += data.count { $0 == 0x0A }
  }

  private func newlines(in range: Range<Int>) -> Int { source[range].count { $0 == 0x0A } }

  private func nextTag(from start: Int) -> Int? {
    var index = start
    while index + 1 < source.count {
      if source[index] == UInt8(ascii: "{"), "{%#".utf8.contains(source[index + 1]) { return index }
      index += 1
    }
    return nil
  }

  private func stripped(_ text: [UInt8], sign: UInt8, isVariable: Bool) -> [UInt8] {
    if sign == UInt8(ascii: "-") { return PythonText.rightStripped(text) }
    guard sign != UInt8(ascii: "+"), !isVariable else { return text }
    let lineStart = (text.lastIndex(of: 0x0A) ?? -1) + 1
    guard lineStart > 0 || startsLine else { return text }
    let isBlank = PythonText.stripped(Array(text[lineStart...])).isEmpty
    return isBlank ? Array(text[..<lineStart]) : text
  }

  private func starts(with text: String, at index: Int) -> Bool {
    source[min(index, source.count)...].starts(with: text.utf8)
  }

  /// Consumes the close of a tag at `position`, if it is there, with the whitespace it takes along.
  private mutating func close(_ mark: String, trims: Bool, keepsWithPlus: Bool = true) -> Bool {
    var end = position
    if starts(with: "-" + mark, at: end) {
      end += 1 + mark.utf8.count
      end = PythonText.endOfSpace(in: source, from: end)
    } else if keepsWithPlus, starts(with: "+" + mark, at: end) {
      end += 1 + mark.utf8.count
    } else if starts(with: mark, at: end) {
      end += mark.utf8.count
      if trims, end < source.count, source[end] == 0x0A { end += 1 }
    } else {
      return false
    }
    line += newlines(in: position..<end)
    startsLine = source[end - 1] == 0x0A
    position = end
    return true
  }

  private mutating func skipComment() throws(TemplateError) {
    let start = line
    while position < source.count {
      if close("#}", trims: true) { return }
      if source[position] == 0x0A { line += 1 }
      position += 1
    }
    throw .syntax(line: start, problem: "a comment \"{#\" does not end")
  }

  /// `{% raw %}` … `{% endraw %}`; false when no raw block starts here.
  private mutating func readRaw() throws(TemplateError) -> Bool {
    let (before, lineBefore) = (position, line)
    skipSpace()
    guard starts(with: "raw", at: position) else {
      (position, line) = (before, lineBefore)
      return false
    }
    position += 3
    skipSpace()
    guard close("%}", trims: false, keepsWithPlus: false) else {
      (position, line) = (before, lineBefore)
      return false
    }
    let start = position
    while position < source.count {
      if starts(with: "{%", at: position) {
        let (opening, lineOfOpening) = (position, line)
        position += 2
        var sign: UInt8 = 0
        if position < source.count, "-+".utf8.contains(source[position]) {
          sign = source[position]
          position += 1
        }
        skipSpace()
        if starts(with: "endraw", at: position) {
          position += 6
          skipSpace()
          let text = stripped(Array(source[start..<opening]), sign: sign, isVariable: false)
          if close("%}", trims: true) {
            if !text.isEmpty { tokens.append((.data(text), lineBefore)) }
            return true
          }
        }
        (position, line) = (opening, lineOfOpening)
      }
      if source[position] == 0x0A { line += 1 }
      position += 1
    }
    throw .syntax(line: lineBefore, problem: "a raw block does not end")
  }

  private mutating func skipSpace() {
    let end = PythonText.endOfSpace(in: source, from: position)
    line += newlines(in: position..<end)
    position = end
  }

  // MARK: Inside a tag

  private mutating func readTag(isBlock: Bool) throws(TemplateError) {
    let opened = line
    tokens.append((isBlock ? .blockBegin : .variableBegin, line))
    var open: [UInt8] = []
    while true {
      skipSpace()
      guard position < source.count else {
        throw .syntax(line: opened, problem: "a tag does not end")
      }
      let start = line
      if open.isEmpty, close(isBlock ? "%}" : "}}", trims: isBlock, keepsWithPlus: isBlock) {
        tokens.append((isBlock ? .blockEnd : .variableEnd, start))
        return
      }
      let byte = source[position]
      switch byte {
      case UInt8(ascii: "'"), UInt8(ascii: "\""): try readString(byte)
      case UInt8(ascii: "0")...UInt8(ascii: "9"): try readNumber()
      case _ where Self.isNameByte(byte): readName()
      default: try readMark(&open)
      }
    }
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  private mutating func readName() {
    let start = position
    while position < source.count, Self.isNameByte(source[position]) { position += 1 }
    tokens.append((.name(String(decoding: source[start..<position], as: UTF8.self)), line))
  }

  private mutating func readMark(_ open: inout [UInt8]) throws(TemplateError) {
    for mark in ["//", "**", "==", "!=", "<=", ">="] where starts(with: mark, at: position) {
      tokens.append((.mark(mark), line))
      position += 2
      return
    }
    let byte = source[position]
    guard "+-/*%~<>=.:|,;()[]{}".utf8.contains(byte) else {
      let rest = String(decoding: source[position...].prefix(4), as: UTF8.self)
      throw .syntax(line: line, problem: "\"\(rest.prefix(1))\" has no meaning in a tag")
    }
    switch byte {
    case UInt8(ascii: "("), UInt8(ascii: "["), UInt8(ascii: "{"): open.append(byte)
    case UInt8(ascii: ")"), UInt8(ascii: "]"), UInt8(ascii: "}"):
      let expected: [UInt8: Character] = [
        UInt8(ascii: "("): ")", UInt8(ascii: "["): "]", UInt8(ascii: "{"): "}",
      ]
      let found = Character(Unicode.Scalar(byte))
      guard let last = open.popLast(), expected[last] == found else {
        throw .syntax(line: line, problem: "\"\(found)\" closes nothing")
      }
    default: break
    }
    tokens.append((.mark(String(Unicode.Scalar(byte))), line))
    position += 1
  }

  private mutating func readNumber() throws(TemplateError) {
    let start = position
    func digits(_ index: Int) -> Int {
      var index = index
      while index < source.count, Self.isNameByte(source[index]) { index += 1 }
      return index
    }
    var isFloat = false
    func isDigit(_ index: Int) -> Bool {
      index < source.count && (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(source[index])
    }
    position = digits(position)
    let prefix = source[start..<position]
    let isPrefixed =
      prefix.count > 1 && prefix.first == UInt8(ascii: "0")
      && "xXbBoO".utf8.contains(prefix[start + 1])
    if !isPrefixed {
      if position < source.count, source[position] == UInt8(ascii: "."), isDigit(position + 1) {
        isFloat = true
        position = digits(position + 1)
      }
      if "eE".utf8.contains(source[position - 1]), position < source.count,
        "+-".utf8.contains(source[position]), isDigit(position + 1)
      {
        position = digits(position + 1)
      }
    }
    let spelling = String(
      decoding: source[start..<position].filter { $0 != UInt8(ascii: "_") }, as: UTF8.self)
    if isPrefixed {
      let radix = ["x": 16, "b": 2, "o": 8][
        spelling.dropFirst().first.map { $0.lowercased() } ?? ""]
      if let value = Int(spelling.dropFirst(2), radix: radix ?? 10) {
        tokens.append((.integer(value), line))
        return
      }
    } else if !isFloat, let value = Int(spelling) {
      tokens.append((.integer(value), line))
      return
    } else if let value = Double(spelling),
      isFloat || spelling.contains(where: { "eE".contains($0) })
    {
      tokens.append((.float(value), line))
      return
    }
    throw .syntax(line: line, problem: "\"\(spelling)\" is not a number")
  }

  private mutating func readString(_ quote: UInt8) throws(TemplateError) {
    let start = line
    position += 1
    var bytes: [UInt8] = []
    while position < source.count, source[position] != quote {
      let byte = source[position]
      if byte == 0x0A { line += 1 }
      position += 1
      guard byte == UInt8(ascii: "\\"), position < source.count else {
        bytes.append(byte)
        continue
      }
      readEscape(into: &bytes)
    }
    guard position < source.count else {
      throw .syntax(line: start, problem: "a string does not end")
    }
    position += 1
    tokens.append((.string(bytes), start))
  }

  /// Python's escapes; an unknown one stands for itself, backslash included.
  private mutating func readEscape(into bytes: inout [UInt8]) {
    let byte = source[position]
    position += 1
    let simple: [UInt8: UInt8] = [
      UInt8(ascii: "n"): 0x0A, UInt8(ascii: "t"): 0x09, UInt8(ascii: "r"): 0x0D,
      UInt8(ascii: "a"): 0x07, UInt8(ascii: "b"): 0x08, UInt8(ascii: "f"): 0x0C,
      UInt8(ascii: "v"): 0x0B, UInt8(ascii: "\\"): UInt8(ascii: "\\"),
      UInt8(ascii: "'"): UInt8(ascii: "'"), UInt8(ascii: "\""): UInt8(ascii: "\""),
    ]
    if let value = simple[byte] {
      bytes.append(value)
    } else if byte == 0x0A {
      line += 1
    } else if let length = [UInt8(ascii: "x"): 2, UInt8(ascii: "u"): 4, UInt8(ascii: "U"): 8][byte],
      position + length <= source.count,
      let value = UInt32(
        String(decoding: source[position..<(position + length)], as: UTF8.self), radix: 16),
      let scalar = Unicode.Scalar(value)
    {
      bytes += Array(String(scalar).utf8)
      position += length
    } else if (UInt8(ascii: "0")...UInt8(ascii: "7")).contains(byte) {
      var value = UInt32(byte - UInt8(ascii: "0"))
      for _ in 0..<2 {
        guard position < source.count,
          (UInt8(ascii: "0")...UInt8(ascii: "7")).contains(source[position])
        else { break }
        value = value * 8 + UInt32(source[position] - UInt8(ascii: "0"))
        position += 1
      }
      bytes += Unicode.Scalar(value).map { Array(String($0).utf8) } ?? []
    } else {
      bytes += [UInt8(ascii: "\\"), byte]
    }
  }
}
