import ArgumentParser
import Foundation
import Recipes
import Text

struct Demo: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shrink the model that comes with Pare, see what it costs and that it still speaks.",
    discussion: """
      Takes less than two minutes and leaves no files behind, unless --output keeps the models.

      Examples:
        pare demo
        pare demo --json > demo.json
      """)

  @Option(name: .shortAndLong, help: "Keep the quantized models in this folder.")
  var output: String?

  @OptionGroup var report: ReportOptions

  func run() throws {
    let progress = ProgressLine("demo", unit: "steps")
    var demonstration = try Demonstration()
    demonstration.keep = output
    let rows = try demonstration.run { done, total, what in
      progress.update(done, of: total, detail: what)
    }
    progress.finish()
    if report.json {
      try Console.print(.array(rows.map(\.json)))
      return
    }
    try Console.print(demonstration.introduction + "\n")
    var table = Table(
      ["weights", "bytes", "bits/weight", "perplexity", "KL to original", "same top", "tokens/s"])
    for row in rows {
      table.add([
        row.name, Format.bytes(row.bytes), Format.number(row.bitsPerWeight, 2),
        Format.withError(row.perplexity, row.perplexityStandardError, 3),
        row.klMean.map { Format.withError($0, row.klStandardError ?? 0, 4) } ?? "-",
        row.sameTop.map { "\(Format.number($0 * 100, 1)) %" } ?? "-",
        Format.number(row.tokensPerSecond, 0),
      ])
    }
    try Console.print(table.text + "\n")
    try Console.print("Perplexity on \(demonstration.textDescription).\n")
    for row in rows { try Console.print("\(row.name): \(row.sample)\n") }
    try Console.print("Next: pare quantize /path/to/your/model -o smaller")
  }
}
