/// What can be wrong with a distillation's models, settings or files.
public enum DistillationError: Error, CustomStringConvertible, Sendable {
  case badSetting(String, value: String, expected: String)
  case vocabulariesDiffer(student: Int, teacher: Int)
  case teacherForm(given: String, expected: String)

  public var description: String {
    switch self {
    case .badSetting(let name, let value, let expected):
      "\(name) is \(value), which must be \(expected). Correct the setting."
    case .vocabulariesDiffer(let student, let teacher):
      """
      The student predicts \(student) tokens and the teacher \(teacher). If the first ones are the \
      same and the rest is padding, say how many are in common.
      """
    case .teacherForm(let given, let expected):
      "The teacher gives \(given), but the loss is set to \(expected). Correct the loss's setting."
    }
  }
}
