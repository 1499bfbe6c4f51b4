public import ArgumentParser
public import Recipes
import Training

struct Distill: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Teach a small model what a larger one knows.",
    discussion: """
      Examples:
        pare distill --teacher BIG --student-shape layers=4,hidden=128 --data text.txt --steps 2000 -o small
        pare distill --teacher BIG --student-shape layers=3 --from-teacher --data text.txt --steps 500 -o cut
        pare distill --teacher BIG --student QUANTIZED --soft-weight 1 --train scales --data text.txt \\
          --steps 300 --learning-rate 1e-4 -o recovered
        pare distill --teacher A --teacher B --weighting entropy --student SMALL --data text.txt --steps 900 -o out
        pare distill --teacher BIG --student SMALL --data text.txt --steps 900 -o out \\
          --losses '[{labels: {weight: 0.3}}, {soft: {T: 2, weight: 0.7}}, {hidden: {layers: uniform}}]'

      Methods: labels (no teacher, for comparison), soft (temperature, --divergence), taid; hidden, fitnets,
      tinybert, mobilebert, distilbert (states and attention maps); minilm, minilm-v2, rkd-distance, rkd-angle,
      rkd-tokens (relations); uld (another tokenizer); sequence (the teacher's outputs); gkd, minillm, distillm
      (the student's own samples); born-again (--generations), ema, exits (a model as its own teacher).
      Each mixes the labels' loss with the teacher's by --soft-weight and adds the states' losses to them.

      Divergences: kl (default), reverse_kl, jeffreys, jsd (--beta), skew_kl, skew_reverse_kl (--alpha),
      total_variation, taid. Losses for --losses: labels, soft, hidden, attention, minilm, minilm_v2,
      relation, uld.

      Teacher and student must read the same tokens, or use uld. JSON keys as of pare train, and method,
      losses, vocabularies, teacher_sha256.
      """)

  @Option(help: "A model to learn from; may be repeated.", completion: .file())
  var teacher: [String] = []

  @Option(help: "The model that learns.", completion: .file())
  var student: String?

  @Option(
    help: ArgumentHelp(
      "Make the student from the teacher's config with other sizes: layers, hidden, heads, "
        + "keyValueHeads, intermediate.", valueName: "layers=4,hidden=128"))
  var studentShape: String?

  @Flag(
    help: "Start the student from the teacher's own layers and channels, not from random numbers.")
  var fromTeacher = false

  @Option(help: "With --from-teacher: uniform, first, last, importance, or numbers such as 0,2,4.")
  var layers = "uniform"

  @Option(help: "How to learn; see above.")
  var method = "soft"

  @Option(help: "Losses as YAML in place of the method's.")
  var losses: String?

  @Option(help: "Softens both distributions; their loss is multiplied by its square.")
  var temperature = 1.0

  @Option(help: "The teacher's share in the loss; the labels' is the rest.")
  var softWeight = 0.5

  @Option(help: "Between teacher and student. Default: the method's.")
  var divergence: String?

  @Option(help: "Of jsd: 0 is the forward KL, 1 the reverse.")
  var beta: Double?

  @Option(help: "Of the skew divergences.")
  var alpha: Double?

  @Option(help: "Several teachers: mean, entropy, likelihood (by position) or domain (by text).")
  var weighting = DistillationRequest.Weighting.mean

  @Option(help: "gkd: share of steps on the student's samples.")
  var lambda = 0.5

  @Option(help: "Samples: temperature.")
  var sampleTemperature: Float = 0.9

  @Option(help: "Samples: tokens after the prompt.")
  var maxNewTokens = 128

  @Option(help: "Samples: first tokens of a text that serve as prompt.")
  var promptTokens = 16

  @Option(help: "Samples: prompts taken of each batch. Default: one for each row.")
  var prompts: Int?

  @Option(help: "ema: the average's decay.")
  var teacherDecay = 0.999

  @Option(help: "born-again: students, each taught by the one before.")
  var generations = 2

  @Option(
    help: "Keep the teacher's most probable tokens in this file, or read them from it.",
    completion: .file())
  var teacherCache: String?

  @Option(help: "Tokens that a teacher's cache keeps at each position.")
  var cacheTop = 128

  @OptionGroup var selection: TrainedOptions
  @OptionGroup var options: TrainingOptions

  func validate() throws {
    guard student == nil || studentShape == nil else {
      throw ValidationError("--student and --student-shape exclude each other.")
    }
    guard student != nil || studentShape != nil else {
      throw ValidationError("Say who learns: --student MODEL or --student-shape layers=4.")
    }
    if fromTeacher, studentShape == nil {
      throw ValidationError("--from-teacher cuts a --student-shape out of the teacher.")
    }
    guard DistillationRequest.methodNames.contains(method) else {
      throw ValidationError(
        "--method is one of \(DistillationRequest.methodNames.joined(separator: ", ")).")
    }
    guard (0...1).contains(softWeight) else {
      throw ValidationError("--soft-weight is a share from 0 to 1.")
    }
    if method == "born-again", generations < 1 {
      throw ValidationError("--generations must be at least 1.")
    }
  }

  func run() throws {
    guard method == "born-again" else { return try run(request(), options) }
    try DistillationRun.bornAgain(
      generations: generations, request: try request(),
      train: { generation in
        Console.note("generation \(generation.number) of \(generations)")
        try run(generation.request, options, reports: generation.number == generations)
      })
  }

  private func run(
    _ request: DistillationRequest, _ options: TrainingOptions, reports: Bool = true
  ) throws {
    let progress = ProgressLine("teacher's cache", unit: "batches")
    let run = try DistillationRun(request, onCache: { progress.update($0, of: $1) })
    progress.finish()
    try TrainingCommand.run(run.training, options, reports: reports) { onStep in
      try run.train(onStep: onStep)
    }
  }

  private func request() throws -> DistillationRequest {
    let source: DistillationRequest.Student =
      if let student {
        .model(student)
      } else if fromTeacher {
        .cut(shape: studentShape ?? "", layers: layers)
      } else {
        .random(shape: studentShape ?? "")
      }
    var request = try DistillationRequest(
      training: try options.request(model: student ?? "", tokenizer: nil),
      teachers: teacher, student: source, methodName: method,
      lossesYAML: losses,
      soft: .init(
        divergence: divergence, beta: beta, alpha: alpha, temperature: temperature,
        weight: softWeight),
      samples: .init(
        studentShare: lambda, temperature: sampleTemperature, maxNewTokens: maxNewTokens,
        promptTokens: promptTokens, prompts: prompts),
      teacherDecay: teacherDecay)
    request.training.trained = selection.train.map { Target($0) }
    request.weighting = weighting
    request.cache = teacherCache
    request.cacheTop = cacheTop
    return request
  }
}

extension DistillationRequest.Weighting: ExpressibleByArgument {}
