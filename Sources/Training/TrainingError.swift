/// What can be wrong with a training's settings, data or files.
public enum TrainingError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)

  // Optimizers.
  case gradientNotFinite(parameter: String)
  case missingState(String)
  case unexpectedState(String)
  case stateMismatch(String, expected: String, found: String)

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
    }
  }
}
