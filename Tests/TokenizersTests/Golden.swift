import Foundation
import TestSupport
import Text

/// What Scripts/fixtures/tokenizers_golden.py recorded of Hugging Face's tokenizers.
struct Golden {
  /// One tokenizer with what it makes of the texts.
  struct Case: CustomStringConvertible, Sendable {
    let description: String
    /// The whole tokenizer.json.
    let document: JSON
    let record: JSON

    func ids(_ key: String) -> [[Int]] {
      record[key]?.array?.map { $0.array?.compactMap(\.int) ?? [] } ?? []
    }

    /// Rows of strings; `nil` where null was stored.
    func texts(_ key: String) -> [[UInt8]?] { record[key]?.array?.map(\.bytes) ?? [] }
  }

  static let models = file("models")
  static let texts: [[UInt8]] = models["texts"]?.array?.compactMap(\.bytes) ?? []

  static func cases(_ family: String) -> [Case] {
    (file(family).array ?? []).compactMap { record in
      guard var document = record["document"]?.object,
        var model = models["models"]?[record["model"]?.string ?? ""]?.object,
        let name = record["name"]?.string
      else { return nil }
      for (key, value) in zip(
        record["options"]?.object?.keys ?? [], record["options"]?.object?.values ?? [])
      {
        model[String(decoding: key, as: UTF8.self)] = value
      }
      document["model"] = .object(model)
      return Case(description: name, document: .object(document), record: record)
    }
  }

  /// A golden file; null when it cannot be read, so that the tests that count cases fail.
  static func file(_ name: String) -> JSON {
    let url = SharedFiles.packageRoot.appending(path: "Tests/Golden/tokenizers/\(name).json")
    guard let data = try? Data(contentsOf: url),
      let json = try? JSON.parse(Array(data), name: name)
    else { return .null }
    return json
  }
}

/// Bytes for a message.
func shown(_ bytes: [UInt8]?) -> String {
  bytes.map { String(decoding: $0, as: UTF8.self).debugDescription } ?? "nil"
}
