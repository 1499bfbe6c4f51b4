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
    }
  }
}
