public import Text

/// What is measured at one step of a training. A figure that was not measured is nil and is left
/// out of the logs.
public struct TrainingMetrics: Sendable, Equatable {
  /// Steps done, this one included; the first has number 1.
  public var step: Int
  /// Tokens trained on since the beginning.
  public var tokens: Int
  /// Mean loss of the step's tokens, nats per token.
  public var loss: Double
  public var learningRate: Double?
  /// Before clipping.
  public var gradientNorm: Double?
  public var tokensPerSecond: Double?
  /// Since the training's beginning, interruptions left out.
  public var seconds: Double?
  public var residentBytes: Int?
  /// Any other numbers by name, such as `held_out_loss` or the parts of a distillation's loss.
  public var others: [Named]

  public struct Named: Sendable, Equatable {
    public var name: String
    public var value: Double

    public init(_ name: String, _ value: Double) {
      self.name = name
      self.value = value
    }
  }

  /// The name under which a held-out loss stands among `others`.
  public static let heldOutLossName = "held_out_loss"

  public init(
    step: Int, tokens: Int, loss: Double, learningRate: Double? = nil,
    gradientNorm: Double? = nil, tokensPerSecond: Double? = nil, seconds: Double? = nil,
    residentBytes: Int? = nil, others: [Named] = []
  ) {
    self.step = step
    self.tokens = tokens
    self.loss = loss
    self.learningRate = learningRate
    self.gradientNorm = gradientNorm
    self.tokensPerSecond = tokensPerSecond
    self.seconds = seconds
    self.residentBytes = residentBytes
    self.others = others
  }

  public var heldOutLoss: Double? {
    others.first { $0.name == Self.heldOutLossName }?.value
  }

  /// Every figure but the step's number, in the order of the logs.
  var figures: [Named] {
    var figures = [Named("tokens", Double(tokens)), Named("loss", loss)]
    for (name, value) in [
      ("learning_rate", learningRate), ("gradient_norm", gradientNorm),
      ("tokens_per_second", tokensPerSecond), ("seconds", seconds),
      ("resident_bytes", residentBytes.map(Double.init)),
    ] {
      if let value { figures.append(Named(name, value)) }
    }
    return figures + others
  }

  /// One object; what is not finite is `null`, for which JSON has no number.
  public var json: JSON {
    var object = JSONObject([("step", JSON(step))])
    for figure in figures { object[figure.name] = JSON(figure.value) }
    object["tokens"] = JSON(tokens)
    if let residentBytes { object["resident_bytes"] = JSON(residentBytes) }
    return .object(object)
  }

  /// Reads what `json` wrote; nil where the step is missing or something is no number.
  public init?(json: JSON) {
    guard let object = json.object, let step = object["step"]?.int else { return nil }
    self.init(step: step, tokens: object["tokens"]?.int ?? 0, loss: .nan)
    for (key, value) in object {
      guard value.isNull || value.double != nil else { return nil }
      let number = value.double ?? .nan
      switch String(decoding: key, as: UTF8.self) {
      case "step", "tokens": break
      case "loss": loss = number
      case "learning_rate": learningRate = number
      case "gradient_norm": gradientNorm = number
      case "tokens_per_second": tokensPerSecond = number
      case "seconds": seconds = number
      case "resident_bytes": residentBytes = value.int
      case let name: others.append(Named(name, number))
      }
    }
  }
}
