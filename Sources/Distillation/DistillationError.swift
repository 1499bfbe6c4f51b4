/// What can be wrong with a distillation's models, settings or files.
public enum DistillationError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)
  // Caches of a teacher's predictions
  case foreignCache(path: String, part: String, made: String, wanted: String)
  case unreadableCache(path: String, problem: String)
  case notInCache(path: String)
  case teacherNotFinite(path: String)
  // Students
  case badShape(String, problem: String)
  case cannotShape(path: String, problem: String)
  // Vocabularies
  case vocabularyTooSmall(model: String, tokens: Int, rows: Int)
  case vocabulariesDiffer(loss: String, shared: Int, of: Int)

  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."
    case .foreignCache(let path, let part, let made, let wanted):
      "\(path) was made with another \(part): \(made), here \(wanted). "
        + "Make a cache for this run, or name the one that belongs to it."
    case .unreadableCache(let path, let problem):
      "\(path) cannot be read as a cache of predictions: \(problem). Delete it and make it again."
    case .notInCache(let path):
      "\(path) has no predictions for a text of this batch. "
        + "Make it again for as many batches as the run has, with the same tokenizer."
    case .vocabularyTooSmall(let model, let tokens, let rows):
      "the \(model)'s tokenizer has \(tokens) tokens and its model rows for \(rows). "
        + "Use the tokenizer that belongs to the model."
    case .vocabulariesDiffer(let loss, let shared, let count):
      "teacher and student have different vocabularies (\(shared) of the student's \(count) tokens "
        + "are spelled alike), which \(loss) cannot compare. Use uld, with labels if you like."
    case .badShape(let shape, let problem):
      "the student's shape \(shape) cannot be: \(problem). Correct the shape."
    case .cannotShape(let path, let problem):
      "\(path) cannot be the model for such a student: \(problem). Choose another shape or teacher."
    case .teacherNotFinite(let path):
      "the teacher \(path) gives predictions that are not finite. Its weights are damaged or overflow."
    }
  }
}
