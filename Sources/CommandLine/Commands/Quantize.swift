public import ArgumentParser
public import Codecs
public import Recipes

struct Quantize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Round a model's matrices to a few bits: a recipe of one stage.",
    discussion: """
      Examples:
        pare quantize MODEL -o smaller
        pare quantize MODEL -o smaller --bits 3 --group-size 32 --asymmetric --clipping mse
        pare quantize MODEL -o smaller --bits 8 --strategy channel --format int-quantized
        pare quantize MODEL -o smaller --targets 'mlp.*' --ignore '*.0.*' --dry-run

      Targets are roles as `pare inspect` shows them (attention.q, mlp.*, embedding, head), `linear`
      for every matrix inside the blocks, module names with * and ?, or re: and a pattern.

      Bits per weight of a bf16 model, scales included: 8 bits g128 8.13, 4 bits g128 4.13, 4 bits
      g32 4.50, 3 bits g128 3.13, 2 bits g64 2.25; asymmetric adds the zero points. `pare demo`
      shows what each costs in quality.

      JSON keys: output, parameters, bytes_before, bytes, bits_per_weight,
      bits_per_compressed_weight, seconds, peak_resident_bytes, recipe, inputs, tensors;
      with --evaluate also measurements.
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup var output: OutputOptions

  @Option(help: "How values become integers: rtn rounds to nearest.")
  var method = QuantizeStage.Method.rtn

  @Option(help: "Bits per weight: 2, 3, 4, 5, 6 or 8.")
  var bits = 4

  @Option(help: "Neighbouring weights that share a scale: 16 to 256.")
  var groupSize: Int?

  @Option(help: "What shares a scale: group, channel or tensor.")
  var strategy = Strategy.group

  @Flag(help: "Give every group a zero point as well as a scale.")
  var asymmetric = false

  @Option(help: "Where the grid ends: minmax at the largest weight, mse where the error is least.")
  var clipping = QuantizeStage.Clipping.minmax

  @Option(help: "Matrices to quantize; may be repeated. Default: linear.")
  var targets: [String] = []

  @Option(help: "Matrices to leave alone; may be repeated.")
  var ignore: [String] = []

  @Option(help: ArgumentHelp("Only these blocks, such as 2-5.", valueName: "first-last"))
  var blocks: String?

  @Option(help: "Inputs no multiple of the group size: smaller groups, one per channel, or skip.")
  var indivisible = QuantizeStage.Indivisible.smaller

  @Option(help: "pack-quantized, or int-quantized for 8 bits per channel or tensor.")
  var format = AffineGroups.Layout.packed

  @Option(help: "Recorded; rounding to nearest uses no chance.")
  var seed: UInt64 = 0

  @OptionGroup var options: CompressionOptions

  enum Strategy: String, ExpressibleByArgument, CaseIterable { case group, channel, tensor }

  func validate() throws {
    if strategy != .group, groupSize != nil {
      throw ValidationError("--group-size has no meaning with --strategy \(strategy.rawValue).")
    }
    if let blocks, QuantizeStage.range(blocks) == nil {
      throw ValidationError("--blocks \(blocks) is not a range; write it like 2-5.")
    }
    do {
      _ = try recipe
    } catch {
      throw ValidationError(error.description)
    }
    try options.validateGates()
  }

  private var recipe: Recipe {
    get throws(RecipeError) {
      var stage = QuantizeStage()
      stage.method = method
      stage.bits = bits
      stage.granularity =
        switch strategy {
        case .group: .group(groupSize ?? 128)
        case .channel: .channel
        case .tensor: .tensor
        }
      stage.isSymmetric = !asymmetric
      stage.clipping = clipping
      if !targets.isEmpty { stage.targets = targets.map { Target($0) } }
      stage.ignore = ignore.map { Target($0) }
      stage.blocks = blocks.flatMap(QuantizeStage.range)
      stage.indivisible = indivisible
      stage.format = format
      try stage.validate()
      return Recipe(name: "quantize", seed: seed, stages: [.quantize(stage)])
    }
  }

  func run() throws { try options.run(try recipe, model: model.model, output: output) }
}

extension QuantizeStage.Method: ExpressibleByArgument {}
extension QuantizeStage.Clipping: ExpressibleByArgument {}
extension QuantizeStage.Indivisible: ExpressibleByArgument {}
extension AffineGroups.Layout: ExpressibleByArgument {}
extension Consumer: ExpressibleByArgument {}
