import Checkpoints
import Foundation
import Models
import Tensors
import TestSupport
import Text

/// A tiny random checkpoint and what transformers computes from it (Scripts/fixtures/architectures.py).
struct GoldenModel: CustomStringConvertible, Sendable {
  let name: String
  var description: String { name }
  var folder: String { Self.root.appending(path: name).path }

  static let root = SharedFiles.packageRoot.appending(path: "Tests/Golden/architectures")
  static let all: [GoldenModel] = {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
    return names.filter { !$0.hasPrefix(".") }.sorted().map { GoldenModel(name: $0) }
  }()

  struct Prompt {
    var tokens: [Int]
    /// `[tokens, vocabulary]`
    var logits: [Float]
  }

  func golden() throws -> (prompts: [Prompt], greedy: [Int]?) {
    let file = try Checkpoint.open("\(folder)/golden.safetensors")
    func ids(_ name: String) throws -> [Int] {
      try file.tensor(name).bytes.bindMemory(to: Int32.self).map(Int.init)
    }
    let prompts = try (0..<2).map { index in
      let logits = try file.tensor("logits_\(index)")
      return Prompt(
        tokens: try ids("tokens_\(index)"),
        logits: Array(UnsafeBufferPointer(start: logits.floats, count: logits.count)))
    }
    return (prompts, file.contains("greedy") ? try ids("greedy") : nil)
  }

  /// Changes of config.json that must each break the comparison.
  func mutations() throws -> [(path: [String], value: JSON)] {
    let json = try JSON.parse(
      [UInt8](Data(contentsOf: URL(filePath: "\(folder)/mutations.json"))), name: "mutations.json")
    return (json.array ?? []).map { mutation in
      (mutation["path"]?.array?.compactMap(\.string) ?? [], mutation["value"] ?? .null)
    }
  }

  /// The checkpoint with another config.json.
  func withConfig<R>(_ config: JSON, _ body: (String) throws -> R) throws -> R {
    try withTemporaryDirectory { copy in
      for file in ["model.safetensors", "pytorch_model.bin"]
      where FileManager.default.fileExists(atPath: "\(folder)/\(file)") {
        try FileManager.default.createSymbolicLink(
          atPath: "\(copy)/\(file)", withDestinationPath: "\(folder)/\(file)")
      }
      try Data(config.serialized()).write(to: URL(filePath: "\(copy)/config.json"))
      return try body(copy)
    }
  }

  func config(_ name: String = "config.json") throws -> JSON {
    try JSON.parse([UInt8](Data(contentsOf: URL(filePath: "\(folder)/\(name)"))), name: name)
  }

  var hasOldSpelling: Bool {
    FileManager.default.fileExists(atPath: "\(folder)/config-4.json")
  }
}

/// Largest difference over the golden logits' standard deviation, and whether every row's largest
/// logit is at the same token.
func compare(_ model: LanguageModel, _ prompt: GoldenModel.Prompt) throws -> (
  error: Float, sameTop: Bool
) {
  let columns = model.configuration.vocabularySize
  var error: Float = 0
  var sameTop = true
  try model.forEachLogits(of: prompt.tokens) { start, logits in
    for row in 0..<logits.rows {
      let ours = UnsafeBufferPointer(start: logits.floats + row * columns, count: columns)
      let theirs = prompt.logits[((start + row) * columns)..<((start + row + 1) * columns)]
      for (a, b) in zip(ours, theirs) { error = max(error, a.isFinite ? abs(a - b) : .infinity) }
      let top = ours.indices.max { ours[$0] < ours[$1] }
      sameTop =
        sameTop
        && top
          == theirs.indices.max { theirs[$0] < theirs[$1] }.map {
            $0 - theirs.startIndex
          }
    }
  }
  let mean = prompt.logits.reduce(0, +) / Float(prompt.logits.count)
  let squares = prompt.logits.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
  return (error / (squares / Float(prompt.logits.count)).squareRoot(), sameTop)
}

extension JSON {
  /// A copy with one value replaced, which may be new.
  func replacing(_ path: [String], with value: JSON) -> JSON {
    guard let key = path.first, var fields = object else { return value }
    fields[key] = (fields[key] ?? .object(JSONObject())).replacing(
      Array(path.dropFirst()), with: value)
    return .object(fields)
  }
}
