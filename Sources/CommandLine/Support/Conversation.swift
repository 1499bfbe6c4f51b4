import Foundation
import Models
import Runtime
import Text
import Tokenizers

/// A conversation with a model: its messages, and the cache of what has been run of it.
struct Conversation {
  private let template: ChatTemplate
  private let tokenizer: Tokenizer
  private var generator: Generator
  private let prefix: PrefixCache
  private let maxTokens: Int
  private let stops: [[UInt8]]

  private(set) var messages: [JSON] = []
  var system: String? {
    didSet { if let system { setSystem(system) } }
  }

  /// - Parameter stops: texts that end an answer, besides the template's own.
  init(
    model: LanguageModel, tokenizer: Tokenizer, template: ChatTemplate,
    settings: Sampler.Settings, maxTokens: Int, stops: [[UInt8]]
  ) {
    self.template = template
    self.tokenizer = tokenizer
    self.maxTokens = maxTokens
    self.stops = stops + template.stops.map { Array($0.utf8) }
    generator = Generator(model: model, settings: settings)
    generator.isCancelled = { Interruption.isRequested }
    prefix = PrefixCache(
      model, plannedLength: min(model.configuration.contextLength ?? 4096, 4096))
  }

  /// Forgets all but the system message.
  mutating func reset() { messages.removeAll { $0["role"]?.string != "system" } }

  private mutating func setSystem(_ text: String) {
    messages.removeAll { $0["role"]?.string == "system" }
    if !text.isEmpty {
      messages.insert(ChatTemplate.message(role: "system", content: Array(text.utf8)), at: 0)
    }
  }

  struct Answer {
    var result: Generator.Result
    /// Messages left out because the context is full.
    var droppedMessages: Int
  }

  /// Asks and answers. If the answer cannot begin, the conversation stays as it was.
  mutating func answer(
    _ text: String, variables: JSONObject, onText: ([UInt8]) throws -> Void
  ) throws -> Answer {
    var asked = messages + [ChatTemplate.message(role: "user", content: Array(text.utf8))]
    let count = asked.count
    let ids = try fitting(&asked, variables)
    var stream = try TextStream(tokenizer, after: ids, stops: stops)
    var result = try generator.generate(prompt: ids, maxTokens: maxTokens, prefix: prefix) {
      try onText(stream.push($0))
      return !stream.isStopped && !Interruption.isRequested
    }
    try onText(stream.finish())
    result = result.stopped(by: stream)
    messages = asked + [ChatTemplate.message(role: "assistant", content: stream.text)]
    return Answer(result: result, droppedMessages: count - asked.count)
  }

  /// The ids of the messages. Where they leave no room for an answer, the oldest exchanges go, but
  /// neither the system message nor the last question.
  private func fitting(_ messages: inout [JSON], _ variables: JSONObject) throws -> [Int] {
    let context = generator.model.configuration.contextLength ?? Int.max
    let room = min(maxTokens, context / 4)
    while true {
      let ids = try template.ids(
        messages, addGenerationPrompt: true, variables: variables, tokenizer: tokenizer)
      if ids.count <= context - room { return ids }
      let first = messages.firstIndex { $0["role"]?.string != "system" } ?? 0
      guard messages.count - first > 2 else {
        try generator.check(prompt: ids)
        return ids
      }
      messages.removeSubrange(first..<(first + 2))
    }
  }
}
