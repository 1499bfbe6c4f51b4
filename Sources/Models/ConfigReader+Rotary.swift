#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension ConfigReader {
  /// Rotary settings in either spelling: transformers 5 nests everything in `rope_parameters`,
  /// transformers 4 has `rope_theta` beside an optional `rope_scaling`.
  ///
  /// - Parameters:
  ///   - kind: the key under `rope_parameters` where it differs by layer type (Gemma 3).
  ///   - theta: the base when the config names none.
  package mutating func rotary(
    headDim: Int, contextLength: Int, theta defaultTheta: Double = 10_000, kind: String? = nil,
    partial defaultPartial: Double = 1
  ) throws(ModelError) -> RotaryConfiguration {
    var theta = try optionalNumber("rope_theta")
    var partial = try optionalNumber("partial_rotary_factor")
    let original = try optionalSize("original_max_position_embeddings")
    let new = try nested("rope_parameters"), old = try nested("rope_scaling")
    var settings = new ?? old
    if let kind, settings?.has(kind) == true { settings = try settings?.nested(kind) }
    if let value = try settings?.optionalNumber("rope_theta") { theta = value }
    if let value = try settings?.optionalNumber("partial_rotary_factor") { partial = value }
    let dimensions = Int(Double(headDim) * (partial ?? defaultPartial))
    guard dimensions >= 2, dimensions <= headDim, dimensions % 2 == 0 else {
      throw bad("partial_rotary_factor", expected: "a share that rotates an even number of dims")
    }
    var rotary = RotaryConfiguration(theta: theta ?? defaultTheta, dimensions: dimensions)
    guard rotary.theta > 0 else { throw bad("rope_theta", expected: "positive") }
    if var settings {
      rotary.scaling = try settings.rotaryScaling(
        contextLength: contextLength, original: original, dimensions: dimensions)
      for name in try settings.finish() {
        throw .unsupportedField(
          name, value: "in rope settings", reason: "unknown rotary setting", path: path)
      }
    }
    return rotary
  }

  private mutating func rotaryScaling(contextLength: Int, original: Int?, dimensions: Int)
    throws(ModelError) -> RotaryConfiguration.Scaling
  {
    let legacy = try optionalString("type")
    let name = try optionalString("rope_type") ?? legacy ?? "default"
    let nestedOriginal = try optionalSize("original_max_position_embeddings")
    switch name {
    case "default", "none":
      return .none
    case "linear":
      return .linear(factor: try factor())
    case "dynamic":
      return .dynamic(factor: try factor(), trainedContext: contextLength)
    case "llama3":
      guard let trained = nestedOriginal else {
        throw .missingField("rope_scaling.original_max_position_embeddings", path: path)
      }
      return .llama3(
        factor: try factor(), low: try number("low_freq_factor", default: 1),
        high: try number("high_freq_factor", default: 4), trainedContext: trained)
    case "yarn":
      let factor = try factor()
      let scale = try optionalNumber("mscale"), scaleAll = try optionalNumber("mscale_all_dim")
      func temperature(_ weight: Double) -> Double {
        factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1
      }
      let implied =
        if let scale, let scaleAll, scale != 0, scaleAll != 0 {
          temperature(scale) / temperature(scaleAll)
        } else { temperature(1) }
      return .yarn(
        factor: factor, betaFast: try number("beta_fast", default: 32),
        betaSlow: try number("beta_slow", default: 1),
        trainedContext: nestedOriginal ?? original ?? contextLength,
        attentionFactor: try number("attention_factor", default: implied),
        truncate: try bool("truncate", default: true))
    case "longrope", "su":
      let trained = nestedOriginal ?? original ?? contextLength
      let short = try numbers("short_factor"), long = try numbers("long_factor")
      for (field, list) in [("short_factor", short), ("long_factor", long)]
      where list.count != dimensions / 2 || list.contains(where: { $0 <= 0 }) {
        throw bad(field, expected: "\(dimensions / 2) positive numbers")
      }
      let stated = try optionalNumber("factor")
      let stretch = stated ?? Double(contextLength) / Double(trained)
      let implied = stretch <= 1 ? 1 : (1 + log(stretch) / log(Double(trained))).squareRoot()
      return .long(
        short: short, long: long, trainedContext: trained,
        attentionFactor: try number("attention_factor", default: implied))
    default:
      throw unsupported(
        has("rope_type") ? "rope_type" : "type", "known: linear, dynamic, llama3, yarn, longrope")
    }
  }

  private mutating func factor() throws(ModelError) -> Double {
    guard let factor = try optionalNumber("factor") else {
      throw .missingField("rope_scaling.factor", path: path)
    }
    guard factor >= 1 else { throw bad("factor", expected: "at least 1") }
    return factor
  }
}
