public import ArgumentParser
public import Recipes
import Training

struct Finetune: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Teach a model from instructions, conversations or text: all of it, or adapters.",
    discussion: """
      Examples:
        pare finetune MODEL --data instructions.jsonl --steps 300 -o tuned
        pare finetune MODEL --data chats.jsonl --lora --rank 16 --steps 300 -o tuned
        pare finetune MODEL --data chats.jsonl --lora --quantize-base nf4 --save adapter \\
          --steps 300 -o adapter

      Without --lora or --dora every number of the model is trained, at a learning rate of at most
      2e-5. --lora trains small matrices beside frozen ones, at 2e-4; --dora the rows' lengths too.
      The rate rises over 3 % of the steps and falls as a cosine.

      Of a prompt with its response, and of conversations, only what is answered counts, unless
      --no-mask-prompt is given.

      The result is a model folder with the adapters multiplied in, or with --save adapter a folder
      that PEFT reads and pare run --adapter takes. With --quantize-base nf4 the matrices inside
      blocks are held in 4-bit codes while adapters are trained on them (QLoRA); the merged model
      has the numbers that those codes stand for.

      Checkpoints, --resume, Ctrl-C and data files are as in pare train.

      JSON keys: output, loss, held_out_loss, steps, tokens, trained_parameters, tokens_per_second,
      seconds, resumed_from, peak_resident_bytes, adapters (with --lora or --dora), settings, data,
      inputs.
      """)

  @OptionGroup var model: ModelArgument
  @OptionGroup(title: "Adapters") var adapters: AdapterOptions
  @OptionGroup(title: "Training") var options: TrainingOptions

  func validate() throws {
    if adapters.areWanted, options.precision != .float32 {
      throw ValidationError("Adapters are float32; leave --precision out.")
    }
  }

  func run() throws {
    let defaults = TrainingOptions.Defaults(
      length: 512, learningRate: adapters.areWanted ? 2e-4 : 2e-5, warmupShare: 0.03)
    var request = try options.request(model: model.model, tokenizer: nil, defaults: defaults)
    if adapters.areWanted {
      request.adapters = adapters.request
    } else {
      request.trained = adapters.target.map { Target($0) }
    }
    let run = try TrainingRun(request)
    try TrainingCommand.run(run, options) { onStep in
      try run.train(command: "finetune", onStep: onStep)
    }
  }
}

/// Small matrices beside the model's.
struct AdapterOptions: ParsableArguments {
  @Flag(help: "Train a low-rank update of each target instead of the model.")
  var lora = false

  @Flag(help: "As --lora, with each row's length trained too.")
  var dora = false

  @Option(help: "Rank of the update. Default: 16.")
  var rank: Int?

  @Option(help: "Weight of the update, times 1 / rank. Default: 32.")
  var alpha: Double?

  @Option(help: "Share of an adapter's inputs left out at random. Default: 0.")
  var loraDropout: Double?

  @Flag(help: "Weigh the update by alpha / √rank.")
  var rankStabilized = false

  @Option(
    help: ArgumentHelp(
      "Roles, modules or patterns of the matrices that get adapters (default: all inside blocks) "
        + "or, without adapters, of the tensors that are trained (default: all). May be repeated."))
  var target: [String] = []

  @Option(help: "Hold the frozen matrices inside blocks in 4-bit codes: nf4.")
  var quantizeBase: AdapterRequest.Base?

  @Option(help: "merged: a model with the adapters multiplied in; adapter: the adapters alone.")
  var save: AdapterRequest.Result?

  var areWanted: Bool { lora || dora }

  func validate() throws {
    if areWanted { return }
    let given = [
      ("--rank", rank != nil), ("--alpha", alpha != nil), ("--lora-dropout", loraDropout != nil),
      ("--rank-stabilized", rankStabilized), ("--quantize-base", quantizeBase != nil),
      ("--save", save != nil),
    ]
    if let name = given.first(where: \.1)?.0 {
      throw ValidationError("\(name) is for adapters; add --lora or --dora.")
    }
  }

  var request: AdapterRequest {
    var request = AdapterRequest(
      settings: AdapterSettings(
        rank: rank ?? 16, alpha: alpha ?? 32, dropout: loraDropout ?? 0,
        isRankStabilized: rankStabilized, isWeightDecomposed: dora))
    request.targets = target.map { Target($0) }
    request.base = quantizeBase
    request.result = save ?? .merged
    return request
  }
}

extension AdapterRequest.Base: ExpressibleByArgument {}
extension AdapterRequest.Result: ExpressibleByArgument {}
