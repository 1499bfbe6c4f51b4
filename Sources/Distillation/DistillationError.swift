/// What can be wrong with a distillation's models, settings or files.
public enum DistillationError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)
  case vocabulariesDiffer(student: Int, teacher: Int)
  case teacherForm(given: String, expected: String)

  // Inner states of student and teacher
  case layerOutOfRange(Int, of: Int, model: String)
  case noLayers(map: String, student: Int, teacher: Int)
  case missingStates(String)
  case headsDiffer(student: Int, teacher: Int, loss: String)
  case indivisibleWidth(Int, heads: Int, of: String)
  case widthsDiffer(student: Int, teacher: Int, of: String)
  case tooFewRows(Int, needed: Int, for: String)

  // Caches of a teacher's predictions
  case foreignCache(path: String, part: String, made: String, wanted: String)
  case unreadableCache(path: String, problem: String)
  case notInCache(path: String)
  case teacherNotFinite(path: String)

  // Students.
  case badShape(String, problem: String)
  case cannotShape(path: String, problem: String)

  // Vocabularies.
  case vocabularyTooSmall(model: String, tokens: Int, rows: Int)
  case tokensDiffer(loss: String, shared: Int, of: Int)

  // Samples and several teachers.
  case cannotCombine(Int, Int, use: String)
  case partialTeacher(kept: Int, vocabulary: Int, use: String)
  case noCommonStates(teachers: Int)
  case noSuchTeacher(Int, teachers: Int)
  case badState(String, problem: String)

  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."
    case .layerOutOfRange(let layer, let layers, let model):
      "A layer map names layer \(layer) of the \(model), which has layers 0 to \(layers - 1). "
        + "Correct the map."
    case .noLayers(let map, let student, let teacher):
      "The layer map \(map) pairs no layers of a student of \(student) and a teacher of "
        + "\(teacher). List the pairs instead."
    case .missingStates(let what):
      "A loss compares \(what), which a pass did not keep. Use a teacher that is a model, not a "
        + "cache of its predictions."
    case .headsDiffer(let student, let teacher, let loss):
      "\(loss) compares heads one by one, but the student has \(student) and the teacher "
        + "\(teacher). Average over heads, or use MiniLM v2, whose relation heads are free."
    case .indivisibleWidth(let width, let heads, let what):
      "\(what) have \(width) channels, which \(heads) relation heads do not divide. Choose a "
        + "number of relation heads that divides the widths of student and teacher."
    case .widthsDiffer(let student, let teacher, let what):
      "\(what) of the student have \(student) channels and the teacher's \(teacher), though the "
        + "loss was made for others. Make it for these two models."
    case .tooFewRows(let rows, let needed, let what):
      "\(what) needs at least \(needed) tokens that count, found \(rows). Use a larger sample."
    case .vocabulariesDiffer(let student, let teacher):
      """
      The student predicts \(student) tokens and the teacher \(teacher). If the first ones are the \
      same and the rest is padding, say how many are in common.
      """
    case .teacherForm(let given, let expected):
      "The teacher gives \(given), but the loss is set to \(expected). Correct the loss's setting."
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
    case .tokensDiffer(let loss, let shared, let count):
      "teacher and student have different vocabularies (\(shared) of the student's \(count) tokens "
        + "are spelled alike), which \(loss) cannot compare. Use uld, with labels if you like."
    case .badShape(let shape, let problem):
      "the student's shape \(shape) cannot be: \(problem). Correct the shape."
    case .cannotShape(let path, let problem):
      "\(path) cannot be the model for such a student: \(problem). Choose another shape or teacher."
    case .teacherNotFinite(let path):
      "the teacher \(path) gives predictions that are not finite. Its weights are damaged or overflow."

    case .cannotCombine(let first, let second, let use):
      "Vocabularies of \(first) and \(second) tokens cannot be brought together for \(use). "
        + "Choose models with one tokenizer."
    case .partialTeacher(let kept, let vocabulary, let use):
      "The teacher's cache keeps \(kept) of \(vocabulary) probabilities of a position, but \(use) "
        + "needs all of them. Name the teacher model itself, or write its cache with all."
    case .noCommonStates(let teachers):
      "The inner states of \(teachers) teachers have no mean. Leave out the losses on states, or "
        + "name one teacher."
    case .noSuchTeacher(let number, let teachers):
      "A text was given to teacher \(number) of \(teachers), which do not count that far. Correct "
        + "the domains."
    case .badState(let name, let problem):
      "The distillation's state \(name) cannot be restored: \(problem). Resume with the settings "
        + "that the state was saved with."
    }
  }
}
