import Text

/// What is put around an encoded text.
struct PostProcessor: Sendable {
  private(set) var before: [Int] = []
  private(set) var after: [Int] = []

  init() {}

  init(_ component: Component) throws(TokenizerError) {
    try apply(component)
  }

  private mutating func apply(_ component: Component) throws(TokenizerError) {
    switch try component.type() {
    case "Sequence":
      for child in try component.children("processors") { try apply(child) }
    case "ByteLevel": break  // moves offsets only
    case "TemplateProcessing": try applyTemplate(component)
    case "RobertaProcessing", "BertProcessing":
      before = [try Self.id(component, "cls")] + before
      after.append(try Self.id(component, "sep"))
    case let other: throw component.unsupported("the post-processor `\(other)`")
    }
  }

  private mutating func applyTemplate(_ component: Component) throws(TokenizerError) {
    let specialTokens = try component.child("special_tokens")
    var left: [Int] = []
    var right: [Int] = []
    var hasText = false
    for item in try component.children("single") {
      if item.has("Sequence") {
        if hasText { throw component.unsupported("a template that repeats its text") }
        hasText = true
        continue
      }
      let token = try specialTokens.child(try item.child("SpecialToken").string("id"))
      for id in try token.array("ids") {
        guard let id = id.int else { throw token.wrong("ids", "must hold integers") }
        if hasText { right.append(id) } else { left.append(id) }
      }
    }
    guard hasText else { throw component.unsupported("a template without its text") }
    before = left + before
    after += right
  }

  /// The id of `["[CLS]", 101]`.
  private static func id(_ component: Component, _ key: String) throws(TokenizerError) -> Int {
    let pair = try component.array(key)
    guard pair.count == 2, let id = pair[1].int else {
      throw component.wrong(key, "is not a token with its id")
    }
    return id
  }
}
