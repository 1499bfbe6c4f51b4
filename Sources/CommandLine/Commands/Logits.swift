import ArgumentParser
import Checkpoints
import Models
import Tensors

struct Logits: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write the logits of given tokens, for debugging and parity checks.",
    discussion: """
      The file holds one float32 tensor `logits` [tokens, vocabulary].

      Example:
        pare logits models/SmolLM2-135M --tokens 1,2,3 -o logits.safetensors
      """)

  @OptionGroup var model: ModelArgument

  @Option(help: "Comma-separated token ids.")
  var tokens: String

  @Option(name: .shortAndLong, help: "File to write.", completion: .file())
  var output: String

  @Flag(help: "Replace an existing file.")
  var overwrite = false

  @OptionGroup var runtime: RuntimeOptions

  func run() throws {
    let ids = try TokenList.parse(tokens)
    let model = try runtime.loadForMeasuring(model.model)
    let file = try OutputFile(
      output, overwrite: overwrite, inputs: model.checkpoint.inputPaths)
    var writer = try SafetensorsWriter(
      file: file.path,
      tensors: [
        TensorDeclaration(
          name: "logits", dtype: .float32,
          shape: [ids.count, model.configuration.vocabularySize])
      ])
    try model.forEachLogits(of: ids) { _, logits in try writer.append("logits", logits.bytes) }
    _ = try writer.finish()
    try file.finish()
  }
}
