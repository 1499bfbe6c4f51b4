import ArgumentParser
import Checkpoints
import Foundation
import Models
import Text
import Tokenizers

struct Tokenize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Turn text into token ids, or ids into text.",
    discussion: """
      Examples:
        pare tokenize models/SmolLM2-135M --text "Hello, world"
        pare tokenize models/SmolLM2-135M --file story.txt --json
        pare tokenize models/SmolLM2-135M --decode 9906,11,1917

      JSON keys: ids, tokens (how many), text with --decode.
      """)

  @Argument(help: "Folder with a tokenizer.json, the file itself, or a GGUF file.")
  var model: String

  @Option(help: "Text to encode.")
  var text: String?

  @Option(help: "File to encode; - reads stdin.", completion: .file())
  var file: String?

  @Option(help: "Comma-separated ids to decode.")
  var decode: String?

  @Flag(inversion: .prefixedNo, help: "Add the tokens that the tokenizer puts around a text.")
  var specialTokens = true

  @OptionGroup var report: ReportOptions

  func validate() throws {
    guard [text, file, decode].compactMap({ $0 }).count == 1 else {
      throw ValidationError("Give exactly one of --text, --file and --decode.")
    }
  }

  func run() throws {
    let tokenizer = try loadTokenizer()
    if let decode {
      let ids = try TokenList.parse(decode)
      let text = try tokenizer.decode(ids, skipSpecialTokens: !specialTokens)
      if report.json {
        try Console.print(
          ["ids": .array(ids.map { JSON($0) }), "tokens": JSON(ids.count), "text": .string(text)])
      } else {
        try Console.write(text + [10])
      }
      return
    }
    let bytes = try file.map { [UInt8](try TextFile.read($0)) } ?? Array((text ?? "").utf8)
    let ids = try tokenizer.encode(bytes, addSpecialTokens: specialTokens)
    if report.json {
      try Console.print(["ids": .array(ids.map { JSON($0) }), "tokens": JSON(ids.count)])
    } else {
      try Console.print(ids.map(String.init).joined(separator: ","))
    }
  }

  /// A tokenizer needs no weights beside it.
  private func loadTokenizer() throws -> Tokenizer {
    var isFolder: ObjCBool = false
    _ = FileManager.default.fileExists(atPath: model, isDirectory: &isFolder)
    if model.hasSuffix(".gguf") { return try ModelTokenizer.load(Checkpoint.openModel(model)) }
    return try Tokenizer(path: isFolder.boolValue ? "\(model)/tokenizer.json" : model)
  }
}
