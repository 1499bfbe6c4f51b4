/// What can be wrong with a distillation's models, settings or files.
public enum DistillationError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)

  // Samples and several teachers.
  case vocabulariesDiffer(Int, Int, use: String)
  case partialTeacher(kept: Int, vocabulary: Int, use: String)
  case noCommonStates(teachers: Int)
  case noSuchTeacher(Int, teachers: Int)
  case badState(String, problem: String)

  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."

    case .vocabulariesDiffer(let first, let second, let use):
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
