public import Text

/// Why a tokenizer cannot be read or used; `description` is one sentence.
public enum TokenizerError: Error, Equatable, CustomStringConvertible {
  case unreadable(path: String, reason: String)
  case notJSON(JSONError)
  /// A field is missing or has the wrong kind.
  case malformed(file: String, field: String, problem: String)
  /// A component or option that this package does not implement.
  case unsupported(file: String, component: String)
  case unsupportedPattern(file: String, field: String, PatternError)
  /// A merge names a token that the vocabulary does not have.
  case mergeOutsideVocabulary(file: String, merge: Int, token: String)
  /// The text given to `encode` is not UTF-8.
  case invalidText(offset: Int)
  /// A character has no token, and the model has no unknown token to stand for it.
  case noUnknownToken(piece: String)
  case unknownID(Int, vocabularySize: Int)

  public var description: String {
    switch self {
    case .unreadable(let path, let reason):
      "\(path) cannot be read: \(reason)"
    case .notJSON(let error):
      error.description
    case .malformed(let file, let field, let problem):
      "\(file): `\(field)` \(problem); the file is damaged or from another tool, fetch it again"
    case .unsupported(let file, let component):
      "\(file): \(component) is not supported"
    case .unsupportedPattern(let file, let field, let error):
      "\(file): `\(field)`: \(error.description)"
    case .mergeOutsideVocabulary(let file, let merge, let token):
      "\(file): merge \(merge) needs the token \"\(token)\", which the vocabulary does not have; "
        + "vocabulary and merges do not belong together"
    case .invalidText(let offset):
      "the text is not valid UTF-8 at byte \(offset); convert it to UTF-8"
    case .noUnknownToken(let piece):
      "the tokenizer has neither a token for \"\(piece)\" nor an unknown token"
    case .unknownID(let id, let size):
      "the token id \(id) lies outside the vocabulary of \(size)"
    }
  }
}
