import Foundation
import TestSupport
import Testing
import Text
import Tokenizers
import Training

struct RecordTests {
  @Test func recordsAreReadFromTheirField() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(
        folder,
        """
        {"id": 1, "text": "one"}\r

        {"text": " "}
        {"text": "two\\nlines"}
        """, name: "data.jsonl")
      #expect(try file.texts(.records(field: "text")) == ["one", "two\nlines"])
      #expect(try file.data(.records(field: "text")).skippedDocuments == 1)
    }
  }

  @Test(arguments: [
    ("{\"text\": \"a\"}\n\n{\"text\": }", ":3: column 10: "),
    ("{\"text\": \"a\"}\n[1]", ":2: the line is an array, where one record is expected"),
    ("{\"text\": \"a\"}\n{\"body\": 1}", ":2: the record has no field \"text\""),
    ("{\"text\": 7}", ":1: the field \"text\" is a number, not a string"),
    ("{\"text\": \"a\", \"text\": \"b\"}", ":1: column 15: the key \"text\" occurs twice"),
  ])
  func badRecordsAreRefusedWithTheirLine(_ text: String, _ problem: String) throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, text, name: "data.jsonl")
      let sentence = sentence { _ = try file.data(.records(field: "text")) }
      #expect(sentence.hasPrefix(file.path + problem), "\(sentence)")
    }
  }

  /// Lines are checked by thousands at a time.
  @Test func linesAreCountedInLongFiles() throws {
    try withTemporaryDirectory { folder in
      var lines = (1...9000).map { "{\"text\": \"\($0)\"}" }
      let file = try ToyFile(folder, lines.joined(separator: "\n"), name: "good.jsonl")
      #expect(try file.texts(.records(field: "text")) == (1...9000).map { "\($0)" })
      lines[8765] = "{}"
      let bad = try ToyFile(folder, lines.joined(separator: "\n"), name: "bad.jsonl")
      let sentence = sentence { _ = try bad.data(.records(field: "text")) }
      #expect(sentence.contains("bad.jsonl:8766: the record has no field"))
    }
  }

  @Test func badMessagesAreRefusedWithTheirLine() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "{\"messages\": [{\"content\": \"a\"}]}", name: "chat.jsonl")
      let sentence = sentence { _ = try file.data(.chat(field: "messages")) }
      #expect(sentence.contains(":1: message 1 of \"messages\" has no text \"role\""))
    }
  }

  @Test(arguments: [
    ("Once", DataSource.Format.text),
    ("{\"text\": \"a\"}\n", .records(field: "text")),
    ("{\"messages\": []}", .chat(field: "messages")),
    (
      "{\"prompt\": \"\", \"completion\": \"\"}",
      .instructions(prompt: "prompt", context: nil, response: "completion")
    ),
    (
      "{\"instruction\": \"\", \"context\": \"\", \"response\": \"\"}",
      .instructions(prompt: "instruction", context: "context", response: "response")
    ),
  ])
  func formatsAreFoundInTheFile(_ text: String, _ format: DataSource.Format) throws {
    try withTemporaryDirectory { folder in
      let found = try DataSource.detect(path: ToyFile(folder, text).path)
      #expect(found.format == format)
    }
  }

  @Test func recordsWithoutAKnownFieldAreNotGuessed() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, "{\"a\": 1, \"b\": 2}", name: "data.jsonl")
      #expect(
        sentence { _ = try DataSource.detect(path: file.path) }
          == "\(file.path) has records with none of the usual fields, only a, b. "
          + "State the format and the names of its fields.")
    }
  }
}

