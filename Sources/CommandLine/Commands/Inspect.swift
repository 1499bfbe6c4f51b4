import ArgumentParser
import Checkpoints
import Models
import Recipes
import Text

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show a model's architecture, its parameters by role and what can be compressed.",
    discussion: """
      Examples:
        pare inspect models/SmolLM2-135M
        pare inspect models/SmolLM2-135M --tensors
        pare inspect models/SmolLM2-135M --json | jq .bits_per_weight

      JSON keys: model, model_type, layers, hidden_size, heads, key_value_heads, head_dim,
      vocabulary_size, context_length, tied_embeddings, parameters, bytes, bits_per_weight, roles,
      dtypes, unknown_fields; with --tensors also tensors.
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup var report: ReportOptions
  @Flag(help: "List every tensor.")
  var tensors = false

  func run() throws {
    let inspection = try Inspection(model.model)
    if report.json {
      try Console.print(inspection.json(withTensors: tensors))
    } else {
      try Console.print(text(inspection))
    }
  }

  private func text(_ inspection: Inspection) -> String {
    let configuration = inspection.configuration
    var facts = Table(["model", model.model], leading: [0, 1])
    for (name, value) in inspection.facts { facts.add([name, value]) }
    facts.add(["parameters", Format.count(inspection.parameters)])
    facts.add([
      "weights",
      "\(Format.bytes(inspection.bytes)), \(Format.number(inspection.bitsPerWeight, 2)) bits each",
    ])
    var roles = Table(
      ["role", "matrices", "parameters", "share", "bytes", "stored as", "pare quantize"],
      leading: [0, 5, 6])
    for role in inspection.roles {
      let share = Double(role.parameters) * 100 / Double(max(inspection.parameters, 1))
      roles.add([
        role.role.rawValue, "\(role.tensors)", Format.count(role.parameters),
        "\(Format.number(share, 1)) %", Format.bytes(role.bytes),
        role.storage.joined(separator: ", "), role.compressibility,
      ])
    }
    var dtypes = Table(["dtype", "tensors", "bytes"])
    for dtype in inspection.dtypes {
      dtypes.add([dtype.dtype, "\(dtype.tensors)", Format.bytes(dtype.bytes)])
    }
    var parts = [facts.text, roles.text, dtypes.text]
    if !configuration.unknownFields.isEmpty {
      parts.append(
        "config.json fields that Pare does not read: "
          + configuration.unknownFields.joined(separator: ", "))
    }
    if tensors {
      var list = Table(["tensor", "role", "shape", "dtype", "bytes"], leading: [0, 1, 2, 3])
      for tensor in inspection.tensors {
        list.add([
          tensor.name, tensor.role?.rawValue ?? "-", "\(tensor.shape)", tensor.dtype,
          Format.bytes(tensor.bytes),
        ])
      }
      parts.append(list.text)
    }
    return parts.joined(separator: "\n\n")
  }
}
