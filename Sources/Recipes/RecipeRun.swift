import Checkpoints
public import Text
public import Training

/// A recipe of several passes: each reads what the one before wrote, the last writes the output.
public struct RecipeRun: Sendable {
  public let recipe: Recipe
  public let model: String
  public var consumer = Consumer.transformers
  public var shardByteLimit = SafetensorsWriter.defaultShardByteLimit
  public var walkSettings = Compression.WalkSettings()

  /// What is being done: a pass, and how much of it.
  public enum Progress: Sendable {
    case quantizing(Compression.Progress)
    case training(TrainingMetrics, steps: Int)
  }

  public init(_ recipe: Recipe, model: String) {
    self.recipe = recipe
    self.model = model
  }

  /// - Parameter onProgress: returning false stops a training after a checkpoint.
  /// - Returns: a report of each pass; nil where a training was stopped.
  /// - Throws: as `Compression` and `DistillationRun`.
  public func run(
    output: String, overwrite: Bool, onProgress: (Progress) throws -> Bool = { _ in true }
  ) throws -> JSON? {
    guard overwrite || !FileProbe.exists(output) else {
      throw CheckpointError.outputExists(path: output)
    }
    let passes = recipe.passes
    let folder = output + ".stages"
    try FileProbe.makeFolder(folder)
    var current = model
    var isQuantized = false
    var reports: [JSON] = []
    for (index, pass) in passes.enumerated() {
      let isLast = index == passes.count - 1
      let target = isLast ? output : "\(folder)/\(index + 1)"
      switch pass {
      case .compress(var recipe):
        var allocation: JSON?
        if recipe.needsAllocation {
          let found = try recipe.allocatingBits(model: current, consumer: consumer) {
            _ = try onProgress(.quantizing($0))
          }
          (recipe, allocation) = (found.recipe, found.report)
        }
        var compression = try Compression(recipe, model: current, consumer: consumer)
        compression.shardByteLimit = shardByteLimit
        compression.allocation = allocation
        compression.walkSettings = walkSettings
        let report = try compression.run(
          output: target, overwrite: overwrite || !isLast,
          onProgress: { _ = try onProgress(.quantizing($0)) })
        reports.append(report.json(withTimings: true))
        isQuantized = true
      case .cut(let stage):
        try stage.run(
          model: current, output: target, overwrite: overwrite || !isLast, seed: recipe.seed)
        reports.append(["command": "cut", "output": JSON(target), "settings": stage.json])
      case .rotate(let stage):
        reports.append(
          try stage.run(
            model: current, output: target, overwrite: overwrite || !isLast, seed: recipe.seed,
            shardByteLimit: shardByteLimit, onProgress: { _ = try onProgress(.quantizing($0)) }))
      case .distill(let stage):
        var request = try stage.request(
          student: current, original: model, output: target, seed: recipe.seed,
          isQuantized: isQuantized)
        request.training.overwrite = overwrite || !isLast
        let run = try DistillationRun(request)
        let report = try run.train { try onProgress(.training($0, steps: stage.steps)) }
        guard let report else { return nil }
        reports.append(report.json(withTimings: true))
      }
      current = target
    }
    FileProbe.remove(folder)
    return [
      "recipe": recipe.json, "output": JSON(output), "stages": .array(reports),
      "peak_resident_bytes": ProcessMemory.peakResidentBytes.map { JSON($0) } ?? .null,
    ]
  }
}