struct ExampleTests {
  /// The text of the tokens that count, between brackets wherever some do not.
  private func marked(_ example: TrainingExample, _ tokenizer: Tokenizer) throws -> String {
    var text = ""
    var inside = false
    for (token, counts) in zip(example.tokens, example.counts) {
      if counts != inside { text += counts ? "[" : "]" }
      inside = counts
      text += String(decoding: try #require(tokenizer.token(token)), as: UTF8.self)
    }
    return text + (inside ? "]" : "")
  }

  private func example(
    _ record: String, _ format: DataSource.Format, template: ChatTemplate? = nil,
    merges: [[String]] = []
  ) throws -> String {
    try withTemporaryDirectory { folder in
      let data = try ToyFile(folder, record, name: "data.jsonl").data(format)
      let encoder = try ToyTokenizer.encoder(template: template, merges: merges)
      return try marked(encoder.encode(data.content(0)), encoder.tokenizer)
    }
  }

  private let instructions = DataSource.Format.instructions(
    prompt: "instruction", context: "context", response: "response")

  @Test func onlyResponsesCount() throws {
    #expect(
      try example("{\"instruction\": \"Add\", \"response\": \"ok\"}", instructions)
        == "<s>Add\n[ok</s>]")
    #expect(
      try example(
        "{\"instruction\": \"Add:\\n\", \"context\": \"\", \"response\": \"ok\"}", instructions)
        == "<s>Add:\n[ok</s>]")
    #expect(
      try example(
        "{\"instruction\": \"Add\", \"context\": \"1 2\", \"response\": \"\"}", instructions)
        == "<s>Add\n\n1 2\n[</s>]")
  }

  @Test func aTokenAcrossTheBorderCounts() throws {
    #expect(
      try example(
        "{\"instruction\": \"A:\", \"response\": \" ok\"}", instructions, merges: [[":", " "]])
        == "<s>A[: ok</s>]")
  }

  @Test func theEndTokenStandsOnce() throws {
    #expect(try example("{\"text\": \"a</s>\"}", .records(field: "text")) == "<s>[a</s>]")
  }

  private let conversation = """
    {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"},
     {"role": "assistant", "content": "a1"}, {"role": "user", "content": "r"},
     {"role": "assistant", "content": "a2"}, {"role": "user", "content": "bye"}]}
    """.replacing("\n", with: "")

  @Test func onlyWhatTheAssistantSaysCounts() throws {
    let template = try #require(try ChatTemplate.builtIn("chatml"))
    let text = try example(conversation, .chat(field: "messages"), template: template)
    #expect(
      text == """
        <|im_start|>system
        S<|im_end|>
        <|im_start|>user
        q<|im_end|>
        <|im_start|>assistant
        [a1<|im_end|>
        ]<|im_start|>user
        r<|im_end|>
        <|im_start|>assistant
        [a2<|im_end|>
        </s>]
        """)
  }

  @Test func aTemplatesOwnEndIsNotRepeated() throws {
    let template = try ChatTemplate(
      Array(
        """
        {{ bos_token }}{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\
        {% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\\n{% endfor %}\
        {% if add_generation_prompt %}a:{% endif %}
        """.replacing("\\n", with: "{{ '\\n' }}").utf8),
      tokens: JSONObject([("bos_token", "<s>"), ("eos_token", "</s>")]))
    let text = try example(conversation, .chat(field: "messages"), template: template)
    #expect(text == "<s>s:S\nu:q\na:[a1</s>\n]u:r\na:[a2</s>\n]")
  }

  /// Some templates leave the thoughts of earlier answers out.
  @Test func answersThatATemplateRewritesAreContext() throws {
    let template = try ChatTemplate(
      Array(
        """
        {% for m in messages %}{{ m.role[0] }}:\
        {{ '(thought)' if loop.last and m.role == 'assistant' else '' }}{{ m.content }};\
        {% endfor %}{% if add_generation_prompt %}a:{% endif %}
        """.utf8))
    let text = try example(conversation, .chat(field: "messages"), template: template)
    #expect(text == "s:S;u:q;a:a1;u:r;a:[(thought)a2;</s>]")
  }

  private static let templates = SharedFiles.packageRoot.appending(path: "Tests/Golden/chat")

  /// Templates in the manner of the well-known ones, each with its own marks.
  @Test(arguments: [
    "chatml", "deepseek", "gemma", "llama3", "mistral1", "mistral3", "phi3", "phi4", "qwen25",
    "qwen3", "smollm",
  ])
  func everyTemplateShowsWhatTheAssistantSays(_ name: String) throws {
    let source = try Data(contentsOf: Self.templates.appending(path: "\(name).jinja"))
    let template = try ChatTemplate(
      Array(source), tokens: JSONObject([("bos_token", "<s>"), ("eos_token", "</s>")]))
    let text = try example(
      """
      {"messages": [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"},\
       {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]}
      """, .chat(field: "messages"), template: template)
    let said = text.matches(of: /\[([^\[\]]*a\d[^\[\]]*)\]/).map(\.1)
    // Thoughts, which the last answer has, are gone from the first.
    #expect(said.count == (name == "qwen3" ? 1 : 2), "\(text)")
    for answer in said {
      let mark = try #require(answer.firstMatch(of: /a\d\n?(<[^<>]+>)/), "\(text)")
      #expect(mark.1 != "<|user|>" && !answer.contains(/q\d|user|assistant/), "\(text)")
    }
  }

  @Test func conversationsNeedATemplate() throws {
    try withTemporaryDirectory { folder in
      let file = try ToyFile(folder, conversation, name: "chat.jsonl")
      var stream = try TrainingStream(
        file.data(.chat(field: "messages")), encoder: ToyTokenizer.encoder(),
        options: .init(rows: 1, length: 8))
      #expect(sentence { _ = try stream.next() }.contains("chat.jsonl:1: the model has no chat"))
    }
  }
}
