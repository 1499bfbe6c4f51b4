import ArgumentParser
import Evaluation
import Foundation
import Models
import Tokenizers

/// The text of an evaluation and the protocol it is scored under.
struct TextOptions: ParsableArguments {
  @Option(name: .shortAndLong, help: "UTF-8 text to score.", completion: .file())
  var file: String

  @Option(help: "Tokens per forward pass; default: the model's context, at most 2048.")
  var window: Int?

  @Option(help: "Tokens from one window's start to the next; default: the window, no overlap.")
  var stride: Int?

  @Flag(help: "Feed the model's BOS token before every window.")
  var bos = false

  @Flag(help: "Score document by document instead of one stream.")
  var documents = false

  @Option(help: "What stands between documents, for --documents.")
  var separator = "<|endoftext|>"

  /// A text as a model reads it.
  struct Prepared {
    var documents: [[Int]]
    var bytes: Int
    var evaluation: EvaluationProtocol
  }

  func prepare(_ model: LanguageModel) throws -> Prepared {
    let tokenizer = try ModelTokenizer.load(model.checkpoint)
    let text = [UInt8](try TextFile.read(file))
    let begin = model.configuration.beginToken
    if bos, begin == nil { throw CommandError.noBeginToken(model: model.checkpoint.path) }
    let evaluation = try EvaluationProtocol(
      window: window ?? min(model.configuration.contextLength ?? 2048, 2048), stride: stride,
      beginToken: bos ? begin : nil, separatesDocuments: documents)
    let parts = documents ? text.split(separator: Array(separator.utf8)).map(Array.init) : [text]
    return Prepared(
      documents: try parts.map { try tokenizer.encode($0, addSpecialTokens: false) },
      bytes: parts.reduce(0) { $0 + $1.count }, evaluation: evaluation)
  }

  func validate() throws {
    if separator.isEmpty { throw ValidationError("--separator must not be empty.") }
  }
}

enum TextFile {
  /// The bytes of a file, or of stdin for `-`.
  static func read(_ path: String) throws -> Data {
    if path == "-" { return FileHandle.standardInput.readDataToEndOfFile() }
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { throw unreadable(path) }
    let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    do {
      return try handle.readToEnd() ?? Data()
    } catch {
      throw unreadable(path)
    }
  }

  private static func unreadable(_ path: String) -> CommandError {
    .unreadable(file: path, reason: String(cString: strerror(errno)))
  }
}
