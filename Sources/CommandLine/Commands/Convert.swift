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
        pare convert MODEL --to gguf --type q3_k_m --imatrix imatrix.gguf -o model.gguf
        pare convert QUANTIZED --to gptq -o folder
        pare convert QUANTIZED --to gguf -o model.gguf

      To gguf: MODEL becomes one file that llama.cpp and Pare open, tokenizer and chat template
      inside. Bits per weight of a matrix: \(typeTable).
      Mixes (_s, _m, _l) keep the head and some matrices at more bits, as llama.cpp does. Matrices
      whose columns are no whole blocks get a type whose blocks divide them; --dry-run shows which.

      To hf: config.json, tokenizer.json and safetensors of plain numbers.

      Without --type a quantized model keeps its codes: 2 to 4 bits become Q4_0, or Q4_1 with zero
      points, 5 bits Q5_0 or Q5_1, 6 and 8 bits Q8_0. Groups must be whole blocks of 32; longer
      ones repeat their scale.

      To compressed-tensors, gptq, gptq-v2, awq or mlx: a quantized model keeps its codes and zero
      points in the layout that those programs open.
        compressed-tensors  2, 3, 4, 5, 6 and 8 bits, any group, columns in activation order
        gptq                2, 3, 4 and 8 bits; a zero point of 0 cannot be said: use gptq-v2
        gptq-v2             the same with zero points as they are
        awq                 4 bits, one group size, no column order (the gemm layout)
        mlx                 2, 3, 4, 5, 6 and 8 bits in groups of 32, 64 or 128; longer ones repeat
                            their scale
      Only scales may be rounded, to the type the format stores; --dry-run and the report say where.
      With --to mlx --dtype f32 every value stays the same. What a format cannot hold is refused with
      the reason; --requantize rounds those matrices anew.

      JSON keys: output, seconds, peak_resident_bytes, model, model_type, format, type, parameters,
      bytes_before, bytes, bits_per_weight, notes, tensors.
      """)

  enum Target: String, ExpressibleByArgument, CaseIterable {
    case gguf, hf
    case compressedTensors = "compressed-tensors"
    case gptq
    case gptqV2 = "gptq-v2"
    case awq, mlx
  }

  @OptionGroup var model: ModelArgument

  @Option(help: "File format to write.")
  var to: Target

  @Option(help: "Types of a GGUF file. Default: those that keep a quantized model's codes.")
  var type: GGUFMix?

  @Option(
    help:
      "Element type of plain tensors and scales, except in GGUF. Default: as stored, f16 for packed weights."
  )
  var dtype: ElementType?

  @Option(
    help: "Importance matrix that errors of a GGUF file's matrices are weighted by (pare imatrix).",
    completion: .file())
  var imatrix: String?

  @Option(help: "Matrices that --imatrix has no data for: refuse, or ignore and fit unweighted.")
  var imatrixMissing: ImportanceSource.Missing?
  @Flag(help: "Round matrices anew that the format has no place for.")
  var requantize = false

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
      throw ValidationError("--dtype is not for --to gguf; --type f16 and so on is.")
    }
    if to != .gguf, type != nil {
      throw ValidationError(
        "--type is for --to gguf; with --to \(to.rawValue), --dtype bf16 and so on.")
    }
    if to != .gguf || type == nil, imatrix != nil {
      throw ValidationError("--imatrix is for --to gguf with --type.")
    }
    if imatrix == nil, imatrixMissing != nil {
      throw ValidationError("--imatrix-missing needs --imatrix.")
    }
    if requantize, to == .hf || type != nil {
      throw ValidationError(
        "--requantize is for formats that keep codes; here every matrix is written anew.")
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
    if to == .gguf {
      guard let type else {
        return try GGUFConversion(model: model.model, requantizes: requantize)
      }
      let importance = try imatrix.map {
        try ImportanceSource(path: $0, missing: imatrixMissing ?? .refuse)
      }
      return try GGUFConversion(model: model.model, mix: type, importance: importance)
    }
    if let target = QuantizedTarget(rawValue: to.rawValue) {
      var conversion = try QuantizedConversion(
        model: model.model, to: target, dtype: dtype?.dtype, requantizes: requantize)
      conversion.shardByteLimit = output.shardSize
      return conversion
    }
    var conversion = try HuggingFaceConversion(model: model.model, dtype: dtype?.dtype)
    conversion.shardByteLimit = output.shardSize
    return conversion
  }
}

extension GGUFMix: ExpressibleByArgument {}
extension ImportanceSource.Missing: ExpressibleByArgument {}

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
