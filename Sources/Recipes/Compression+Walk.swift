import Calibration
import Checkpoints
import Codecs
import Models
import Runtime
import Tensors
import Text

extension Compression {
  /// How a run that looks at activations goes about it.
  public struct WalkSettings: Sendable {
    /// Bytes that may be resident; nil keeps all activations in memory.
    public var memoryLimit: Int?
    /// Whether to go on with an unfinished run.
    public var resumes = false

    public init() {}
  }

  /// The samples in words; nil where no activations are looked at.
  public var calibrationText: String? {
    guard plan.needsWalk, plan.recipe.needsCalibration else { return nil }
    let request = plan.recipe.calibration
    let settings = request.resolved(for: source.configuration, seed: plan.recipe.seed)
    guard let data = request.data else {
      return "\(settings.samples) texts of up to \(settings.length) tokens that the model writes, "
        + "seed \(settings.seed), each begins with BOS"
    }
    let name = data.split(separator: "/").last.map(String.init) ?? data
    let packing =
      request.areTokens
      ? "token ids as they are" : "documents packed without padding, each begins with its BOS"
    return "\(settings.samples) rows of \(settings.length) tokens of \(name), seed "
      + "\(settings.seed), \(packing)"
  }

  /// How long the model will write its own calibration text; nil where it does not.
  public func selfWritingSeconds() throws -> Double? {
    let request = plan.recipe.calibration
    guard plan.needsWalk, plan.recipe.needsCalibration, request.data == nil else { return nil }
    let settings = request.resolved(for: source.configuration, seed: plan.recipe.seed)
    return try SelfWrittenText(seed: settings.seed).estimatedSeconds(
      try LanguageModel(checkpoint: source.checkpoint), samples: settings.samples,
      length: settings.length)
  }

  /// Treated blocks by index, and what the samples were.
  struct WalkResult {
    var files: [BlockFile]
    var folder: String
    var calibration: JSON?
  }

  /// Where finished blocks lie while a run that looks at activations goes on.
  static func workFolder(_ output: String) -> String {
    var path = output
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    return path + ".compressing"
  }

  func walk(output: String, overwrite: Bool, _ onProgress: (Progress) throws -> Void) throws
    -> WalkResult
  {
    let model = try LanguageModel(checkpoint: source.checkpoint)
    let set =
      try plan.recipe.needsCalibration
      ? plan.recipe.calibration.open(model, seed: plan.recipe.seed) { tokens, wanted in
        try onProgress(
          Progress(
            what: "the model writes its calibration text", done: tokens, total: wanted,
            isOfBytes: false))
      } : CalibrationSet(samples: [], origin: "nothing")
    var settings = BlockWalk.Settings(
      folder: Self.workFolder(output), identity: try identity(set))
    settings.memoryLimit = walkSettings.memoryLimit
    settings.resumes = walkSettings.resumes
    settings.overwrite = overwrite && !walkSettings.resumes
    let walk = try BlockWalk(
      model, set, treatment: plan.treatment, settings: settings,
      storedType: { [source] name in
        source.checkpoint.info(source.storedName(name))?.dtype ?? .float32
      })
    let total = 1000 * model.blocks.count
    let files = try walk.run { step in
      try onProgress(
        Progress(
          what: "block \(step.block + 1) of \(step.blocks): \(step.what)",
          done: Int(step.share * Double(total)), total: total, isOfBytes: false))
    }
    return WalkResult(
      files: files, folder: settings.folder,
      calibration: set.samples.isEmpty
        ? nil
        : [
          "origin": JSON(set.origin), "samples": JSON(set.samples.count),
          "length": JSON(set.samples.map(\.tokens.count).max() ?? 0), "tokens": JSON(set.tokens),
          "distinct_tokens": JSON(set.distinctTokens),
          "vocabulary": JSON(model.configuration.vocabularySize),
          "seed": .number(
            JSONNumber(Int(clamping: plan.recipe.calibration.seed ?? plan.recipe.seed))),
        ])
  }

  /// A digest of everything that decides the result.
  private func identity(_ set: CalibrationSet) throws -> String {
    let tokens = set.samples.flatMap { sample in
      [sample.tokens.count] + sample.tokens + sample.segments.flatMap { [$0.lowerBound, $0.count] }
    }
    let json: JSON = [
      "version": JSON(PareVersion.current), "recipe": plan.recipe.json,
      "tokens": JSON(tokens.withUnsafeBytes { SHA256.digest($0) }),
      "model": .array(try source.checkpoint.fileHashes().map { JSON($0.sha256) }),
    ]
    return json.serialized(pretty: false).withUnsafeBytes { SHA256.digest($0) }
  }

  /// The description of matrices in forms of their own; nil where compressed-tensors describes all.
  func forms(_ walk: WalkResult?) throws -> JSON? {
    guard let walk, plan.recipe.hasForms else { return nil }
    var forms: [(module: String, form: StoredForm)] = []
    for row in plan.rows {
      guard case .quantize(let codec, _) = row.action else { continue }
      let own = try row.tensor.block.flatMap { try walk.files[$0].form(row.tensor.module) }
      forms.append((row.module, own ?? .affine(codec)))
    }
    // bitsandbytes has words for a model whose quantized matrices are all its own.
    if forms.allSatisfy({ $0.form == .nf4 }) {
      return BitsAndBytesConfiguration().quantizationConfig
    }
    return FormConfiguration(forms).quantizationConfig
  }

  /// What a row of a treated block writes, in order; nil where the plan says it.
  func treatedOutputs(_ row: Plan.Row, _ walk: WalkResult?) throws -> [(String, Tensor)]? {
    guard let file = row.tensor.block.flatMap({ walk?.files[$0] }) else { return nil }
    if row.isQuantized {
      guard let weight = try file.compressed(row.tensor.module) else { return nil }
      return (weight.encoded() + (try file.inputTensors(row.tensor.module))).map {
        ("\(row.module).\($0.suffix)", $0.tensor)
      }
    }
    guard file.tensors.contains(row.tensor.name) else { return nil }
    let tensor = try file.tensors.tensor(row.tensor.name)
    return [(row.name, row.dtype == tensor.dtype ? tensor : tensor.converted(to: row.dtype))]
  }
}
