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

      method also: gptq, gptaq, awq, smoothquant, hqq, autoround, omniquant, zeroquant, spqr, billm,
      onebit, ternary, llm-int8. Keys of some: dampening_frac 0.01, block_size 128, actorder none (or
      static), static_groups false (gptq, gptaq); smoothing_strength 0.5 (or search); iterations;
      activations int8 (or int8-static); target_size 300MB or target_bits 3.5 in place of bits, with
      sensitivity (kl, fisher) and candidate_bits. format also: float-quantized,
      nvfp4-pack-quantized, mxfp4-pack-quantized, nf4.

      Stages that help the roundings after them, and one that mends what they lost:
        calibration: {data: text.txt, samples: 128, length: 512}
        stages:
          - rotate: {method: quarot}
          - smooth: {method: awq}
          - quantize: {method: gptq, bits: 4, group_size: 64, actorder: static}
          - correct: {rank: 16}

      Keys of calibration: data (none: the model writes its own), field, token_ids, chat_template,
      samples, length, seed. Keys of rotate: method quarot (or spinquant), seed, online, values; of
      smooth: method smoothquant (or awq), strength 0.5 (or search), grid, duo_scaling; of correct: rank,
      space outputs (or weights).

      Stages that make a model smaller and win back what that lost:
        stages:
          - cut: {shape: "layers=3", layers: importance, data: text.txt}
          - distill: {data: text.txt, steps: 500, learning_rate: 1e-3, train: ["*"]}
          - quantize: {bits: 3, group_size: 32}
          - distill: {data: text.txt, steps: 300}

      A rotation spreads outliers over all channels before something is rounded, without changing what
      the model computes:
        stages:
          - rotate: {method: quarot}
          - quantize: {bits: 4, group_size: 64}

      Keys of rotate, with defaults: method quarot, seed (the recipe's), values true (rotated head by
      head), online false (also the input of down, at run time), dtype (of each tensor as stored).
      With method spinquant, which learns rotations for a grid and holds the whole model in float32:
      data, bits 4, group_size 128, steps 100, learning_rate 1.5, samples 64, length 256, batch_size 8,
      memory_limit_mb.

      Keys of cut: shape, layers (uniform, first, last, importance or numbers), data. Keys of distill,
      with defaults: data, validation, teacher (the model that the recipe is applied to), method soft,
      losses, temperature 1, soft_weight 1, train (scales after quantize, else all), steps 300,
      batch_size 8, length 256, learning_rate 1e-4, warmup_steps 10.

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
