import Text
public import Tokenizers

/// Turns documents into examples with one model's tokenizer.
///
/// A document starts with what the tokenizer's post-processor puts there, commonly BOS, and ends with
/// the end token, once. Of instructions and conversations only what the assistant says counts.
public struct ExampleEncoder: Sendable {
  public let tokenizer: Tokenizer
  /// Writes conversations, and instructions as conversations of two messages. Without one,
  /// instructions are prompt and response joined, by a line break unless white space does already.
  public let template: ChatTemplate?
  /// What stands before and after a document's own tokens.
  private let before: [Int]
  private let after: [Int]
  private let endToken: Int?

  /// - Parameters:
  ///   - beginToken: starts documents also where the post-processor adds nothing. A model learns how
  ///     texts begin only if something comes before their first token.
  ///   - endToken: the model's EOS.
  /// - Throws: `TokenizerError`.
  public init(
    tokenizer: Tokenizer, template: ChatTemplate? = nil, beginToken: Int? = nil, endToken: Int?
  ) throws {
    self.tokenizer = tokenizer
    self.template = template
    self.endToken = endToken
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
    if let endToken, tokens.last != endToken { tokens.append(endToken) }
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
      tokens: tokens, counts: tokens.indices.map { $0 >= before.count + promptCount })
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
    let text = try template.render(messages, addGenerationPrompt: false, tools: tools)
    var tokens = try tokenizer.encode(text, addSpecialTokens: false)
    var counts = [Bool](repeating: false, count: tokens.count)
    for (index, message) in messages.enumerated() where message["role"]?.string == "assistant" {
      let asked = try template.render(
        Array(messages[..<index]), addGenerationPrompt: true, tools: tools)
      let isLast = index == messages.count - 1
      let answered =
        isLast
        ? text
        : try template.render(
          Array(messages[...index]), addGenerationPrompt: false, tools: tools)
      guard isLast || (text.starts(with: asked) && text.starts(with: answered)) else { continue }
      let start = common(tokens, try tokenizer.encode(asked, addSpecialTokens: false))
      let end =
        isLast
        ? tokens.count : common(tokens, try tokenizer.encode(answered, addSpecialTokens: false))
      for token in start..<max(start, end) { counts[token] = true }
    }
    // Most templates write the end token themselves, often with a line break after it.
    if let endToken, !zip(tokens, counts).suffix(4).contains(where: { $0 == endToken && $1 }) {
      tokens.append(endToken)
      counts.append(true)
    }
    return TrainingExample(tokens: tokens, counts: counts)
  }

  /// How many tokens two texts begin with alike.
  private func common(_ a: [Int], _ b: [Int]) -> Int {
    zip(a, b).prefix { $0 == $1 }.count
  }
}

/// A conversation met an encoder without chat template.
struct MissingTemplate: Error, CustomStringConvertible {
  var description: String {
    "the model has no chat template to write a conversation with; name one, such as chatml"
  }
}
