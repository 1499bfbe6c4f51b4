import Yams

/// One YAML mapping, read key by key so that what was never asked for is an error.
struct Fields {
  let what: String
  let line: Int?
  private var nodes: [String: Node] = [:]
  private var lines: [String: Int?] = [:]
  private var asked: [String] = []

  init(_ node: Node, _ what: String) throws(RecipeError) {
    guard let mapping = node.mapping else {
      throw .malformed("\(what) should be a mapping of keys to values", line: node.mark?.line)
    }
    self.what = what
    line = node.mark?.line
    for (key, value) in mapping {
      guard let name = key.string else {
        throw .malformed("a key of \(what) is not text", line: key.mark?.line)
      }
      nodes[name] = value
      lines[name] = key.mark?.line
    }
  }

  func line(of key: String) -> Int? { lines[key] ?? line }

  mutating func node(_ key: String) throws(RecipeError) -> Node? {
    asked.append(key)
    return nodes[key]
  }

  mutating func text(_ key: String) throws(RecipeError) -> String? {
    guard let node = try node(key) else { return nil }
    guard let text = node.scalar?.string else { throw bad(key, "a single value") }
    return text
  }

  mutating func integer(_ key: String) throws(RecipeError) -> Int? {
    guard let text = try text(key) else { return nil }
    guard let value = Int(text) else { throw bad(key, "an integer") }
    return value
  }

  mutating func number(_ key: String) throws(RecipeError) -> Double? {
    guard let text = try text(key) else { return nil }
    guard let value = Double(text), value.isFinite else { throw bad(key, "a number") }
    return value
  }

  mutating func flag(_ key: String) throws(RecipeError) -> Bool? {
    guard let node = try node(key) else { return nil }
    guard let value = node.bool else { throw bad(key, "true or false") }
    return value
  }

  mutating func choice<C: RawRepresentable & CaseIterable>(_ key: String) throws(RecipeError) -> C?
  where C.RawValue == String {
    guard let text = try text(key) else { return nil }
    guard let value = C(rawValue: text) else {
      throw bad(key, "one of " + C.allCases.map(\.rawValue).joined(separator: ", "))
    }
    return value
  }

  mutating func list(_ key: String) throws(RecipeError) -> [Node] {
    guard let node = try node(key) else { throw .malformed("\(what) lacks \(key)", line: line) }
    guard let sequence = node.sequence else { throw bad(key, "a list") }
    return Array(sequence)
  }

  /// One text or a list of them.
  mutating func texts(_ key: String) throws(RecipeError) -> [String]? {
    guard let node = try node(key) else { return nil }
    if let one = node.scalar?.string { return [one] }
    let texts = node.sequence?.compactMap { $0.scalar?.string }
    guard let texts, texts.count == node.sequence?.count else {
      throw bad(key, "a text or a list of them")
    }
    return texts
  }

  mutating func targets(_ key: String) throws(RecipeError) -> [Target]? {
    guard let node = try node(key) else { return nil }
    if let one = node.scalar?.string { return [Target(one, line: node.mark?.line)] }
    guard let sequence = node.sequence else { throw bad(key, "a target or a list of them") }
    var targets: [Target] = []
    for item in sequence {
      guard let text = item.scalar?.string else { throw bad(key, "a list of targets") }
      targets.append(Target(text, line: item.mark?.line))
    }
    return targets
  }

  /// - Throws: `RecipeError.unknownKey` for the first key that nothing asked for.
  func finish() throws(RecipeError) {
    let unknown = nodes.keys.filter { !asked.contains($0) }
      .min { (line(of: $0) ?? 0, $0) < (line(of: $1) ?? 0, $1) }
    if let unknown { throw .unknownKey(unknown, known: asked, line: line(of: unknown)) }
  }

  private func bad(_ key: String, _ expected: String) -> RecipeError {
    .badSetting(
      key, value: nodes[key]?.scalar?.string ?? "a structure", expected: expected,
      line: line(of: key))
  }
}
