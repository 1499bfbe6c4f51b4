/// What can be wrong with a training's settings, data or files.
public enum TrainingError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)

  // Optimizers.
  case gradientNotFinite(parameter: String)
  case missingState(String)
  case unexpectedState(String)
  case stateMismatch(String, expected: String, found: String)

  // Data.
  case unreadableData(file: String, reason: String)
  case unknownDataFormat(file: String, problem: String)
  case invalidText(file: String, offset: Int)
  case badRecord(file: String, line: Int, problem: String)
  case untokenizable(file: String, offset: Int, problem: String)
  case noDocuments(files: [String])
  case cannotHoldOut(documents: Int)
  case noTokens(files: [String])
  case dataChanged(file: String)
  case badPosition(problem: String)

  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."

    case .gradientNotFinite(let parameter):
      "The gradient of \(parameter) holds a number that is not finite. "
        + "Lower the learning rate or clip gradients, and go on from the last checkpoint."
    case .missingState(let name):
      "The optimizer's state lacks \(name). Resume with the settings that the state was saved with."
    case .unexpectedState(let name):
      "The optimizer's state holds \(name), which nothing here wants. "
        + "Resume with the settings that the state was saved with."
    case .stateMismatch(let name, let expected, let found):
      "The optimizer's state \(name) is \(found), which must be \(expected). "
        + "Resume with the settings that the state was saved with."
    case .unreadableData(let file, let reason):
      "\(file) cannot be read: \(reason). Check the path and its permissions."
    case .unknownDataFormat(let file, let problem):
      "\(file) \(problem). State the format and the names of its fields."
    case .invalidText(let file, let offset):
      "\(file) is not valid UTF-8 at byte \(offset). Convert it to UTF-8 or remove that part."
    case .badRecord(let file, let line, let problem):
      "\(file):\(line): \(problem). Correct or remove that line."
    case .untokenizable(let file, let offset, let problem):
      "\(file) has a document at byte \(offset) that cannot be tokenized: \(problem)."
    case .noDocuments(let files):
      "There is no text in \(files.joined(separator: ", ")). Give a file with at least one document."
    case .cannotHoldOut(let documents):
      "Of \(documents == 1 ? "one document" : "\(documents) documents") none would be left to train "
        + "on or none be held out. Hold out less, give more documents, or state their separator."
    case .noTokens(let files):
      "The documents of \(files.joined(separator: ", ")) have no token that follows another, so "
        + "there is nothing to predict. Give longer documents."
    case .dataChanged(let file):
      "\(file) was changed or became unreadable while it was being read. "
        + "Make sure that nothing writes to it, and run again."
    case .badPosition(let problem):
      "The stored position in the data does not fit: \(problem). Resume with the data files and "
        + "settings of the run that stored it."
    }
  }
}
