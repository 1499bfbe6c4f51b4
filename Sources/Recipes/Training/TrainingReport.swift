public import Checkpoints
public import Text
public import Training

/// What a training really did. Without its timings it travels inside the output as `pare.json`.
public struct TrainingReport: Sendable {
  public var command: String
  public var request: TrainingRequest
  public var modelType: String
  /// Numbers that were trained.
  public var parameters: Int
  public var data: DataSummary
  public var steps: Int
  /// Whose prediction counted.
  public var tokens: Int
  public var metrics: [TrainingMetrics]
  public var inputs: [FileHash]
  public var dataHash: String
  public var output = ""
  public var seconds = 0.0
  public var tokensPerSecond = 0.0
  /// The step that a resumed run went on from.
  public var resumedFrom: Int?
  public var peakResidentBytes: Int?
  public var notes: [String] = []
  /// Further fields, such as the losses of a distillation.
  public var details: [(String, JSON)] = []

  public var loss: Double { metrics.last?.loss ?? .nan }
  /// Nats per token of held-out text at the end.
  public var heldOutLoss: Double? { metrics.last?.heldOutLoss }

  public var curve: LossCurve {
    LossCurve(title: "\(command): loss per step", metrics: metrics)
  }

  /// The log without what differs from run to run.
  var metricsLines: [UInt8] {
    metrics.flatMap { metrics in
      var stable = metrics
      (stable.seconds, stable.tokensPerSecond, stable.residentBytes) = (nil, nil, nil)
      return stable.json.serialized() + [UInt8(ascii: "\n")]
    }
  }

  /// - Parameter withTimings: adds what differs from run to run.
  public func json(withTimings: Bool) -> JSON {
    var fields: [(String, JSON)] = [
      ("pare_version", JSON(PareVersion.current)), ("command", JSON(command)),
      ("model_type", JSON(modelType)),
    ]
    if withTimings { fields.append(("output", JSON(output))) }
    fields += [
      ("loss", JSON(loss)), ("held_out_loss", heldOutLoss.map { JSON($0) } ?? .null),
      ("steps", JSON(steps)), ("tokens", JSON(tokens)), ("trained_parameters", JSON(parameters)),
    ]
    if withTimings {
      fields += [
        ("tokens_per_second", JSON(tokensPerSecond)), ("seconds", JSON(seconds)),
        ("resumed_from", resumedFrom.map { JSON($0) } ?? .null),
        ("peak_resident_bytes", peakResidentBytes.map { JSON($0) } ?? .null),
      ]
    }
    fields += details
    fields += [
      ("settings", .object(request.settings.identity)),
      (
        "data",
        [
          "sha256": JSON(dataHash), "documents": JSON(data.documents), "bytes": JSON(data.bytes),
          "skipped_documents": JSON(data.skippedDocuments),
          "held_out_documents": JSON(data.heldOutDocuments),
          "distinct_tokens": JSON(data.distinctTokens),
        ]
      ),
      (
        "inputs",
        .array(
          inputs.map {
            ["file": JSON($0.file), "bytes": JSON($0.byteCount), "sha256": JSON($0.sha256)]
          })
      ),
    ]
    return .object(JSONObject(fields))
  }
}
