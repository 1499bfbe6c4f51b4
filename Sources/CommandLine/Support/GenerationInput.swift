import Foundation
import Text
import Tokenizers

/// A prompt, what a model wrote after it, and what others wrote there.
struct GeneratedText {
  var prompt: [UInt8] = []
  var prediction: [UInt8] = []
  var references: [[UInt8]] = []
  /// In the tokens of the model that generates; nil where the text was read from a file.
  var promptIDs: [Int]?
  var predictionIDs: [Int]?

  /// One line of `--output`, which `--predictions` reads again.
  var json: JSON {
    [
      "prompt": .string(prompt), "prediction": .string(prediction),
      "references": .array(references.map { .string($0) }),
    ]
  }
}

/// Reads texts from JSONL (names that end in `.jsonl`) or from plain files with one text a line.
enum GenerationInput {
  /// - Parameters:
  ///   - predictions: objects with `prediction`, perhaps `prompt` and `reference` or `references`;
  ///     or strings.
  ///   - references: each with one more reference for every prediction, in the same order.
  static func read(predictions: String, references: [String]) throws -> [GeneratedText] {
    var texts = try records(predictions, textKeys: ["prediction", "text"])
      .map { record in
        GeneratedText(
          prompt: record.prompt, prediction: record.text, references: record.references)
      }
    guard !texts.isEmpty else { throw InputError.empty(file: predictions) }
    for file in references { try add(references: file, to: &texts, of: predictions) }
    return texts
  }

  /// - Parameter prompts: JSONL of objects with `prompt`, perhaps `reference` or `references`.
  static func read(prompts: String) throws -> [GeneratedText] {
    let texts = try records(prompts, textKeys: ["prompt"]).map { record in
      GeneratedText(prompt: record.text, references: record.references)
    }
    guard !texts.isEmpty else { throw InputError.empty(file: prompts) }
    return texts
  }

  static func isJSONL(_ path: String) -> Bool { path.lowercased().hasSuffix(".jsonl") }

  static func add(references file: String, to texts: inout [GeneratedText], of source: String)
    throws
  {
    let found = try records(file, textKeys: ["reference", "text"])
    guard found.count == texts.count else {
      throw InputError.countsDiffer(
        file: file, count: found.count, other: source, otherCount: texts.count)
    }
    for (index, record) in found.enumerated() {
      texts[index].references += record.references.isEmpty ? [record.text] : record.references
    }
  }

  // MARK: Lines

  private struct Record {
    var text: [UInt8]
    var prompt: [UInt8] = []
    var references: [[UInt8]] = []
  }

  private static func records(_ path: String, textKeys: [String]) throws -> [Record] {
    var bytes = [UInt8](try TextFile.read(path))
    if bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
    if bytes.isEmpty { return [] }
    let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    guard isJSONL(path) else { return lines.map { Record(text: Array($0)) } }
    return try lines.enumerated().compactMap { index, line in
      if line.allSatisfy({ $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }) { return nil }
      func bad(_ reason: String) -> InputError {
        .badLine(file: path, line: index + 1, reason: reason)
      }
      guard let json = try? JSON.parse(Array(line), name: path) else { throw bad("is not JSON") }
      if let text = json.bytes { return Record(text: text) }
      let references = try self.references(json, bad)
      for key in textKeys {
        guard let value = json[key] else { continue }
        guard let text = value.bytes else { throw bad("has \(value.kind) as \"\(key)\"") }
        return Record(text: text, prompt: json["prompt"]?.bytes ?? [], references: references)
      }
      // A line of a references file may have several and nothing else.
      if textKeys.contains("reference"), !references.isEmpty {
        return Record(text: [], references: references)
      }
      throw bad("has no \"\(textKeys[0])\"")
    }
  }

  private static func references(_ json: JSON, _ bad: (String) -> InputError) throws -> [[UInt8]] {
    if let several = json["references"] {
      guard let all = several.array?.map(\.bytes), !all.contains(nil) else {
        throw bad("has \"references\" that are not a list of strings")
      }
      return all.compactMap { $0 }
    }
    guard let one = json["reference"] else { return [] }
    guard let text = one.bytes else { throw bad("has \(one.kind) as \"reference\"") }
    return [text]
  }
}

enum InputError: Error, CustomStringConvertible {
  case empty(file: String)
  case badLine(file: String, line: Int, reason: String)
  case countsDiffer(file: String, count: Int, other: String, otherCount: Int)
  case shortDocuments(file: String, tokens: Int)

  var description: String {
    switch self {
    case .empty(let file):
      "\(file) holds no text. Write one a line."
    case .badLine(let file, let line, let reason):
      "\(file), line \(line), \(reason). Write a JSON object with that text on each line."
    case .countsDiffer(let file, let count, let other, let otherCount):
      "\(file) has \(count) texts and \(other) has \(otherCount). Give both one for each line, in "
        + "the same order."
    case .shortDocuments(let file, let tokens):
      "\(file) has no document of more than \(tokens) tokens, so there is nothing to continue. "
        + "Use fewer --prompt-tokens."
    }
  }
}
