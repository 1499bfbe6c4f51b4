import Tensors
import Text

/// A file of training documents and how to read it.
public struct DataSource: Sendable, Equatable {
  public var path: String
  public var format: Format
  /// How often an epoch goes through the file.
  public var repeats: Int

  public enum Format: Sendable, Equatable {
    /// Plain text whose documents end with a separator; without any the file is one document.
    /// White space around a document is no part of it. A line break of the separator may be CRLF.
    case text(separator: String)
    /// JSON Lines with the document in one field.
    case records(field: String)
    /// JSON Lines with a prompt and the response to learn. A context, where there is one, belongs
    /// to the prompt.
    case instructions(prompt: String, context: String?, response: String)
    /// JSON Lines with a conversation: objects with `role` and `content`.
    case chat(field: String)

    public static let text = Format.text(separator: "<|endoftext|>")

    /// One line that tells formats apart, for the identity of a run.
    package var name: String {
      switch self {
      case .text(let separator): "text \(separator)"
      case .records(let field): "records \(field)"
      case .instructions(let prompt, let context, let response):
        "instructions \(prompt) \(context ?? "") \(response)"
      case .chat(let field): "chat \(field)"
      }
    }
  }

  public init(path: String, format: Format, repeats: Int = 1) {
    self.path = path
    self.format = format
    self.repeats = repeats
  }

  /// Finds the format in the file itself: a first line that is a JSON object means JSON Lines, and
  /// its field names say which; all else is text.
  /// - Throws: `TrainingError` when the file cannot be read or its records have no known field.
  public static func detect(path: String, repeats: Int = 1) throws(TrainingError) -> DataSource {
    let file: MappedFile
    do throws(MappingError) {
      file = try MappedFile(path: path)
    } catch {
      throw .unreadableData(file: path, reason: error.reason)
    }
    let head = file.bytes.prefix(1 << 24).drop { LineText.isSpace($0) || $0 >= 0xBB }
    guard head.first == UInt8(ascii: "{") || isJSONName(path) else {
      return DataSource(path: path, format: .text, repeats: repeats)
    }
    let line = Array(head.prefix { $0 != UInt8(ascii: "\n") })
    let record: JSON
    do throws(JSONError) {
      record = try JSON.parse(line, name: path)
    } catch {
      if !isJSONName(path) { return DataSource(path: path, format: .text, repeats: repeats) }
      throw .badRecord(file: path, line: 1, problem: RecordReader.problem(error))
    }
    return DataSource(path: path, format: try format(of: record, path), repeats: repeats)
  }

  private static func isJSONName(_ path: String) -> Bool {
    [".jsonl", ".ndjson", ".json"].contains { path.hasSuffix($0) }
  }

  private static func format(of record: JSON, _ path: String) throws(TrainingError) -> Format {
    func first(_ names: [String]) -> String? { names.first { record[$0] != nil } }
    if record["messages"]?.array != nil { return .chat(field: "messages") }
    if let prompt = first(["prompt", "instruction", "question"]),
      let response = first(["response", "completion", "output", "answer"])
    {
      return .instructions(
        prompt: prompt, context: first(["context", "input"]), response: response)
    }
    if record["text"] != nil { return .records(field: "text") }
    guard let members = record.object else {
      throw .badRecord(
        file: path, line: 1, problem: "the line is \(record.kind), where one record is expected")
    }
    throw .unknownDataFormat(
      file: path,
      problem: "has records with none of the usual fields, only "
        + members.keyStrings.prefix(8).joined(separator: ", "))
  }
}
