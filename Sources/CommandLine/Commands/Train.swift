import ArgumentParser
import Recipes
import Training

struct Train: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Train a model on text, from random numbers or from where it stands.",
    discussion: """
      Examples:
        pare train config.json --tokenizer MODEL --data stories.txt --steps 2000 -o small
        pare train MODEL --data notes.txt --validation 0.02 --steps 300 --learning-rate 1e-4 -o tuned
        pare train config.json --tokenizer MODEL --data stories.txt --steps 2000 -o small --resume

      A config.json starts from random numbers and takes its tokenizer from --tokenizer. Documents of
      a text file end with <|endoftext|> or with --separator; JSONL records hold text, a prompt with
      its response, or messages.

      While it runs, checkpoints, metrics.jsonl and TensorBoard events lie in OUTPUT.training. A run
      that was stopped or killed goes on with --resume and ends in the same bytes. Ctrl-C stops after
      a checkpoint, a second one at once.

      JSON keys: output, loss, held_out_loss, steps, tokens, trained_parameters, tokens_per_second,
      seconds, resumed_from, peak_resident_bytes, settings, data, inputs.
      """)

  @Argument(
    help: "Folder of a Hugging Face checkpoint, a GGUF file, or a config.json to start anew.",
    completion: .file())
  var model: String

  @Option(help: "Folder with the tokenizer of a new model.", completion: .directory)
  var tokenizer: String?

  @OptionGroup var selection: TrainedOptions

  @OptionGroup var options: TrainingOptions

  func run() throws {
    var request = try options.request(model: model, tokenizer: tokenizer)
    request.trained = selection.train.map { Target($0) }
    let run = try TrainingRun(request)
    try TrainingCommand.run(run, options) { onStep in try run.train(onStep: onStep) }
  }
}
