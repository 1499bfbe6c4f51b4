import ArgumentParser
import Checkpoints
import Evaluation
import Models
import Runtime
import Text
import Tokenizers

struct EvalGeneration: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generation",
    abstract: "Compare what a model writes with references, and with what a teacher expects.",
    discussion: """
      Give a model and --prompts: a .jsonl file of objects with "prompt" and perhaps "reference" or
      "references", or a text of documents, whose first --prompt-tokens tokens are the prompt and
      whose next --max-tokens tokens the reference. Or give finished texts as --predictions, one a
      line or .jsonl of objects with "prediction", and --references, one file for each reference.

      Examples:
        pare eval generation MODEL --prompts valid.txt --limit 200 --max-tokens 64
        pare eval generation student --prompts valid.txt --teacher MODEL --temperature 1
        pare eval generation --predictions mine.txt --references a.txt --references b.txt \\
          --require 'rouge_l_f1>=0.3'

      ROUGE is that of rouge-score (0 to 1, mean over texts), BLEU that of sacreBLEU (0 to 100, all
      texts together), distinct_n the share of word runs that are not repetitions. The teacher's
      log-likelihood is high for dull text too, so read it beside those.

      JSON keys: rouge_1_f1, rouge_1_precision, rouge_1_recall, rouge_2_…, rouge_l_…, each f1 with
      _standard_error; bleu, bleu_standard_error, brevity_penalty; distinct_1, distinct_2,
      distinct_3; teacher_log_likelihood (nats per token), teacher_log_likelihood_standard_error,
      teacher_tokens; texts, words, protocol, seconds; tokens and tokens_per_second where a model
      generated.
      """)

  @Argument(help: "Model that continues the prompts.", completion: .file())
  var model: String?

  @Option(help: "Prompts: .jsonl, or a text of documents.", completion: .file())
  var prompts: String?

  @Option(help: "Generated texts, instead of a model.", completion: .file())
  var predictions: String?

  @Option(help: "One reference for each text. May be repeated.", completion: .file())
  var references: [String] = []

  @Option(help: "Tokens of a document that are its prompt.")
  var promptTokens = 32

  @Option(help: "What stands between documents.")
  var separator = "<|endoftext|>"

  @Option(help: "Use only the first n texts.")
  var limit: Int?

  @Option(name: [.customShort("n"), .long], help: "Most tokens to add to a prompt.")
  var maxTokens = 64

  @Option(help: "Prompts continued together.")
  var batchSize = 16

  @Option(help: "0 takes the most probable token; 1 samples as the model predicts.")
  var temperature: Float = 0

  @OptionGroup var sampling: SamplingOptions

  @Option(help: "Model that judges how probable the texts are.", completion: .file())
  var teacher: String?

  @Flag(help: "ROUGE compares word stems (Porter).")
  var stem = false

  @Flag(help: "BLEU ignores case.")
  var lowercase = false

  @Option(
    name: .shortAndLong, help: "Write prompts, texts and references here as .jsonl.",
    completion: .file())
  var output: String?

  @Flag(help: "Replace an existing output file.")
  var overwrite = false

  @OptionGroup var runtime: RuntimeOptions
  @OptionGroup var gates: GateOptions
  @OptionGroup var report: ReportOptions

  static let keys =
    ["rouge_1", "rouge_2", "rouge_l"].flatMap { name in
      ["_f1", "_precision", "_recall", "_f1_standard_error"].map { name + $0 }
    } + [
      "bleu", "bleu_standard_error", "brevity_penalty", "distinct_1", "distinct_2", "distinct_3",
      "teacher_log_likelihood", "teacher_log_likelihood_standard_error", "teacher_tokens", "texts",
      "words", "seconds", "tokens", "tokens_per_second",
    ]

  func validate() throws {
    try gates.gates.validate(keys: Self.keys)
    try Temperature.check(temperature)
    for (name, count) in [
      ("--prompt-tokens", promptTokens), ("--limit", limit ?? 1), ("--max-tokens", maxTokens),
      ("--batch-size", batchSize),
    ] where count < 1 {
      throw ValidationError("\(name) must be 1 or more.")
    }
    if separator.isEmpty { throw ValidationError("--separator must not be empty.") }
    switch (model, prompts, predictions) {
    case (.some, .some, nil), (nil, nil, .some): break
    case (.some, nil, nil): throw ValidationError("A model needs --prompts to continue.")
    case (nil, .some, nil): throw ValidationError("--prompts needs a model that continues them.")
    case (nil, nil, nil):
      throw ValidationError("Give a model with --prompts, or --predictions.")
    default:
      throw ValidationError("--predictions takes the place of a model and --prompts.")
    }
  }

  func run() throws {
    let start = ContinuousClock.now
    var texts: [GeneratedText] = []
    var facts: [String: JSON] = [:]
    var protocols: [String] = []
    var studentTokenizer: JSON?
    let file = try output.map { output in
      try OutputFile(
        output, overwrite: overwrite, inputs: [prompts, predictions].compactMap { $0 } + references)
    }
    do {
      if let model, let prompts {
        let loaded = try runtime.loadForMeasuring(model)
        studentTokenizer = try Self.tokenizerFile(loaded)
        let generated = try generate(loaded, prompts, &texts)
        facts["tokens"] = JSON(generated.tokens)
        facts["tokens_per_second"] = JSON(Double(generated.tokens) / generated.seconds)
        facts["activations"] = JSON(loaded.activations.rawValue)
        protocols.append(generated.protocolName)
      } else if let predictions {
        texts = try GenerationInput.read(predictions: predictions, references: references)
        texts = Array(texts.prefix(limit ?? Int.max))
      }
      if let file {
        try file.write(texts.flatMap { $0.json.serialized() + [10] })
        try file.finish()
      }
    } catch {
      file?.discard()
      throw error
    }
    var json = try score(texts, &protocols)
    if let teacher {
      for (key, value) in try judge(texts, teacher, studentTokenizer, &protocols) {
        json[String(decoding: key, as: UTF8.self)] = value
      }
    }
    json["texts"] = JSON(texts.count)
    json["protocol"] = JSON(protocols.joined(separator: "; "))
    for key in ["tokens", "tokens_per_second", "activations"] { json[key] = facts[key] }
    json["seconds"] = JSON((ContinuousClock.now - start) / .seconds(1))
    let result = JSON.object(json)
    if report.json {
      try Console.print(result)
    } else {
      try Console.print(GenerationReport.text(result, protocols: protocols))
    }
    try gates.gates.check(result)
  }

  // MARK: Parts

  private func generate(_ model: LanguageModel, _ prompts: String, _ texts: inout [GeneratedText])
    throws -> (tokens: Int, seconds: Double, protocolName: String)
  {
    let tokenizer = try ModelTokenizer.load(model.checkpoint)
    let fromRecords = GenerationInput.isJSONL(prompts)
    if fromRecords {
      texts = try GenerationInput.read(prompts: prompts)
    } else {
      texts = try Continuations.split(
        [UInt8](try TextFile.read(prompts)), separator: Array(separator.utf8),
        promptTokens: promptTokens, maxTokens: maxTokens, limit: limit ?? Int.max,
        tokenizer: tokenizer)
      if texts.isEmpty { throw InputError.shortDocuments(file: prompts, tokens: promptTokens) }
    }
    for file in references {
      try GenerationInput.add(references: file, to: &texts, of: prompts)
    }
    texts = Array(texts.prefix(limit ?? Int.max))
    // Found out now and not after an hour of generating.
    if texts.contains(where: { !$0.references.isEmpty }),
      let index = texts.firstIndex(where: { $0.references.isEmpty })
    {
      throw EvaluationError.sampleWithoutReference(index + 1)
    }
    let start = ContinuousClock.now
    let progress = ProgressLine("generating", unit: "texts")
    let tokens = try Continuations(
      model: model, tokenizer: tokenizer, maxTokens: maxTokens, batchSize: batchSize,
      stops: sampling.stops,
      settings: {
        sampling.settings(temperature: temperature, seed: sampling.seed &+ UInt64($0))
      }
    ).run(&texts) { progress.update($0, of: $1) }
    progress.finish()
    let way =
      temperature == 0 ? "greedy" : "temperature \(temperature), seeds from \(sampling.seed)"
    return (
      tokens, (ContinuousClock.now - start) / .seconds(1),
      "continuations of at most \(maxTokens) tokens, \(way), of "
        + (fromRecords ? "given prompts" : "prompts of \(promptTokens) tokens")
    )
  }

  private func score(_ texts: [GeneratedText], _ protocols: inout [String]) throws -> JSONObject {
    let samples = texts.map { text in
      GenerationQuality.Sample(
        prediction: String(decoding: text.prediction, as: UTF8.self),
        references: text.references.map { String(decoding: $0, as: UTF8.self) })
    }
    var json = JSONObject()
    var distinct = Distinct([])
    if samples.contains(where: { !$0.references.isEmpty }) {
      let quality = try GenerationQuality.measure(
        samples, settings: .init(stemmed: stem, lowercased: lowercase))
      for (name, score) in [
        ("rouge_1", \ROUGE.rouge1), ("rouge_2", \ROUGE.rouge2), ("rouge_l", \ROUGE.rougeL),
      ] {
        let f1 = quality.mean { $0[keyPath: score].f1 }
        json["\(name)_f1"] = JSON(f1.value)
        json["\(name)_f1_standard_error"] = JSON(f1.standardError)
        json["\(name)_precision"] = JSON(quality.mean { $0[keyPath: score].precision }.value)
        json["\(name)_recall"] = JSON(quality.mean { $0[keyPath: score].recall }.value)
      }
      json["bleu"] = JSON(quality.bleu.score)
      json["bleu_standard_error"] = JSON(quality.bleuStandardError)
      json["brevity_penalty"] = JSON(quality.bleu.brevityPenalty)
      protocols += quality.protocolNames
      distinct = quality.distinct
    } else {
      distinct = Distinct(samples.map(\.prediction))
      protocols.append(Distinct.protocolName)
    }
    for (n, ratio) in distinct.ratios.enumerated() { json["distinct_\(n + 1)"] = JSON(ratio) }
    json["words"] = JSON(distinct.words)
    return json
  }

  private func judge(
    _ texts: [GeneratedText], _ path: String, _ studentTokenizer: JSON?,
    _ protocols: inout [String]
  ) throws -> JSONObject {
    let teacher = try LanguageModel.load(path)
    let reader = TeacherText(
      tokenizer: try ModelTokenizer.load(teacher.checkpoint),
      sharesTokens: try studentTokenizer == Self.tokenizerFile(teacher))
    let continuations = try texts.map { text in
      let ids = try reader.ids(text)
      return TeacherLikelihood.Continuation(prompt: ids.prompt, tokens: ids.continuation)
    }
    let progress = ProgressLine("judging", unit: "texts")
    let likelihood = try TeacherLikelihood.measure(teacher: teacher, continuations) {
      progress.update($0, of: $1)
    }
    progress.finish()
    protocols.append(TeacherLikelihood.protocolName)
    return JSONObject([
      ("teacher_log_likelihood", JSON(likelihood.mean)),
      ("teacher_log_likelihood_standard_error", JSON(likelihood.standardError)),
      ("teacher_tokens", JSON(likelihood.tokens)),
    ])
  }

  private static func tokenizerFile(_ model: LanguageModel) throws -> JSON? {
    let bytes = try? model.checkpoint.readSideFile("tokenizer.json")
    return try bytes.map { try JSON.parse($0, name: "tokenizer.json") }
  }
}
