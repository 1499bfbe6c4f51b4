/// Why a chat template cannot be read or rendered; each case knows the line of the template.
public enum TemplateError: Error, Equatable, CustomStringConvertible {
  /// The template is not well-formed.
  case syntax(line: Int, problem: String)
  /// It uses a part of Jinja that this package does not have.
  case unsupported(line: Int, feature: String)
  /// It asks something of a value that has not been given.
  case undefined(line: Int, problem: String)
  /// An operation does not suit its values.
  case wrongValue(line: Int, problem: String)
  /// The template itself refused the conversation, by `raise_exception`.
  case refused(line: Int, message: String)
  /// It wants to change or reach what templates may not.
  case forbidden(line: Int, problem: String)
  /// It takes more work or memory than any chat needs.
  case limitExceeded(line: Int, limit: String)

  public var description: String {
    switch self {
    case .syntax(let line, let problem):
      "chat template, line \(line): \(problem). Correct the template."
    case .unsupported(let line, let feature):
      "chat template, line \(line): \(feature) is not supported. Give a template without it."
    case .undefined(let line, let problem):
      "chat template, line \(line): \(problem). The template needs a value that was not given."
    case .wrongValue(let line, let problem):
      "chat template, line \(line): \(problem). The messages do not fit this template."
    case .refused(let line, let message):
      "the chat template refuses these messages (line \(line)): \(message)"
    case .forbidden(let line, let problem):
      "chat template, line \(line): \(problem), which templates may not do."
    case .limitExceeded(let line, let limit):
      "chat template, line \(line): rendering exceeds \(limit). The template may loop; correct it."
    }
  }
}
