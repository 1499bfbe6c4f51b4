/// What can be wrong with a calibration.
public enum CalibrationError: Error, Equatable, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)
  case tooLittleText(samples: Int, wanted: Int, length: Int, source: String)
  case badTokens(file: String, line: Int, reason: String)
  case badTensor(String, reason: String)
  case cannotFold(method: String, tensor: String, reason: String)
  case memoryTooSmall(needed: Int, limit: Int, block: Int)
  case spillFailed(path: String, reason: String)
  case differentRun(folder: String)
  case runExists(folder: String)
  case badBlock(path: String, reason: String)
  case notFinite(block: Int, stage: String)

  /// What is wrong and what to do, in a sentence.
  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."
    case .tooLittleText(let samples, let wanted, let length, let source):
      "\(source) holds \(samples) samples of \(length) tokens, \(wanted) are wanted. Give more text, "
        + "or lower --samples or --length."
    case .badTokens(let file, let line, let reason):
      "\(file), line \(line): \(reason). Each line should be a JSON array of token ids."
    case .badTensor(let name, let reason): "\(name): \(reason)"
    case .cannotFold(let method, let tensor, let reason):
      "\(method) has nowhere to put the factors of \(tensor)'s input: \(reason). Leave the matrix out "
        + "with ignore, or use a method that scales nothing."
    case .memoryTooSmall(let needed, let limit, let block):
      "Block \(block) needs about \(needed >> 20) MiB, more than the limit of \(limit >> 20) MiB. "
        + "Raise --memory-limit."
    case .spillFailed(let path, let reason):
      "\(path) could not hold activations: \(reason). Free some space or raise --memory-limit."
    case .differentRun(let folder):
      "\(folder) belongs to a run with another model, calibration text or recipe. Repeat that run's "
        + "settings, or start anew with --overwrite."
    case .runExists(let folder):
      "\(folder) holds the finished blocks of an unfinished run. Add --resume to go on with it, or "
        + "--overwrite to start anew."
    case .badBlock(let path, let reason):
      "\(path) cannot be resumed: \(reason). Remove it to do its block again."
    case .notFinite(let block, let stage):
      "The activations of block \(block) are no longer finite after \(stage). Use more bits, a larger "
        + "damping or other calibration text."
    }
  }
}
