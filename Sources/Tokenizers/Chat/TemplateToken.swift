/// What the lexer makes of a template.
enum TemplateToken: Equatable {
  case data([UInt8])
  case variableBegin, variableEnd
  case blockBegin, blockEnd
  case name(String)
  case string([UInt8])
  case integer(Int)
  case float(Double)
  /// Punctuation: `+`, `==`, `(`, …
  case mark(String)
  case end

  /// For messages.
  var shown: String {
    switch self {
    case .data: "text"
    case .variableBegin: "\"{{\""
    case .variableEnd: "\"}}\""
    case .blockBegin: "\"{%\""
    case .blockEnd: "\"%}\""
    case .name(let name): "\"\(name)\""
    case .string: "a string"
    case .integer(let value): "\(value)"
    case .float(let value): "\(value)"
    case .mark(let mark): "\"\(mark)\""
    case .end: "the end of the template"
    }
  }
}
