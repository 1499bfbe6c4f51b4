/// Why a pre-tokenizer pattern is refused; `description` is one sentence.
public enum PatternError: Error, Equatable, CustomStringConvertible {
  /// The pattern uses something the linear-time matcher does not have ("a back-reference").
  case unsupported(pattern: String, construct: String)
  /// The pattern is not a regular expression.
  case malformed(pattern: String, offset: Int, problem: String)
  /// Its automaton would be too large.
  case tooComplex(pattern: String, limit: String)

  public var description: String {
    switch self {
    case .unsupported(let pattern, let construct):
      "the pattern `\(pattern)` uses \(construct), which is not supported"
    case .malformed(let pattern, let offset, let problem):
      "the pattern `\(pattern)` is malformed at character \(offset + 1): \(problem)"
    case .tooComplex(let pattern, let limit):
      "the pattern `\(pattern)` needs more than \(limit)"
    }
  }
}
