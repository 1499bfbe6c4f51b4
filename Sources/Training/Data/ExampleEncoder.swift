import Text
public import Tokenizers

/// Turns documents into examples with one model's tokenizer.
///
/// A document starts with what the tokenizer's post-processor puts there, commonly BOS, and ends with
/// the end token, once. Of instructions and conversations only what the assistant says counts, unless
/// told otherwise.
public struct ExampleEncoder: Sendable {
  public let tokenizer: Tokenizer
  /// Writes conversations, and instructions as conversations of two messages. Without one,
  /// instructions are prompt and response joined, by a line break unless white space does already.
  public let template: ChatTemplate?
  /// The day that templates which name one name: fixed, so that a run resumed tomorrow reads the same
  /// tokens. Seconds since 1970.
  public var templateTime = 1_735_732_800  // 1 January 2025, noon UTC
  /// Whether of instructions and conversations only what the assistant says counts; otherwise every
  /// token does.
  public var masksPrompts = true
  /// What stands before and after a document's own tokens.
  private let before: [Int]
  private let after: [Int]
  private let endTokens: [Int]

  /// - Parameters:
  ///   - beginToken: starts documents also where the post-processor adds nothing. A model learns how
  ///     texts begin only if something comes before their first token.
  ///   - endTokens: the model's EOS, which ends documents that do not end with one of these: the
  ///     first of them.
  /// - Throws: `TokenizerError`.
  public init(
    tokenizer: Tokenizer, template: ChatTemplate? = nil, beginToken: Int? = nil, endTokens: [Int]
  ) throws {
    self.tokenizer = tokenizer
    self.template = template
    self.endTokens = endTokens
    // What the post-processor adds shows around a text whose own tokens are known. Where it adds
    // nothing, not even that text need be one the tokenizer can write.
    let text = try tokenizer.encode("").isEmpty ? "" : "a"
    let plain = try tokenizer.encode(text, addSpecialTokens: false)
    let whole = try tokenizer.encode(text)
    let start = (0...(whole.count - plain.count)).first { whole[$0...].starts(with: plain) } ?? 0
    let before = Array(whole[..<start])
    self.before = before.isEmpty ? beginToken.map { [$0] } ?? [] : before
    after = Array(whole[(start + plain.count)...])
  }

  /// - Throws: `TokenizerError`, `TemplateError`, or a sentence about the missing template.
  package func encode(_ content: DocumentContent) throws -> TrainingExample {
    switch content {
    case .text(let text, let continuesBefore, let continuesAfter):
      let start = continuesBefore ? [] : before
      var tokens = start + (try tokenizer.encode(text, addSpecialTokens: false))
      if !continuesAfter { end(&tokens) }
      let counts = tokens.indices.map { $0 >= start.count }
      return TrainingExample(tokens: tokens, counts: counts)
    case .instruction(let prompt, let response):
      if template != nil {
        return try conversation([
          ChatTemplate.message(role: "user", content: prompt),
          ChatTemplate.message(role: "assistant", content: response),
        ])
      }
      return try joined(prompt, response)
    case .chat(let messages, let tools):
      return try conversation(messages, tools: tools)
    }
  }

  private func end(_ tokens: inout [Int]) {
    tokens += after
    if let first = endTokens.first, !endTokens.contains(tokens.last ?? -1) { tokens.append(first) }
  }

  private func joined(_ prompt: [UInt8], _ response: [UInt8]) throws -> TrainingExample {
    var asked = prompt
    let touches = (prompt.last.map(LineText.isSpace) ?? true)
    if !touches, !(response.first.map(LineText.isSpace) ?? false) { asked.append(0x0A) }
    // The whole is tokenized as one text. A token that reaches over the border is a response's.
    let whole = try tokenizer.encode(asked + response, addSpecialTokens: false)
    let promptCount = common(whole, try tokenizer.encode(asked, addSpecialTokens: false))
    var tokens = before + whole
    end(&tokens)
    return TrainingExample(
      tokens: tokens,
      counts: tokens.indices.map { $0 >= before.count + (masksPrompts ? promptCount : 0) })
  }
}

// MARK: - Conversations

extension ExampleEncoder {
  /// What counts is the text that the template writes for a message of the assistant after the words
  /// that ask for it, the mark of its end included. A template that writes earlier messages
  /// otherwise once later ones follow (some leave thoughts out) makes those mere context: no model
  /// will be asked for them in that place.
  private func conversation(_ messages: [JSON], tools: [JSON]? = nil) throws -> TrainingExample {
    guard let template else { throw MissingTemplate() }
    func written(_ messages: some Sequence<JSON>, asks: Bool) throws -> [UInt8] {
      try template.render(
        Array(messages), addGenerationPrompt: asks, tools: tools, time: templateTime)
    }
    let text = try written(messages, asks: false)
    var tokens = try tokenizer.encode(text, addSpecialTokens: false)
    var counts = [Bool](repeating: !masksPrompts, count: tokens.count)
    for (index, message) in messages.enumerated() where message["role"]?.string == "assistant" {
      // Few templates can write a conversation of no messages.
      let asked = index == 0 ? [] : try written(messages[..<index], asks: true)
      let isLast = index == messages.count - 1
      let answered = isLast ? text : try written(messages[...index], asks: false)
      guard isLast || isKept(message, of: answered, after: asked, in: text) else { continue }
      let start = common(tokens, try tokenizer.encode(asked, addSpecialTokens: false))
      let end =
        isLast
        ? tokens.count : common(tokens, try tokenizer.encode(answered, addSpecialTokens: false))
      for token in start..<max(start, end) { counts[token] = true }
    }
    // Most templates write the end token themselves, often with a line break after it.
    let hasEnd = zip(tokens, counts).suffix(4).contains { endTokens.contains($0) && $1 }
    if let first = endTokens.first, !hasEnd {
      tokens.append(first)
      counts.append(true)
    }
    return TrainingExample(tokens: tokens, counts: counts)
  }

  /// Whether the whole conversation says what was said when this message was its last: all up to
  /// the end of the message's words. Some templates end a conversation with a mark of its own.
  private func isKept(
    _ message: JSON, of answered: [UInt8], after asked: [UInt8], in text: [UInt8]
  ) -> Bool {
    if text.starts(with: answered) { return text.starts(with: asked) }
    guard let content = message["content"]?.bytes else { return false }
    let words = content.drop(while: LineText.isSpace).reversed().drop(while: LineText.isSpace)
    let same = answered[..<common(answered, text)]
    return same.starts(with: asked)
      && !same[asked.count...].ranges(of: words.reversed()).isEmpty
  }

  /// How many elements two lists begin with alike.
  private func common<Element: Equatable>(_ a: [Element], _ b: [Element]) -> Int {
    zip(a, b).prefix { $0 == $1 }.count
  }
}

/// A conversation met an encoder without chat template.
struct MissingTemplate: Error, CustomStringConvertible {
  var description: String {
    "the model has no chat template to write a conversation with; name one, such as chatml"
  }
}
