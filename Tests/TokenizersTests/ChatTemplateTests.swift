import Foundation
import TestSupport
import Testing
import Text
import Tokenizers

/// What Scripts/fixtures/chat_templates.py recorded of jinja2 as transformers sets it up.
private enum GoldenChat {
  static let folder = SharedFiles.packageRoot.appending(path: "Tests/Golden/chat")
  static let file: JSON = {
    guard let data = try? Data(contentsOf: folder.appending(path: "golden.json")),
      let json = try? JSON.parse(Array(data), name: "golden.json")
    else { return .null }
    return json
  }()
  static let snippets = file["snippets"]?.array ?? []
  static let context = file["context"]?.object ?? JSONObject()
  static let chats = file["chats"]?.array ?? []
  static let templates = Array(Set(chats.compactMap { $0["template"]?.string })).sorted()
  static let time = file["time"]?.int
}

private func rendered(_ source: [UInt8], _ variables: JSONObject) throws(TemplateError) -> String {
  String(
    decoding: try Template(source).render(variables, time: GoldenChat.time, workLimit: 300_000),
    as: UTF8.self)
}

private func rendered(_ source: String) throws(TemplateError) -> String {
  try rendered(Array(source.utf8), GoldenChat.context)
}

private func error(_ source: String) -> TemplateError? {
  do throws(TemplateError) {
    _ = try rendered(source)
    return nil
  } catch {
    return error
  }
}

/// Where this package means to differ: more lenient, or refusing what no chat template needs.
private let knownDifferences = [
  "{{ d.items }}": "methods have another name in print", "{{ d.get }}": "as above",
  "{{ d.items() }}": "a view prints as the list it shows",
  "{{ '%d' % 3 }}": "text is not formatted by %",
]

@Test func snippetsRenderAsJinjaRendersThem() throws {
  #expect(GoldenChat.snippets.count > 500)
  for snippet in GoldenChat.snippets {
    let source = try #require(snippet["source"]?.bytes)
    let name = String(decoding: source, as: UTF8.self)
    if knownDifferences[name] != nil { continue }
    do throws(TemplateError) {
      let text = try rendered(source, GoldenChat.context)
      let expected = snippet["text"]?.bytes
      #expect(
        Array(text.utf8) == expected,
        "\(name.debugDescription): \(text.debugDescription), not \(snippet["text"]?.string?.debugDescription ?? "error \(snippet["message"]?.string ?? "")")"
      )
    } catch {
      #expect(snippet["error"] != nil, "\(name.debugDescription): \(error)")
      switch (snippet["error"]?.string, error) {
      case ("refused", .refused(_, let message)): #expect(message == snippet["message"]?.string)
      case ("refused", _): Issue.record("\(name): \(error)")
      case ("forbidden", .forbidden), ("undefined", .undefined): break
      case ("forbidden", _), ("undefined", _): Issue.record("\(name): \(error)")
      default: break
      }
    }
  }
}

@Test(arguments: GoldenChat.templates)
func conversationsRenderAsTransformersRendersThem(template: String) throws {
  let source = try Array(Data(contentsOf: GoldenChat.folder.appending(path: template)))
  let chat = try ChatTemplate(source, tokens: GoldenChat.file["tokens"]?.object ?? JSONObject())
  var compared = 0
  for golden in GoldenChat.chats where golden["template"]?.string == template {
    let name = golden["messages"]?.string ?? ""
    let messages = try #require(GoldenChat.file["conversations"]?[name]?.array)
    do throws(TemplateError) {
      let text = try chat.render(
        messages, addGenerationPrompt: golden["add_generation_prompt"]?.bool == true,
        tools: golden["tools"] == nil ? nil : GoldenChat.file["tools"]?.array,
        variables: golden["variables"]?.object ?? JSONObject(), time: GoldenChat.time)
      let shown = String(decoding: text, as: UTF8.self)
      #expect(
        text == golden["text"]?.bytes,
        "\(name): \(shown.debugDescription)\n not \(golden["text"]?.string?.debugDescription ?? "an error: \(golden["message"]?.string ?? "")")"
      )
    } catch {
      #expect(golden["error"] != nil, "\(name): \(error)")
      if case .refused(_, let message) = error { #expect(message == golden["message"]?.string) }
    }
    compared += 1
  }
  #expect(compared == 33)
}

@Test func errorsKnowTheirLine() throws {
  #expect(error("a\n\n{{ 1 + 'a' }}")?.description.contains("line 3") == true)
  #expect(
    error("{% if yes %}\n{# c\n #}{{ missing.x }}{% endif %}")?.description.contains("line 3")
      == true)
  #expect(error("\n{{ a b }}")?.description.contains("line 2") == true)
  #expect(
    error("\n\n{% include 'x' %}") == .unsupported(line: 3, feature: "the statement \"include\""))
  #expect(
    error("{{ 1 | pineapple }}") == .unsupported(line: 1, feature: "the filter \"pineapple\""))
}

@Test(arguments: [
  "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
  "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
  "{% set ns = namespace(s=[1]) %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
  "{{ 'a' * 1000000000000 }}", "{{ [1] * 1000000000000 }}", "{{ 'a' | indent(1000000000000) }}",
  "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
  "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}",
  "{% set ns = namespace(x={}) %}{% for i in range(1000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
  "{{ range(100001) }}",
])
func runawayTemplatesEndInAnError(source: String) {
  guard case .limitExceeded? = error(source) else {
    Issue.record("\(source): \(error(source).map { "\($0)" } ?? "no error")")
    return
  }
}

