import ArgumentParser
import Checkpoints
import Models
import Recipes
import Text
import Tokenizers

struct ModelArgument: ParsableArguments {
  @Argument(
    help: "Folder of a Hugging Face checkpoint (safetensors or pytorch_model.bin), or a GGUF file.",
    completion: .file())
  var model: String

  func load() throws -> LanguageModel { try LanguageModel.load(model) }
}

struct ReportOptions: ParsableArguments {
  @Flag(help: "Print one JSON object instead of a table.")
  var json = false
}

struct GateOptions: ParsableArguments {
  @Option(
    name: .customLong("require"), parsing: .singleValue,
    help: ArgumentHelp(
      "End with exit code 3 unless a result holds, such as 'kl_mean<=0.01'. May be repeated.",
      valueName: "condition"))
  var gates: [Gate] = []
}

struct OutputOptions: ParsableArguments {
  @Option(name: .shortAndLong, help: "Folder to write.", completion: .directory)
  var output: String

  @Flag(help: "Replace an existing model folder.")
  var overwrite = false

  @Option(
    help: ArgumentHelp("Start a new file after this size: 500MB, 5GB.", valueName: "size"),
    transform: ByteSize.parse)
  var shardSize = SafetensorsWriter.defaultShardByteLimit
}

enum ByteSize {
  /// `5GB` (10⁹), `512MiB` (2²⁰), `1000`.
  @Sendable static func parse(_ text: String) throws -> Int {
    if let bytes = ByteCount.parse(text) { return bytes }
    throw ValidationError("\"\(text)\" is not a size; write it like 500MB or 5GB.")
  }
}

/// A model's tokenizer, looked for only by commands that turn text into ids or back.
enum ModelTokenizer {
  static func load(_ checkpoint: Checkpoint) throws -> Tokenizer {
    guard checkpoint.sideFiles.contains("tokenizer.json") else {
      throw CommandError.noTokenizer(model: checkpoint.path)
    }
    return try Tokenizer(
      bytes: checkpoint.readSideFile("tokenizer.json"),
      name: "\(checkpoint.folder)/tokenizer.json")
  }
}

enum CommandError: Error, CustomStringConvertible {
  case noTokenizer(model: String)
  case notNumbers(String)
  case unreadable(file: String, reason: String)
  case noBeginToken(model: String)

  var description: String {
    switch self {
    case .noTokenizer(let model):
      model.hasSuffix(".gguf")
        ? "\(model) holds no tokenizer. Convert the original model again, its tokenizer.json beside it."
        : "\(model) has no tokenizer.json. Copy it there from the original model."
    case .notNumbers(let text):
      "\"\(text)\" is not a list of token ids. Write them like 1,2,3."
    case .unreadable(let file, let reason):
      "\(file) cannot be read: \(reason). Check the path and its permissions."
    case .noBeginToken(let model):
      "\(model) names no BOS token in config.json. Leave --bos out."
    }
  }
}

enum TokenList {
  /// `1,2,3`, spaces allowed.
  static func parse(_ text: String) throws -> [Int] {
    try text.split(whereSeparator: { $0 == "," || $0.isWhitespace }).map { part in
      guard let id = Int(part) else { throw CommandError.notNumbers(String(part)) }
      return id
    }
  }
}
