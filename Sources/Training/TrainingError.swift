/// What can be wrong with a training's settings, data or files.
public enum TrainingError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)
  case badMetricsLog(file: String, line: Int, reason: String)

  // Runs.
  case diverged(step: Int, place: String, checkpoint: String?)
  case nothingCounts(step: Int)
  case differentRun(setting: String, stored: String, present: String, checkpoint: String)
  case badCheckpoint(path: String, reason: String)
  case noCheckpoint(folder: String)
  case runExists(folder: String)
  case memoryExceeded(needed: Int, limit: Int, advice: String)

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

  // Adapters.
  case badAdapter(path: String, reason: String)

  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."

    case .diverged(let step, let place, let checkpoint):
      "Step \(step) gave numbers that are not finite, first in \(place). "
        + (checkpoint.map { "The last checkpoint, \($0), is good. " }
          ?? "No checkpoint was due yet. ")
        + "Lower --learning-rate or --clip-norm, or lengthen --warmup-steps, and start again."
    case .nothingCounts(let step):
      "No token of the batch of step \(step) counts, so there is no loss. "
        + "Use a larger --batch-size or --length, or data with responses to learn."
    case .differentRun(let setting, let stored, let present, let checkpoint):
      "\(checkpoint) was made with \(setting) \(stored), this run has \(present). Resume with the "
        + "same settings, or start a new run from that checkpoint as its model."
    case .badCheckpoint(let path, let reason):
      "\(path) cannot be resumed: \(reason). Remove it to resume from the one before."
    case .noCheckpoint(let folder):
      "\(folder) holds no checkpoint to resume. Leave --resume out to start anew."
    case .runExists(let folder):
      "\(folder) holds the checkpoints of an unfinished run. Add --resume to go on with it, or "
        + "--overwrite to start anew."
    case .memoryExceeded(let needed, let limit, let advice):
      "The training needs about \(needed >> 20) MiB, more than the limit of \(limit >> 20) MiB. "
        + advice

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
    case .badMetricsLog(let file, let line, let reason):
      "\(file), line \(line), \(reason), so it is not the log of this training. Move the file away "
        + "to go on with a new one."

    case .badAdapter(let path, let reason):
      "\(path): its adapters cannot be used: \(reason)."
    }
  }
}
