public import ArgumentParser
public import Checkpoints
import Foundation
import Recipes
import Tensors

struct Imatrix: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measure how strongly each input column of each matrix is driven.",
    discussion: """
      The text is run through the model, and for each column of each matrix the mean square of what
      it is multiplied by goes into a file that pare convert --imatrix and llama.cpp read.

      Examples:
        pare imatrix MODEL --file text.txt -o imatrix.gguf
        pare convert MODEL --to gguf --type q3_k_m --imatrix imatrix.gguf -o model.gguf

      JSON keys: output, entries, samples, length, tokens, distinct_tokens, seconds.
      """)

  @OptionGroup var model: ModelArgument

  @Option(name: .shortAndLong, help: "UTF-8 text to run; - reads stdin.", completion: .file())
  var file: String

  @Option(help: "Texts to run, spread evenly over the file.")
  var samples = 128

  @Option(help: "Tokens of each; at most the model's context.")
  var length = 512

  @Option(help: "gguf, or dat, which llama.cpp wrote before.")
  var format = ImportanceMatrix.Format.gguf

  @Option(name: .shortAndLong, help: "File to write.", completion: .file())
  var output: String

  @Flag(help: "Replace an existing file.")
  var overwrite = false

  @Option(name: .shortAndLong, help: "Threads; default: the processors this process may use.")
  var threads: Int?

  @OptionGroup var report: ReportOptions

  func validate() throws {
    guard samples > 0, length > 0 else {
      throw ValidationError("--samples and --length must be positive.")
    }
    if let threads, !(1...256).contains(threads) {
      throw ValidationError("--threads must be between 1 and 256.")
    }
  }

  func run() throws {
    if let threads { Parallel.threads = threads }
    let text = [UInt8](try TextFile.read(file))
    let target = try OutputFile(output, overwrite: overwrite, inputs: [model.model, file])
    var request = ImportanceRun(
      model: model.model, dataset: URL(filePath: file).lastPathComponent)
    request.samples = samples
    request.length = length
    let progress = ProgressLine("measuring", unit: "texts")
    let result = try request.run(text: text, onProgress: { progress.update($0, of: $1) })
    progress.finish()
    try result.matrix.write(to: target.path, format: format)
    try target.finish()
    for note in target.notes { Console.note(note) }
    try report.json
      ? Console.print(result.json(output: output))
      : Console.print(
        """
        \(output): \(Format.count(result.matrix.entries.count)) matrices, \
        \(Format.count(result.samples)) texts of \(Format.count(result.length)) tokens, \
        \(Format.count(result.distinctTokens)) distinct tokens.
        \(Format.number(result.seconds, 1)) s.
        """)
  }
}

extension ImportanceMatrix.Format: ExpressibleByArgument {}
