public import ArgumentParser
import Checkpoints
import Foundation
public import Recipes
import Tensors

struct Convert: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Carry a model over into another file format.",
    discussion: """
      Examples:
        pare convert MODEL --to gguf --type q4_k_m -o model.gguf
        pare convert MODEL --to gguf --type q8_0 -o model.gguf --dry-run
        pare convert model.gguf --to hf --dtype bf16 -o folder

      To gguf: MODEL becomes one file that llama.cpp and Pare open, tokenizer and chat template
      inside. Bits per weight of a matrix: \(typeTable).
      Mixes (_s, _m, _l) keep the head and some matrices at more bits, as llama.cpp does. Matrices
      whose columns are no whole blocks get a type whose blocks divide them; --dry-run shows which.

      To hf: config.json, tokenizer.json and safetensors of plain numbers.

      JSON keys: output, seconds, peak_resident_bytes, model, model_type, format, type, parameters,
      bytes_before, bytes, bits_per_weight, notes, tensors.
      """)

  enum Target: String, ExpressibleByArgument, CaseIterable { case gguf, hf }

  @OptionGroup var model: ModelArgument

  @Option(help: "File format to write.")
  var to: Target

  @Option(help: "Types of a GGUF file.")
  var type: GGUFMix?

  @Option(help: "Element type in Hugging Face layout. Default: as stored, f16 for packed weights.")
  var dtype: ElementType?

  @OptionGroup var output: OutputOptions

  @Flag(help: "Print what would be written, one row per tensor, and write nothing.")
  var dryRun = false

  @OptionGroup var report: ReportOptions

  enum ElementType: String, ExpressibleByArgument, CaseIterable {
    case bf16, f16, f32
    var dtype: DType {
      switch self {
      case .bf16: .bfloat16
      case .f16: .float16
      case .f32: .float32
      }
    }
  }

  private static var typeTable: String {
    let types: [GGUFMix] = [
      .q8_0, .q6_k, .q5_k_m, .q4_k_m, .q4_0, .iq4_xs, .q3_k_m, .q2_k, .tq2_0, .tq1_0,
    ]
    return types.map { "\($0.rawValue) \(String(format: "%.4g", $0.base.bitsPerWeight))" }
      .joined(separator: ", ")
  }

  func validate() throws {
    if to == .gguf, dtype != nil {
      throw ValidationError("--dtype is for --to hf; with --to gguf, --type f16 and so on.")
    }
    if to == .hf, type != nil {
      throw ValidationError("--type is for --to gguf; with --to hf, --dtype bf16 and so on.")
    }
    if to == .gguf, type == nil {
      throw ValidationError("--to gguf needs --type, such as --type q4_k_m.")
    }
  }

  func run() throws {
    let conversion = try makeConversion()
    if dryRun {
      try report.json
        ? Console.print(conversion.plan.json)
        : Console.print(ConversionText.table(conversion.plan))
      return
    }
    let progress = ProgressLine("converting", unit: "MB")
    let result = try conversion.run(
      output: output.output, overwrite: output.overwrite,
      onProgress: { step in
        progress.update(step.done, of: step.total, scale: 1e6, detail: step.what)
      })
    progress.finish()
    for note in result.notes { Console.note(note) }
    try report.json
      ? Console.print(result.json) : Console.print(ConversionText.summary(result))
  }

  private func makeConversion() throws -> any Conversion {
    if let type, to == .gguf { return try GGUFConversion(model: model.model, mix: type) }
    var conversion = try HuggingFaceConversion(model: model.model, dtype: dtype?.dtype)
    conversion.shardByteLimit = output.shardSize
    return conversion
  }
}

extension GGUFMix: ExpressibleByArgument {}

/// Conversions as tables.
private enum ConversionText {
  static func table(_ plan: ConversionPlan) -> String {
    var table = Table(
      ["tensor", "shape", "is", "bytes", "becomes", "bytes"], leading: [0, 1, 2, 4])
    for row in plan.rows {
      table.add([
        row.name, row.shape.map(String.init).joined(separator: "×"), row.from,
        Format.bytes(row.bytesBefore), row.to + (row.note.map { " (\($0))" } ?? ""),
        Format.bytes(row.bytesAfter),
      ])
    }
    return ([table.text, ""] + notes(plan) + ["\(sizes(plan)). Nothing was written."])
      .joined(separator: "\n")
  }

  static func summary(_ report: ConversionReport) -> String {
    let memory = report.peakResidentBytes.map { ", peak memory \(Format.bytes($0))" } ?? ""
    return
      (notes(report.plan) + [
        "\(report.output): \(sizes(report.plan)).",
        "\(Format.number(report.seconds, 1)) s\(memory).",
      ]).joined(separator: "\n")
  }

  private static func notes(_ plan: ConversionPlan) -> [String] { plan.notes.map { "note: \($0)" } }

  private static func sizes(_ plan: ConversionPlan) -> String {
    "\(Format.bytes(plan.bytesBefore)) become \(Format.bytes(plan.bytesAfter)), "
      + "\(Format.number(plan.bitsPerWeight, 2)) bits per weight"
  }
}
