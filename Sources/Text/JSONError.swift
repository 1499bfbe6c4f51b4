/// Why a file is not the JSON it should be; `description` is one sentence.
public enum JSONError: Error, Equatable, CustomStringConvertible {
  /// The text breaks the grammar at this place (both counted from 1, columns in characters).
  case malformed(file: String, line: Int, column: Int, problem: String)
  /// A key occurs twice in one object.
  case duplicateKey(file: String, line: Int, column: Int, key: String)

  public var description: String {
    switch self {
    case .malformed(let file, let line, let column, let problem):
      "\(file):\(line):\(column): \(problem); the file is damaged or is not JSON, fetch it again"
    case .duplicateKey(let file, let line, let column, let key):
      "\(file):\(line):\(column): the key \"\(key)\" occurs twice in one object; remove one"
    }
  }
}
