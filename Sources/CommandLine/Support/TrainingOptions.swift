public import ArgumentParser
import Recipes
import Tensors
public import Training

/// Which numbers of a model are trained.
struct TrainedOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Tensors to train: roles, modules or patterns, may be repeated; or scales: those of a "
        + "quantized model, with its norms. Default: all that are not quantized.",
      valueName: "target"))
  var train: [String] = []
}

/// What every command that trains shares.
struct TrainingOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Text or JSONL to learn from; may be repeated; FILE:3 counts three times.",
      valueName: "file"), completion: .file())
  var data: [String] = []

  @Option(
    help: "What ends a document in a text file; write \\n for a line break. Default: <|endoftext|>."
  )
  var separator: String?

  @Option(help: "Field of JSONL records that holds the text, the messages or the prompt.")
  var field: String?

  @Option(help: "Field of JSONL records that holds the response to a prompt.")
  var responseField: String?

  @Option(
    help: ArgumentHelp(
      "Measure on this text (documents as in --data) or on a share of the data such as 0.02.",
      valueName: "file|share"))
  var validation: String?

  @Option(help: "Template for conversations and instructions: a file, chatml or plain.")
  var chatTemplate: String?

  @Flag(
    inversion: .prefixedNo,
    help: "Of prompts with responses and conversations only what is answered counts.")
  var maskPrompt = true

  @Option(help: "Optimizer steps.")
  var steps: Int

  @Option(help: "Rows per step.")
  var batchSize = 8

  @Option(help: "Rows in memory together; several passes add up to one step. Default: all.")
  var microBatchSize: Int?

  @Option(help: "Tokens per row.")
  var length: Int?

  @Option(
    help: ArgumentHelp(
      "packed: documents back to back, each attends to itself; whole: only long ones are split; "
        + "padded: one per row; stream: one text; windows: random places of it. Default: packed; "
        + "whole for prompts with responses and for conversations."))
  var packing: TrainingStream.Mode?

  @Option(
    help: ArgumentHelp(
      "Learning rate at its highest. Default: 3e-4; finetune 2e-5, with adapters 2e-4."))
  var learningRate: Double?

  @Option(help: "adamw, sgd, lion or muon.")
  var optimizer = "adamw"

  @Option(help: "Decoupled weight decay of matrices. Default: the optimizer's own.")
  var weightDecay: Double?

  @Option(help: "Bits of the optimizer's moments: 32 or 8.")
  var optimizerBits = 32

  @Option(help: "cosine, linear, constant or wsd.")
  var schedule = ScheduleName.cosine

  @Option(help: "Steps over which the learning rate rises. Default: none; finetune 3 % of all.")
  var warmupSteps: Int?

  @Option(help: "Share of the steps in which wsd decays.")
  var decayShare = 0.2

  @Option(help: "The learning rate's end, as a share of its highest.")
  var minimumRate = 0.0

  @Option(help: "Largest norm of a gradient; 0 for no limit.")
  var clipNorm = 1.0

  @Option(help: "Decay of an average of the weights, such as 0.999, that becomes the result.")
  var ema: Double?

  @Option(help: "Parameters during training: float32 or bfloat16 (with float32 master copies).")
  var precision = Precision.float32

  @Flag(help: "Without master copies bfloat16 parameters are rounded at random.")
  var noMasterCopies = false

  @Flag(help: "Keep only each block's input and compute the rest again on the way back.")
  var recompute = false

  @Option(help: "Steps between checkpoints.")
  var checkpointEvery = 500

  @Option(help: "Steps between measurements on the validation text. Default: at the end.")
  var evaluateEvery: Int?

  @Option(help: "Decides the order of documents, new weights and samples.")
  var seed: UInt64 = 0

  @Option(
    help: ArgumentHelp("Refuse to start where more memory is needed: 4GB.", valueName: "size"),
    transform: ByteSize.parse)
  var memoryLimit: Int?

  @Option(name: .shortAndLong, help: "Threads; default: the processors this process may use.")
  var threads: Int?

  @Flag(help: "Go on from the last checkpoint of an unfinished run.")
  var resume = false

  @Flag(help: "Keep the folder with checkpoints and logs beside the output.")
  var keepCheckpoints = false

  @Option(help: "Element type of the result: float32, float16, bfloat16. Default: as the model's.")
  var dtype: Precision?

  @Option(name: .shortAndLong, help: "Folder to write.", completion: .directory)
  var output: String

  @Flag(
    help: ArgumentHelp(
      "Replace an existing model folder and, without --resume, the checkpoints of an unfinished "
        + "run."))
  var overwrite = false

  @Flag(help: "Print the plan and stop.")
  var dryRun = false

  @OptionGroup var report: ReportOptions

  enum ScheduleName: String, ExpressibleByArgument, CaseIterable {
    case cosine, linear, constant, wsd
  }

  enum Precision: String, ExpressibleByArgument, CaseIterable {
    case float32, bfloat16, float16

    var dtype: DType {
      switch self {
      case .float32: .float32
      case .bfloat16: .bfloat16
      case .float16: .float16
      }
    }
  }

  func validate() throws {
    if let threads, !(1...256).contains(threads) {
      throw ValidationError("--threads must be between 1 and 256.")
    }
    guard optimizerBits == 32 || optimizerBits == 8 else {
      throw ValidationError("--optimizer-bits is 32 or 8.")
    }
    guard precision != .float16 else {
      throw ValidationError("--precision is float32 or bfloat16; float16 would overflow.")
    }
    guard clipNorm >= 0 else { throw ValidationError("--clip-norm must not be negative.") }
    do {
      _ = try OptimizerChoice(named: optimizer, learningRate: learningRate ?? 3e-4)
    } catch {
      throw ValidationError(error.description)
    }
  }

  /// What a command does where the user says nothing.
  struct Defaults {
    /// Tokens per row.
    var length = 256
    var learningRate = 3e-4
    /// Of all steps.
    var warmupShare = 0.0
  }

  func settings(_ defaults: Defaults) throws -> TrainingSettings {
    var settings = TrainingSettings(
      steps: steps,
      optimizer: try OptimizerChoice(
        named: optimizer, learningRate: learningRate ?? defaults.learningRate,
        weightDecay: weightDecay))
    settings.batchSize = batchSize
    settings.microBatchSize = microBatchSize
    settings.length = length ?? defaults.length
    settings.mode = packing ?? .packed
    settings.optimizerOptions.usesEightBitState = optimizerBits == 8
    settings.optimizerOptions.keepsMasterCopies = !noMasterCopies
    settings.schedule = Schedule(
      shape,
      warmupSteps: warmupSteps ?? Int((Double(steps) * defaults.warmupShare).rounded(.up)))
    settings.clipNorm = clipNorm == 0 ? nil : clipNorm
    settings.averageDecay = ema
    settings.parameterType = precision.dtype
    settings.recomputes = recompute
    settings.checkpointEvery = checkpointEvery
    settings.evaluateEvery = evaluateEvery
    settings.seed = seed
    return settings
  }

  private var shape: Schedule.Shape {
    switch schedule {
    case .cosine: .cosine(minimum: minimumRate)
    case .linear: .linear(minimum: minimumRate)
    case .constant: .constant
    case .wsd: .warmupStableDecay(decayShare: decayShare, minimum: minimumRate)
    }
  }

  func request(model: String, tokenizer: String?, defaults: Defaults = .init()) throws
    -> TrainingRequest
  {
    if let threads { Parallel.threads = threads }
    guard !data.isEmpty else { throw ValidationError("Say what to learn from with --data.") }
    var request = TrainingRequest(
      model: model, sources: try data.map { try source($0) },
      settings: try settings(defaults), output: output)
    if packing == nil, request.sources.contains(where: \.hasPrompts) {
      request.settings.mode = .whole
    }
    request.tokenizer = tokenizer
    if let validation {
      if let share = Double(validation) {
        request.heldOut = .share(share)
      } else {
        request.heldOutSource = try source(validation)
      }
    }
    request.chatTemplate = chatTemplate
    request.masksPrompts = maskPrompt
    request.overwrite = overwrite
    request.resumes = resume
    request.outputType = dtype?.dtype
    request.memoryLimit = memoryLimit
    request.keepsCheckpoints = keepCheckpoints
    return request
  }

  /// `FILE` or `FILE:3`.
  private func source(_ text: String) throws -> DataSource {
    var path = text, repeats = 1
    if let colon = text.lastIndex(of: ":"), let count = Int(text[text.index(after: colon)...]) {
      (path, repeats) = (String(text[..<colon]), count)
    }
    var source = try DataSource.detect(path: path, repeats: repeats)
    switch source.format {
    case .text:
      if let separator {
        source.format = .text(separator: separator.replacingOccurrences(of: "\\n", with: "\n"))
      }
    case .records: if let field { source.format = .records(field: field) }
    case .chat: if let field { source.format = .chat(field: field) }
    case .instructions(let prompt, let context, let response):
      source.format = .instructions(
        prompt: field ?? prompt, context: context, response: responseField ?? response)
    }
    return source
  }
}

extension DataSource {
  /// Whether only a part of each document counts.
  fileprivate var hasPrompts: Bool {
    switch format {
    case .text, .records: false
    case .instructions, .chat: true
    }
  }
}

extension TrainingStream.Mode: ExpressibleByArgument {}