@Test func nestingBeyondReasonIsRefused() {
  let deep = [
    String(repeating: "(", count: 5000) + "1" + String(repeating: ")", count: 5000),
    String(repeating: "[", count: 5000) + "1" + String(repeating: "]", count: 5000),
    String(repeating: "not ", count: 5000) + "1", String(repeating: "-", count: 5000) + "1",
    Array(repeating: "1", count: 5000).joined(separator: " + "),
    "n" + String(repeating: ".x", count: 5000), "n" + String(repeating: "|abs", count: 5000),
    String(repeating: "1 if 1 else ", count: 5000) + "1",
  ]
  for expression in deep {
    guard case .syntax? = error("{{ \(expression) }}") else {
      Issue.record("\(expression.prefix(20)) …")
      continue
    }
  }
  let blocks = String(repeating: "{% if 1 %}", count: 5000)
  #expect(error(blocks + String(repeating: "{% endif %}", count: 5000)) != nil)
  // A flat chain of many parts is not nested.
  #expect(error("{{ \(Array(repeating: "n", count: 5000).joined(separator: " ~ ")) }}") == nil)
}

@Test func nothingButPlainDataCanBeStored() {
  for source in [
    "{% set ns = namespace() %}{% set ns.x = ns %}", "{% macro m() %}{% endmacro %}{{ [m] }}",
    "{% set ns = namespace() %}{% set ns.x = namespace(a=1) %}",
    "{% for i in [1] %}{{ {'a': loop} }}{% endfor %}",
  ] {
    guard case .forbidden? = error(source) else {
      Issue.record("\(source)")
      continue
    }
  }
}

@Test func damagedTemplatesFailWithoutACrash() throws {
  var random = SystemRandomNumberGenerator()
  let sources = try GoldenChat.templates.map {
    try Array(Data(contentsOf: GoldenChat.folder.appending(path: $0)))
  }
  let conversations = GoldenChat.file["conversations"]?.object ?? JSONObject()
  for _ in 0..<(longTestsAreOn ? 50_000 : 400) {
    var source = sources.randomElement(using: &random) ?? []
    for _ in 0..<Int.random(in: 1...4, using: &random) where !source.isEmpty {
      let place = Int.random(in: 0..<source.count, using: &random)
      switch Int.random(in: 0..<3, using: &random) {
      case 0: source.remove(at: place)
      case 1: source[place] = UInt8.random(in: 0...255, using: &random)
      default:
        let length = min(Int.random(in: 0..<40, using: &random), source.count - place)
        source.insert(contentsOf: source[place..<(place + length)], at: place)
      }
    }
    for (_, messages) in conversations.shuffled(using: &random).prefix(2) {
      do {
        _ = try ChatTemplate(source).render(
          messages.array ?? [], addGenerationPrompt: true, tools: GoldenChat.file["tools"]?.array)
      } catch {
        // Every failure is a typed error, by its signature; reaching this line is the claim.
      }
    }
  }
}

@Test func templatesAreFoundWhereCheckpointsKeepThem() throws {
  func text(_ files: [String: String], tools: [JSON]? = nil) throws -> String? {
    let chat = try ChatTemplate.find { files[$0].map { Array($0.utf8) } }
    return try chat.map {
      String(
        decoding: try $0.render(
          [ChatTemplate.message(role: "user", content: Array("hi".utf8))],
          addGenerationPrompt: true, tools: tools), as: UTF8.self)
    }
  }
  let configuration = """
    {"bos_token": {"content": "<b>"}, "eos_token": "<e>",
     "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}
    """
  #expect(try text([:]) == nil)
  #expect(try text(["tokenizer_config.json": "{\"chat_template\": null}"]) == nil)
  #expect(try text(["tokenizer_config.json": configuration]) == "<b>hi<e>")
  let file = "{{ eos_token }}{{ messages | length }}"
  #expect(
    try text(["tokenizer_config.json": configuration, "chat_template.jinja": file]) == "<e>1")
  #expect(
    try text(["chat_template.json": "{\"chat_template\": \"{{ messages[0].role }}\"}"]) == "user")
  let named = """
    {"chat_template": [{"name": "default", "template": "plain"},
                       {"name": "tool_use", "template": "{{ tools | length }} tools"}]}
    """
  #expect(try text(["tokenizer_config.json": named]) == "plain")
  #expect(try text(["tokenizer_config.json": named], tools: [1, 2]) == "2 tools")
  #expect(throws: TokenizerError.self) {
    try text(["tokenizer_config.json": "{\"chat_template\": [3]}"])
  }
  #expect(throws: TemplateError.self) {
    try text(["tokenizer_config.json": "{\"chat_template\": \"{% if %}\"}"])
  }
}

@Test func builtInTemplatesNeedNothingOfTheModel() throws {
  let messages = [
    ChatTemplate.message(role: "system", content: Array("S".utf8)),
    ChatTemplate.message(role: "user", content: Array("U".utf8)),
  ]
  func text(_ name: String) throws -> String {
    let chat = try #require(try ChatTemplate.builtIn(name))
    return String(decoding: try chat.render(messages, addGenerationPrompt: true), as: UTF8.self)
  }
  #expect(
    try text("chatml")
      == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n")
  #expect(try text("plain") == "S\n\nUser: U\nAssistant:")
  #expect(try ChatTemplate.builtIn("nonsense") == nil)
}
