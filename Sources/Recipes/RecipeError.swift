/// What can be wrong with a recipe, by itself or against a model.
public enum RecipeError: Error, CustomStringConvertible, Sendable, Equatable {
  case unreadable(path: String, reason: String)
  case malformed(String, line: Int?)
  case unknownKey(String, known: [String], line: Int?)
  case badSetting(String, value: String, expected: String, line: Int?)
  case contradiction(String, line: Int?)
  case badPattern(String, reason: String, line: Int?)
  case unknownPreset(String, known: [String])
  case noMatch(target: String, model: String, line: Int?)
  case matchedTwice(tensor: String, first: String, second: String, line: Int?)
  case alreadyQuantized(tensor: String, path: String)
  case blocksOutOfRange(String, count: Int, line: Int?)
  case cannotQuantize(tensor: String, reason: String, line: Int?)
  case badTensor(String, path: String, reason: String)
  case verificationFailed(tensor: String)
  case defaultModelMissing(lookedIn: String)

  public var description: String {
    switch self {
    case .unreadable(let path, let reason):
      "recipe \(path) cannot be read: \(reason). Give a YAML file or the name of a preset."
    case .malformed(let reason, let line):
      "\(Self.place(line)): \(reason). See the recipe example in `pare compress --help`."
    case .unknownKey(let key, let known, let line):
      "\(Self.place(line)): unknown key \"\(key)\". Known here: \(known.joined(separator: ", "))."
    case .badSetting(let key, let value, let expected, let line):
      "\(Self.place(line)): \(key) is \(value). Set it to \(expected)."
    case .contradiction(let reason, let line):
      "\(Self.place(line)): \(reason)."
    case .badPattern(let pattern, let reason, let line):
      "\(Self.place(line)): the pattern \(pattern) cannot be used: \(reason). "
        + "Write it with plain classes and quantifiers, or as a glob."
    case .unknownPreset(let name, let known):
      "\"\(name)\" is neither a file nor a preset. Presets: \(known.joined(separator: ", "))."
    case .noMatch(let target, let model, let line):
      "\(Self.place(line)): the target \"\(target)\" matches nothing in \(model). "
        + "`pare inspect` lists roles and names."
    case .matchedTwice(let tensor, let first, let second, let line):
      "\(Self.place(line)): \(tensor) is matched by two stages (\(first); \(second)). "
        + "Add it to the ignore list of one."
    case .alreadyQuantized(let tensor, let path):
      "\(path): \(tensor) is already quantized. Start from the uncompressed checkpoint."
    case .blocksOutOfRange(let blocks, let count, let line):
      "\(Self.place(line)): blocks \(blocks) do not exist; the model has blocks 0-\(count - 1)."
    case .cannotQuantize(let tensor, let reason, let line):
      "\(Self.place(line)): \(tensor) cannot be quantized: \(reason). Add it to the ignore list."
    case .badTensor(let tensor, let path, let reason):
      "\(path): \(tensor) cannot be quantized: \(reason)"
    case .verificationFailed(let tensor):
      "the written model, read back, differs from the one in memory at \(tensor). "
        + "Nothing was kept; check the disk and try again."
    case .defaultModelMissing(let folder):
      "the model that comes with Pare is not in \(folder). "
        + "Keep Pare_Recipes.resources beside the program, as `make install` does."
    }
  }

  private static func place(_ line: Int?) -> String {
    line.map { "recipe line \($0)" } ?? "recipe"
  }
}
