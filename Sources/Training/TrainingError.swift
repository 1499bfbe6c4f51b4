/// What can be wrong with a training's settings, data or files.
public enum TrainingError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)
  case badMetricsLog(file: String, line: Int, reason: String)

  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."
    case .badMetricsLog(let file, let line, let reason):
      "\(file), line \(line), \(reason), so it is not the log of this training. Move the file away "
        + "to go on with a new one."
    }
  }
}
