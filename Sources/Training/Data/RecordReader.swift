package import Text

/// What a document says, before any tokenizer has seen it.
package enum DocumentContent: Sendable, Equatable {
  /// UTF-8; a part of a long document has its neighbours at `continuesBefore` or `continuesAfter`.
  case text([UInt8], continuesBefore: Bool = false, continuesAfter: Bool = false)
  case instruction(prompt: [UInt8], response: [UInt8])
  /// Messages up to the last of the assistant, and tools that the template is told of.
  case chat([JSON], tools: [JSON]?)
}

/// Reads one line of a JSON Lines file.
struct RecordReader {
  let file: String
  let format: DataSource.Format

  /// - Returns: nil for a record without text: an empty document, an instruction without prompt
  ///   and response, a conversation in which the assistant says nothing.
  func content(
    _ line: UnsafeRawBufferPointer, number: () -> Int
  ) throws(TrainingError) -> DocumentContent? {
    let record: JSON
    do throws(JSONError) {
      record = try JSON.parse(line, name: file)
    } catch {
      throw bad(number(), Self.problem(error))
    }
    guard record.object != nil else {
      throw bad(number(), "the line is \(record.kind), where one record is expected")
    }
    switch format {
    case .text: return nil
    case .records(let field):
      let text = try text(record, field, number)
      return text.allSatisfy(LineText.isSpace) ? nil : .text(text)
    case .instructions(let promptField, let contextField, let responseField):
      var prompt = try text(record, promptField, number)
      let response = try text(record, responseField, number)
      if let contextField, let member = record[contextField], !member.isNull {
        let context = try text(record, contextField, number)
        if !context.isEmpty { prompt += Array("\n\n".utf8) + context }
      }
      return prompt.isEmpty && response.isEmpty
        ? nil : .instruction(prompt: prompt, response: response)
    case .chat(let field):
      return try conversation(record, field, number)
    }
  }

  private func conversation(
    _ record: JSON, _ field: String, _ number: () -> Int
  ) throws(TrainingError) -> DocumentContent? {
    guard let messages = record[field]?.array else {
      throw bad(number(), "the record has no list \"\(field)\"")
    }
    for (index, message) in messages.enumerated() where message["role"]?.bytes == nil {
      throw bad(number(), "message \(index + 1) of \"\(field)\" has no text \"role\"")
    }
    guard let last = messages.lastIndex(where: { $0["role"]?.string == "assistant" }) else {
      return nil
    }
    return .chat(Array(messages[...last]), tools: record["tools"]?.array)
  }

  private func text(
    _ record: JSON, _ field: String, _ number: () -> Int
  ) throws(TrainingError) -> [UInt8] {
    guard let member = record[field] else {
      throw bad(number(), "the record has no field \"\(field)\"")
    }
    guard let bytes = member.bytes else {
      throw bad(number(), "the field \"\(field)\" is \(member.kind), not a string")
    }
    return bytes
  }

  private func bad(_ line: Int, _ problem: String) -> TrainingError {
    .badRecord(file: file, line: line, problem: problem)
  }

  /// What is wrong with a line; its number is told apart.
  static func problem(_ error: JSONError) -> String {
    switch error {
    case .malformed(_, _, let column, let problem): "column \(column): \(problem)"
    case .duplicateKey(_, _, let column, let key):
      "column \(column): the key \"\(key)\" occurs twice in one object"
    }
  }
}
