public import Text

/// How a model wants a conversation written: the template that comes with it, and the special
/// tokens that the template may name.
///
/// The rendered text is encoded with `addSpecialTokens: false`, because templates write the token
/// that starts a document themselves.
public struct ChatTemplate: Sendable {
  private let template: Template
  /// The template for conversations with tools, where the model has one of its own.
  private let toolTemplate: Template?
  private let tokens: JSONObject
  /// Texts that end an answer besides the model's end tokens.
  public let stops: [String]

  /// - Parameters:
  ///   - source: the template, UTF-8, such as `tokenizer.chat_template` of a GGUF file.
  ///   - tokens: special tokens by the names that templates use, such as `bos_token`.
  public init(
    _ source: [UInt8], toolSource: [UInt8]? = nil, tokens: JSONObject = JSONObject(),
    stops: [String] = []
  ) throws(TemplateError) {
    template = try Template(source)
    toolTemplate = try toolSource.map { (source) throws(TemplateError) in try Template(source) }
    self.tokens = tokens
    self.stops = stops
  }

  /// Writes a conversation down.
  ///
  /// - Parameters:
  ///   - messages: objects with `role`, `content` and whatever else the template reads.
  ///   - addGenerationPrompt: whether the text ends where the assistant's answer begins.
  ///   - tools: JSON schemas of functions that the model may call.
  ///   - variables: more for the template to read, such as `enable_thinking`; they come before
  ///     the special tokens.
  ///   - time: seconds since 1970 for templates that name the day; the present when nil.
  /// - Returns: UTF-8 text.
  public func render(
    _ messages: [JSON], addGenerationPrompt: Bool, tools: [JSON]? = nil,
    variables: JSONObject = JSONObject(), time: Int? = nil
  ) throws(TemplateError) -> [UInt8] {
    var all = tokens
    all["messages"] = .array(messages)
    all["tools"] = tools.map { .array($0) } ?? .null
    all["documents"] = .null
    all["add_generation_prompt"] = JSON(addGenerationPrompt)
    for (key, value) in variables { all[bytes: key] = value }
    let chosen = tools == nil ? template : toolTemplate ?? template
    return try chosen.render(all, time: time)
  }

  /// A conversation as ids.
  /// - Throws: `TemplateError`, `TokenizerError`.
  public func ids(
    _ messages: [JSON], addGenerationPrompt: Bool, tools: [JSON]? = nil,
    variables: JSONObject = JSONObject(), tokenizer: Tokenizer
  ) throws -> [Int] {
    let text = try render(
      messages, addGenerationPrompt: addGenerationPrompt, tools: tools, variables: variables)
    return try tokenizer.encode(text, addSpecialTokens: false)
  }

  /// One message of a conversation.
  public static func message(role: String, content: [UInt8]) -> JSON {
    ["role": JSON(role), "content": .string(content)]
  }
}

extension ChatTemplate {
  /// Looks where checkpoints keep their template: `chat_template.jinja`, `chat_template.json`, then
  /// `chat_template` in `tokenizer_config.json`, which is text or a list of named ones: `default`,
  /// and `tool_use` for conversations with tools.
  ///
  /// - Parameter read: the bytes of a file beside the model, nil when there is none.
  /// - Returns: nil when the model has no template.
  /// - Throws: `TemplateError`, `TokenizerError` for files that are not what they should be, and
  ///   what `read` throws.
  public static func find(reading read: (String) throws -> [UInt8]?) throws -> ChatTemplate? {
    let configuration = try json("tokenizer_config.json", read)
    let tokens = try specialTokens(configuration, try json("special_tokens_map.json", read))
    if let source = try read("chat_template.jinja") {
      return try ChatTemplate(source, tokens: tokens)
    }
    for file in ["chat_template.json", "tokenizer_config.json"] {
      let document = file == "tokenizer_config.json" ? configuration : try json(file, read)
      guard let stored = document?["chat_template"], !stored.isNull else { continue }
      let sources = try named(stored, file: file)
      guard let source = sources["default"] ?? (sources.count == 1 ? sources.first?.value : nil)
      else {
        throw TokenizerError.malformed(
          file: file, field: "chat_template", problem: "names no template \"default\"")
      }
      return try ChatTemplate(source, toolSource: sources["tool_use"], tokens: tokens)
    }
    return nil
  }

  private static func json(_ file: String, _ read: (String) throws -> [UInt8]?) throws -> JSON? {
    guard let bytes = try read(file) else { return nil }
    return try JSON.parse(bytes, name: file)
  }

  private static func named(
    _ stored: JSON, file: String
  ) throws(TokenizerError) -> [String: [UInt8]] {
    if let source = stored.bytes { return ["default": source] }
    var sources: [String: [UInt8]] = [:]
    for entry in stored.array ?? [] {
      guard let name = entry["name"]?.string, let source = entry["template"]?.bytes else {
        continue
      }
      sources[name] = source
    }
    guard !sources.isEmpty else {
      throw .malformed(
        file: file, field: "chat_template", problem: "is neither text nor a list of templates")
    }
    return sources
  }

  /// `bos_token`, `eos_token`, …, each as text or as an object with `content`.
  private static func specialTokens(_ documents: JSON?...) throws(TokenizerError) -> JSONObject {
    var tokens = JSONObject()
    for document in documents {
      for (key, value) in document?.object ?? JSONObject() {
        let name = String(decoding: key, as: UTF8.self)
        guard name.hasSuffix("_token"), tokens[name] == nil else { continue }
        if let text = value.bytes ?? value["content"]?.bytes { tokens[name] = .string(text) }
      }
    }
    return tokens
  }

  /// Templates that can be asked for by name, for models that come with none.
  public static let builtInNames = ["chatml", "plain"]

  /// - Returns: nil for an unknown name.
  public static func builtIn(_ name: String) throws(TemplateError) -> ChatTemplate? {
    switch name {
    case "chatml":
      try ChatTemplate(
        Array(
          """
          {% for message in messages -%}
          <|im_start|>{{ message.role }}
          {{ message.content }}<|im_end|>
          {% endfor -%}
          {% if add_generation_prompt -%}
          <|im_start|>assistant
          {% endif %}
          """.utf8), stops: ["<|im_end|>", "<|im_start|>"])
    case "plain":
      try ChatTemplate(
        Array(
          """
          {% for message in messages -%}
          {% if message.role == "system" -%}
          {{ message.content }}

          {% else -%}
          {{ message.role | title }}: {{ message.content }}
          {% endif -%}
          {% endfor -%}
          {% if add_generation_prompt %}Assistant:{% endif %}
          """.utf8), stops: ["\nUser:"])
    default: nil
    }
  }
}
