public import ArgumentParser
import Codecs
public import Recipes

struct Quantize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Quantize a model's matrices to a few bits: a recipe of one stage.",
    discussion: """
      Examples:
        pare quantize MODEL -o smaller
        pare quantize MODEL -o smaller --bits 3 --group-size 32 --asymmetric --clipping mse
        pare quantize MODEL -o smaller --bits 8 --strategy channel --format int-quantized
        pare quantize MODEL -o smaller --method gptq --bits 4 --group-size 64 --calibration text.txt
        pare quantize MODEL -o smaller --method awq --bits 3 --asymmetric
        pare quantize MODEL -o smaller --method gptq --target-bits 3.5
        pare quantize MODEL -o smaller --targets 'mlp.*' --ignore '*.0.*' --dry-run

      Methods that look at activations (all but rtn) let samples pass the model block by block. Without
      --calibration the model writes 32 texts of up to 512 tokens itself; else 128 rows of 2048 tokens,
      or of the context, are filled with the documents of a text (they end with <|endoftext|>), of
      JSONL records, or of conversations through the model's chat template. Finished blocks lie in
      OUTPUT.compressing; a run that was stopped or killed goes on with --resume and ends in the same
      bytes.

      Targets are roles as `pare inspect` shows them (attention.q, mlp.*, embedding, head), `linear`
      for every matrix inside the blocks, module names with * and ?, or re: and a pattern.

      Bits per weight of a bf16 model, scales included: 8 bits g128 8.13, 4 bits g128 4.13, 4 bits
      g32 4.50, 3 bits g128 3.13, 2 bits g64 2.25; asymmetric adds the zero points. `pare demo`
      shows what each costs in quality.

      JSON keys: output, parameters, bytes_before, bytes, bits_per_weight,
      bits_per_compressed_weight, seconds, peak_resident_bytes, recipe, calibration, inputs, tensors
      (name, bits, mean_squared_error, relative_error, relative_output_error, seconds, ...);
      with --evaluate also measurements.
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup var output: OutputOptions

  @Option(
    help: """
      rtn rounds to nearest; gptq passes each column's error on to the others (gptaq: towards the \
      uncompressed model's outputs); awq scales and clips by activations; smoothquant moves \
      activation outliers into weights; hqq fits zero points to heavy tails, without data; autoround \
      learns roundings and clippings, omniquant clippings and factors, zeroquant the weights; spqr keeps outliers apart; billm, onebit and \
      ternary keep signs; llm-int8 leaves large activations apart.
      """)
  var method = QuantizeStage.Method.rtn

  @Option(help: "Bits per weight: 2, 3, 4, 5, 6 or 8.")
  var bits = 4

  @Option(
    help: ArgumentHelp(
      "Bytes of the whole result, such as 300MB; each matrix gets the bits that serve best.",
      valueName: "size"), transform: ByteSize.parse)
  var targetSize: Int?

  @Option(help: "As --target-size: average bits per quantized weight, scales included.")
  var targetBits: Double?

  @Option(
    help: "What bits are judged by: kl when one matrix is quantized, or fisher. Default: by size.")
  var sensitivity: BitAllocation.Sensitivity?

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

  @Option(
    help: """
      pack-quantized; int-quantized for 8 bits per channel or tensor; float codes: float-quantized \
      (FP8), nvfp4-pack-quantized, mxfp4-pack-quantized, nf4 (bitsandbytes).
      """)
  var format = QuantizeStage.StoredFormat.packed

  @Option(
    help:
      "Round the layers' inputs too: int8 on each token's grid, int8-static on a calibrated one.")
  var activations: QuantizeStage.Activations?

  @Flag(help: "gptq: columns by falling size of their inputs, groups as they lie.")
  var actOrder = false

  @Option(help: "gptq: share of the second moment's mean diagonal that is added to it.")
  var dampingFraction = 0.01

  @Option(help: "gptq: columns between two updates of all that follow.")
  var blockSize = 128

  @Option(help: "Add to every matrix a correction of this rank (EoRA), in 16 bits.")
  var lowRank: Int?

  @Option(help: "Steps for each block that learns: autoround, zeroquant 200; omniquant 20 epochs.")
  var iterations: Int?

  @Option(help: ArgumentHelp("smoothquant: 0 to 1, or search.", valueName: "alpha"))
  var smoothingStrength = "0.5"

  @OptionGroup var calibration: CalibrationOptions

  @Option(help: "Decides calibration samples and whatever a method draws; recorded.")
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
    if smoothingStrength != "search", Double(smoothingStrength) == nil {
      throw ValidationError("--smoothing-strength is a number from 0 to 1, or search.")
    }
    if targetSize != nil, targetBits != nil {
      throw ValidationError("--target-size and --target-bits say the same thing; give one.")
    }
    if sensitivity != nil, targetSize == nil, targetBits == nil {
      throw ValidationError("--sensitivity is for --target-size or --target-bits.")
    }
    if method == .rtn, lowRank == nil, activations != .int8Static, calibration.isUsed,
      targetSize == nil, targetBits == nil
    {
      throw ValidationError("--method rtn looks at no activations; leave --calibration out.")
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
      stage.bits = format == .float8 && bits == 4 ? 8 : bits
      stage.granularity =
        switch strategy {
        case .group: .group(groupSize ?? (method == .spqr ? 16 : 128))
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
      if let targetSize { stage.allocation = BitAllocation(.modelBytes(targetSize)) }
      if let targetBits { stage.allocation = BitAllocation(.bitsPerWeight(targetBits)) }
      stage.allocation?.sensitivity = sensitivity
      stage.actOrder = actOrder ? .static : .none
      stage.dampingFraction = dampingFraction
      stage.blockSize = blockSize
      stage.iterations = iterations
      stage.activations = activations
      stage.smoothingStrength = Double(smoothingStrength)
      try stage.validate()
      var recipe = Recipe(name: "quantize", seed: seed, stages: [.quantize(stage)])
      if let lowRank { recipe.stages.append(.correct(CorrectStage(rank: lowRank))) }
      recipe.calibration = calibration.request
      try recipe.validate()
      return recipe
    }
  }

  func run() throws { try options.run(try recipe, model: model.model, output: output) }
}

extension QuantizeStage.Method: ExpressibleByArgument {}
extension BitAllocation.Sensitivity: ExpressibleByArgument {}
extension QuantizeStage.Activations: ExpressibleByArgument {}
extension QuantizeStage.Clipping: ExpressibleByArgument {}
extension QuantizeStage.Indivisible: ExpressibleByArgument {}
extension QuantizeStage.StoredFormat: ExpressibleByArgument {}
extension Consumer: ExpressibleByArgument {}
