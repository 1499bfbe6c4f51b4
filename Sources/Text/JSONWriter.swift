extension JSON {
  /// The document as UTF-8, the same bytes for the same value: members in their order, numbers
  /// as their file spelled them, everything but quotes, backslashes and control characters as is.
  ///
  /// - Parameter pretty: one member a line, indented by two spaces, with a final newline;
  ///   otherwise no space at all.
  public func serialized(pretty: Bool = false) -> [UInt8] {
    var writer = JSONWriter(isPretty: pretty)
    writer.write(self)
    if pretty { writer.output.append(UInt8(ascii: "\n")) }
    return writer.output
  }
}

private struct JSONWriter {
  let isPretty: Bool
  var output: [UInt8] = []
  private var depth = 0

  init(isPretty: Bool) { self.isPretty = isPretty }

  mutating func write(_ value: JSON) {
    switch value {
    case .null: output.append(contentsOf: "null".utf8)
    case .bool(let value): output.append(contentsOf: (value ? "true" : "false").utf8)
    case .number(let number): output.append(contentsOf: number.spelling)
    case .string(let bytes): write(string: bytes)
    case .array(let elements):
      open(UInt8(ascii: "["))
      for (index, element) in elements.enumerated() {
        separate(index)
        write(element)
      }
      close(UInt8(ascii: "]"), isEmpty: elements.isEmpty)
    case .object(let members):
      open(UInt8(ascii: "{"))
      for (index, (key, value)) in members.enumerated() {
        separate(index)
        write(string: key)
        output.append(UInt8(ascii: ":"))
        if isPretty { output.append(UInt8(ascii: " ")) }
        write(value)
      }
      close(UInt8(ascii: "}"), isEmpty: members.isEmpty)
    }
  }

  private mutating func open(_ bracket: UInt8) {
    output.append(bracket)
    depth += 1
  }

  private mutating func separate(_ index: Int) {
    if index > 0 { output.append(UInt8(ascii: ",")) }
    newLine()
  }

  private mutating func close(_ bracket: UInt8, isEmpty: Bool) {
    depth -= 1
    if !isEmpty { newLine() }
    output.append(bracket)
  }

  private mutating func newLine() {
    guard isPretty else { return }
    output.append(UInt8(ascii: "\n"))
    output.append(contentsOf: repeatElement(UInt8(ascii: " "), count: 2 * depth))
  }

  /// Bytes that are not UTF-8 have no spelling in JSON: they are written as U+FFFD.
  private mutating func write(string bytes: [UInt8]) {
    output.append(UInt8(ascii: "\""))
    for byte in UTF8Sequence.repaired(bytes) {
      switch byte {
      case UInt8(ascii: "\""): output.append(contentsOf: "\\\"".utf8)
      case UInt8(ascii: "\\"): output.append(contentsOf: "\\\\".utf8)
      case 0x0A: output.append(contentsOf: "\\n".utf8)
      case 0x0D: output.append(contentsOf: "\\r".utf8)
      case 0x09: output.append(contentsOf: "\\t".utf8)
      case 0x08: output.append(contentsOf: "\\b".utf8)
      case 0x0C: output.append(contentsOf: "\\f".utf8)
      case 0..<0x20:
        output.append(contentsOf: "\\u00".utf8)
        for digit in [byte >> 4, byte & 15] { output.append(digit + (digit < 10 ? 0x30 : 0x57)) }
      default: output.append(byte)
      }
    }
    output.append(UInt8(ascii: "\""))
  }
}
