/// What can be wrong with a training's settings, data or files.
public enum TrainingError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)

  // Adapters.
  case badAdapter(path: String, reason: String)

  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."

    case .badAdapter(let path, let reason):
      "\(path): its adapters cannot be used: \(reason)."
    }
  }
}
