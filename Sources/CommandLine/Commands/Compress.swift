import ArgumentParser
import Recipes

struct Compress: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Carry out a recipe: a YAML file or a preset.",
    discussion: """
      Examples:
        pare compress MODEL --recipe w4a16 -o smaller --dry-run
        pare compress MODEL --recipe mixed.yaml -o smaller

      A recipe:
        name: mixed
        seed: 0
        stages:
          - quantize:
              bits: 4
              group_size: 64
              targets: [linear]
              ignore: [mlp.down]
          - quantize:
              bits: 8
              targets: [mlp.down, embedding]

      Keys of a quantize stage, with defaults: method rtn, bits 4, strategy group (or channel,
      tensor), group_size 128, symmetric true, clipping minmax (or mse), targets [linear], ignore [],
      blocks FIRST-LAST, indivisible smaller (or channel, skip), format pack-quantized.

      Presets: \(Recipe.presets.keys.sorted().joined(separator: ", ")).
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup var output: OutputOptions

  @Option(help: "YAML file or name of a preset.", completion: .file(extensions: ["yaml", "yml"]))
  var recipe: String

  @OptionGroup var options: CompressionOptions

  func validate() throws { try options.validateGates() }

  func run() throws {
    try options.run(try Recipe.named(recipe), model: model.model, output: output)
  }
}
