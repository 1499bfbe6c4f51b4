import ArgumentParser
import Checkpoints
import Foundation
import Models
import Runtime
import Text
import Tokenizers

struct Chat: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Talk with a model.",
    discussion: """
      Examples:
        pare chat MODEL
        pare chat MODEL --system "You are brief." --temperature 0 --max-tokens 200
        pare chat MODEL --template chatml --stop "User:"
        printf 'Hello\\nAnd now?\\n' | pare chat MODEL

      The model's own chat template writes the conversation down; --template names a file with
      another, or one of chatml and plain. When stdin is no terminal, each line is a message and
      only answers are printed. A line that ends with a backslash goes on in the next.

      Ctrl-C stops an answer; twice at the prompt, or Ctrl-D, it ends the program. When the
      context is full, the oldest exchanges are left out, with a note. /help lists commands.
      """)

  @OptionGroup var model: ModelArgument

  @Option(parsing: .unconditional, help: "What the model is told before all else.")
  var system: String?

  @Option(help: "0 takes the most probable token; 1 samples as the model predicts.")
  var temperature: Float = 0.7

  @OptionGroup var sampling: SamplingOptions

  @Option(name: [.customShort("n"), .long], help: "Most tokens in an answer.")
  var maxTokens = 1024

  @Option(help: "Chat template: a file, chatml or plain.", completion: .file())
  var template: String?

  @Flag(
    inversion: .prefixedNo,
    help: "Tell the template whether to let the model think first, where it asks.")
  var thinking: Bool?

  @Option(help: "File that keeps the lines you typed.", completion: .file())
  var history: String?

  @OptionGroup var runtime: RuntimeOptions

  func validate() throws {
    if maxTokens < 1 { throw ValidationError("--max-tokens must be 1 or more.") }
    try Temperature.check(temperature)
  }

  func run() throws {
    var model = try runtime.loadForUse(model.model)
    let tokenizer = try ModelTokenizer.load(model.checkpoint)
    let template = try loadTemplate(model.checkpoint)
    if let end = try Self.endToken(model.checkpoint, tokenizer), !model.endTokens.contains(end) {
      model.endTokens.append(end)
    }
    var conversation = Conversation(
      model: model, tokenizer: tokenizer, template: template,
      settings: sampling.settings(temperature: temperature), maxTokens: maxTokens,
      stops: sampling.stops)
    conversation.system = system
    if Terminal.isInteractive {
      try talk(&conversation)
    } else {
      try answerLines(&conversation)
    }
  }

  private var variables: JSONObject {
    JSONObject(thinking.map { [("enable_thinking", JSON($0))] } ?? [])
  }

  // MARK: The model's files

  private func loadTemplate(_ checkpoint: Checkpoint) throws -> ChatTemplate {
    func side(_ name: String) throws -> [UInt8]? {
      checkpoint.sideFiles.contains(name) ? try checkpoint.readSideFile(name) : nil
    }
    guard let template else {
      guard let found = try ChatTemplate.find(reading: side) else {
        throw ChatError.noTemplate(model: checkpoint.path)
      }
      return found
    }
    if let builtIn = try ChatTemplate.builtIn(template) { return builtIn }
    // The file's template, with the special tokens that the model names.
    let source = [UInt8](try TextFile.read(template))
    let named = try ChatTemplate.find { name in
      switch name {
      case "chat_template.jinja": source
      case "chat_template.json": nil
      default: try side(name)
      }
    }
    return try named ?? ChatTemplate(source)
  }

  /// Some models name the token that ends a turn in tokenizer_config.json alone.
  private static func endToken(_ checkpoint: Checkpoint, _ tokenizer: Tokenizer) throws -> Int? {
    let name = "tokenizer_config.json"
    guard checkpoint.sideFiles.contains(name) else { return nil }
    let json = try JSON.parse(
      checkpoint.readSideFile(name), name: "\(checkpoint.folder)/\(name)")
    return try TokenizerConfiguration(json: json).endToken.flatMap { tokenizer.id(of: $0) }
  }

  // MARK: Without a terminal

  private func answerLines(_ conversation: inout Conversation) throws {
    var message = ""
    while let line = readLine() {
      if line.hasSuffix("\\") {
        message += line.dropLast() + "\n"
        continue
      }
      message += line
      defer { message = "" }
      if message.isEmpty { continue }
      guard try obey(message, &conversation) else { return }
    }
    if !message.isEmpty { _ = try obey(message, &conversation) }
  }

  // MARK: At a terminal

  private func talk(_ conversation: inout Conversation) throws {
    var editor = LineEditor(history: try loadHistory())
    Console.note("Type a message; /help lists commands, Ctrl-D ends.")
    var isWarned = false
    while true {
      switch try Terminal.readLine(prompt: "> ", &editor) {
      case .ended: return
      case .interrupted:
        if isWarned { return }
        isWarned = true
        Console.note("Ctrl-C again or Ctrl-D ends.")
      case .text(let line):
        isWarned = false
        guard !line.allSatisfy(\.isWhitespace) else { continue }
        editor.remember(line)
        try saveHistory(editor.history)
        do {
          guard try obey(line, &conversation) else { return }
        } catch {
          Console.note("\(error)")
        }
      }
    }
  }

  /// One entry a line; line breaks inside are written as a backslash and n.
  private func loadHistory() throws -> [String] {
    guard let history, FileManager.default.fileExists(atPath: history) else { return [] }
    return String(decoding: try TextFile.read(history), as: UTF8.self)
      .split(separator: "\n").map(HistoryLine.decoded)
  }

  private func saveHistory(_ lines: [String]) throws {
    guard let history else { return }
    let text = lines.suffix(1000).map { HistoryLine.encoded($0) + "\n" }.joined()
    do {
      try Data(text.utf8).write(to: URL(filePath: history), options: .atomic)
    } catch {
      throw ChatError.unwritable(file: history, reason: error.localizedDescription)
    }
  }

  // MARK: Messages and commands

  /// Answers a message or obeys a command; false ends the conversation.
  private func obey(_ line: String, _ conversation: inout Conversation) throws -> Bool {
    guard line.hasPrefix("/") else {
      try answer(line, &conversation)
      return true
    }
    if line.hasPrefix("//") {
      try answer(String(line.dropFirst()), &conversation)
      return true
    }
    let parts = line.split(separator: " ", maxSplits: 1)
    let argument = parts.count > 1 ? String(parts[1]) : ""
    switch parts[0] {
    case "/exit", "/quit": return false
    case "/reset":
      conversation.reset()
      Console.note("The conversation starts anew.")
    case "/system":
      conversation.system = argument
      Console.note(argument.isEmpty ? "No system message." : "The system message is set.")
    case "/save":
      guard !argument.isEmpty else { throw ChatError.noFile }
      let file = try OutputFile(argument, overwrite: false)
      try file.write(JSON.array(conversation.messages).serialized(pretty: true))
      try file.finish()
      Console.note("Saved \(conversation.messages.count) messages to \(argument).")
    case "/help": Console.note(Self.help)
    default: throw ChatError.unknownCommand(String(parts[0]))
    }
    return true
  }

  private static let help = """
    /system TEXT   set the system message; without TEXT remove it
    /reset         forget the conversation, keep the system message
    /save FILE     write the messages as JSON
    /exit          end, like Ctrl-D
    //TEXT         send /TEXT as a message
    A line that ends with a backslash goes on. Ctrl-C stops an answer.
    """

  private func answer(_ text: String, _ conversation: inout Conversation) throws {
    let answer = try Interruption.capturing {
      try conversation.answer(text, variables: variables) { bytes in
        if !bytes.isEmpty { try Console.write(bytes) }
      }
    }
    try Console.write([10])
    if answer.droppedMessages > 0 {
      Console.note(
        "note: the context is full; the oldest \(answer.droppedMessages) messages are left out.")
    }
    guard Terminal.isInteractive else { return }
    switch answer.result.stopReason {
    case .cancelled: Console.note("(stopped)")
    case .context: Console.note("(the context is full; /reset starts anew)")
    case .maxTokens: Console.note("(--max-tokens reached)")
    case .endToken, .stopString: break
    }
  }
}

/// A line of the history file.
package enum HistoryLine {
  package static func encoded(_ line: String) -> String {
    line.replacing("\\", with: "\\\\").replacing("\n", with: "\\n")
  }

  package static func decoded(_ line: some StringProtocol) -> String {
    var result = ""
    var isEscaped = false
    for character in line {
      if isEscaped {
        result.append(character == "n" ? "\n" : character)
        isEscaped = false
      } else if character == "\\" {
        isEscaped = true
      } else {
        result.append(character)
      }
    }
    return result
  }
}

enum ChatError: Error, CustomStringConvertible {
  case noTemplate(model: String)
  case unknownCommand(String)
  case noFile
  case unwritable(file: String, reason: String)

  var description: String {
    switch self {
    case .noTemplate(let model):
      "\(model) has no chat template. Give one with --template: a file, "
        + "or one of \(ChatTemplate.builtInNames.joined(separator: " and "))."
    case .unknownCommand(let name): "\(name) is not a command. /help lists them."
    case .noFile: "/save needs the name of a file."
    case .unwritable(let file, let reason):
      "\(file) cannot be written: \(reason). Choose another place for --history."
    }
  }
}
