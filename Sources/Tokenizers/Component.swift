import Text

/// One object of tokenizer.json with the place where it stands, for messages.
struct Component {
  let file: String
  let path: String
  let object: JSONObject

  init(_ json: JSON?, file: String, path: String) throws(TokenizerError) {
    self.file = file
    self.path = path
    guard let json else { throw .malformed(file: file, field: path, problem: "is missing") }
    guard case .object(let object) = json else {
      throw .malformed(file: file, field: path, problem: "is \(json.kind) instead of an object")
    }
    self.object = object
  }

  /// The component's `type`.
  func type() throws(TokenizerError) -> String { try string("type") }

  func has(_ key: String) -> Bool { object[key].map { !$0.isNull } ?? false }

  func child(_ key: String) throws(TokenizerError) -> Component {
    try Component(object[key], file: file, path: field(key))
  }

  func bytes(_ key: String) throws(TokenizerError) -> [UInt8] {
    guard let value = object[key]?.bytes else { throw wrong(key, "must be a string") }
    return value
  }

  func string(_ key: String) throws(TokenizerError) -> String {
    String(decoding: try bytes(key), as: UTF8.self)
  }

  func optionalBytes(_ key: String) throws(TokenizerError) -> [UInt8]? {
    has(key) ? try bytes(key) : nil
  }

  func bool(_ key: String, default fallback: Bool) throws(TokenizerError) -> Bool {
    guard has(key) else { return fallback }
    guard let value = object[key]?.bool else { throw wrong(key, "must be true or false") }
    return value
  }

  func int(_ key: String) throws(TokenizerError) -> Int {
    guard let value = object[key]?.int else { throw wrong(key, "must be an integer") }
    return value
  }

  func array(_ key: String) throws(TokenizerError) -> [JSON] {
    guard let value = object[key]?.array else { throw wrong(key, "must be an array") }
    return value
  }

  /// The elements of an array of objects.
  func children(_ key: String) throws(TokenizerError) -> [Component] {
    var children: [Component] = []
    for (index, json) in try array(key).enumerated() {
      children.append(try Component(json, file: file, path: "\(field(key))[\(index)]"))
    }
    return children
  }

  /// `{"Regex": "…"}` or `{"String": "…"}`.
  func pattern(_ key: String = "pattern") throws(TokenizerError) -> Pattern {
    let pattern = try child(key)
    do throws(PatternError) {
      if let source = pattern.object["Regex"]?.string { return try Pattern(source) }
      if let text = pattern.object["String"]?.string { return try Pattern(literal: text) }
    } catch {
      throw .unsupportedPattern(file: file, field: field(key), error)
    }
    throw wrong(key, "must hold `Regex` or `String`")
  }

  /// A pattern that this component implies.
  func pattern(
    _ make: () throws(PatternError) -> Pattern
  ) throws(TokenizerError) -> Pattern {
    do throws(PatternError) {
      return try make()
    } catch {
      throw .unsupportedPattern(file: file, field: path, error)
    }
  }

  func field(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

  func wrong(_ key: String, _ problem: String) -> TokenizerError {
    .malformed(file: file, field: field(key), problem: problem)
  }

  func unsupported(_ component: String) -> TokenizerError {
    .unsupported(file: file, component: component)
  }
}
