import Distillation
import Text
import Training
import Yams

/// A stage of a recipe that wins back what the stages before lost: the model as it stands learns from
/// the model the recipe began with, or from another.
public struct DistillStage: Sendable, Equatable {
  public var data: [String] = []
  /// A file, or a share of the data such as 0.02.
  public var validation: String?
  /// nil: the model that the recipe is applied to.
  public var teacher: String?
  public var method = "soft"
  public var losses: [LossEntry]?
  public var temperature = 1.0
  public var softWeight = 1.0
  /// `scales`, roles, modules or patterns; empty: `scales` for a quantized model, else everything.
  public var trained: [Target] = []
  public var steps = 300
  public var batchSize = 8
  public var length: Int?
  public var learningRate = 1e-4
  public var warmupSteps = 10
  /// Line of the recipe file where the stage begins.
  public var line: Int?

  public init() {}

  init(_ node: Node) throws(RecipeError) {
    var fields = try Fields(node, "distill")
    line = fields.line
    data = try fields.texts("data") ?? []
    guard !data.isEmpty else { throw .malformed("distill lacks data", line: line) }
    validation = try fields.text("validation")
    teacher = try fields.text("teacher")
    method = try fields.text("method") ?? method
    guard DistillationRequest.methodNames.contains(method), method != "born-again" else {
      throw .badSetting(
        "method", value: method,
        expected: "a method of pare distill other than born-again", line: line)
    }
    losses = try fields.node("losses").map { (node) throws(RecipeError) in
      try LossEntry.list(node)
    }
    temperature = try fields.number("temperature") ?? temperature
    softWeight = try fields.number("soft_weight") ?? softWeight
    trained = try fields.targets("train") ?? []
    steps = try fields.integer("steps") ?? steps
    batchSize = try fields.integer("batch_size") ?? batchSize
    length = try fields.integer("length")
    learningRate = try fields.number("learning_rate") ?? learningRate
    warmupSteps = try fields.integer("warmup_steps") ?? warmupSteps
    try fields.finish()
  }

  var json: JSON {
    var fields: [(String, JSON)] = [
      ("data", .array(data.map { JSON($0) })), ("method", JSON(method)),
      ("temperature", JSON(temperature)), ("soft_weight", JSON(softWeight)),
      ("train", .array(trained.map { JSON($0.text) })), ("steps", JSON(steps)),
      ("batch_size", JSON(batchSize)), ("learning_rate", JSON(learningRate)),
      ("warmup_steps", JSON(warmupSteps)),
    ]
    if let validation { fields.append(("validation", JSON(validation))) }
    if let teacher { fields.append(("teacher", JSON(teacher))) }
    if let length { fields.append(("length", JSON(length))) }
    if let losses { fields.append(("losses", .array(losses.map { JSON($0.summary) }))) }
    return .object(JSONObject(fields))
  }

  /// - Parameters:
  ///   - student: the model as the stages before left it.
  ///   - original: the model that the recipe is applied to.
  func request(student: String, original: String, output: String, seed: UInt64, isQuantized: Bool)
    throws -> DistillationRequest
  {
    var settings = TrainingSettings(
      steps: steps, optimizer: try OptimizerChoice(named: "adamw", learningRate: learningRate))
    settings.batchSize = batchSize
    settings.length = length ?? 256
    settings.schedule = Schedule(.cosine(), warmupSteps: min(warmupSteps, steps))
    settings.seed = seed
    var training = TrainingRequest(
      model: student,
      sources: try data.map { path throws(TrainingError) in try DataSource.detect(path: path) },
      settings: settings, output: output)
    if let validation {
      if let share = Double(validation) {
        training.heldOut = .share(share)
      } else {
        training.heldOutSource = try DataSource.detect(path: validation)
      }
    }
    training.trained = trained.isEmpty && isQuantized ? [Target("scales")] : trained
    var request = try DistillationRequest(
      training: training, teachers: [teacher ?? original], student: .model(student),
      methodName: method, soft: .init(temperature: temperature, weight: softWeight))
    if let losses { request.losses = losses }
    return request
  }
}
