import Checkpoints
import Tensors
import Text

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension GGUFConfigReader {
  /// Tensors that hold divisors of frequencies, not weights.
  static let rotaryTensors = [
    "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight",
  ]

  mutating func rotary(headDim: Int) throws(CheckpointError) {
    let theta = try optionalNumber("rope.freq_base") ?? 10_000
    let dimensions = try optionalSize("rope.dimension_count") ?? headDim
    var settings: [(String, JSON)] = [("rope_type", "default"), ("rope_theta", JSON(theta))]
    if dimensions != headDim {
      guard dimensions < headDim, name != "llama" else {
        throw unsupported("rope.dimension_count", "is \(dimensions) for heads of \(headDim)")
      }
      // The reader multiplies and rounds down, so the share must not fall short.
      settings.append(
        ("partial_rotary_factor", JSON((Double(dimensions) + 0.25) / Double(headDim))))
    }
    if dimensions == headDim, name == "gptneox" {
      settings.append(("partial_rotary_factor", 1.0))  // this family's default is a quarter
    }
    let context = try size("context_length")
    let trained = try optionalSize("rope.scaling.original_context_length")
    if let long = try divisors("rope_factors_long.weight", pairs: dimensions / 2),
      let short = try divisors("rope_factors_short.weight", pairs: dimensions / 2)
    {
      settings[0].1 = "longrope"
      settings += [
        ("long_factor", .array(long.map { JSON($0) })),
        ("short_factor", .array(short.map { JSON($0) })),
        ("original_max_position_embeddings", JSON(trained ?? context)),
      ]
      if let factor = try optionalNumber("rope.scaling.attn_factor") {
        settings.append(("attention_factor", JSON(factor)))
      }
    } else if let divisors = try divisors("rope_freqs.weight", pairs: dimensions / 2) {
      settings[0].1 = "llama3"
      let parameters = Self.llama3(
        divisors, theta: theta, dimensions: dimensions, context: context)
      settings += parameters
      if parameters.isEmpty {
        // No published parameters give these divisors: they are spelled out.
        let list = JSON.array(divisors.map { JSON($0) })
        settings[0].1 = "longrope"
        settings += [
          ("long_factor", list), ("short_factor", list),
          ("original_max_position_embeddings", JSON(context)), ("attention_factor", 1.0),
        ]
      }
    } else {
      settings = try scaled(settings, trained: trained)
    }
    set("rope_parameters", .object(JSONObject(settings)))
  }

  private func scaled(
    _ plain: [(String, JSON)], trained: Int?
  ) throws(CheckpointError) -> [(String, JSON)] {
    var settings = plain
    let stated = try text("rope.scaling.type")
    let legacy = try optionalNumber("rope.scale_linear")
    let kind = stated ?? (legacy == nil ? "none" : "linear")
    let factor = try optionalNumber("rope.scaling.factor") ?? legacy ?? 1
    switch kind {
    case "none": break
    case "linear":
      guard factor != 1 else { break }
      settings[0].1 = "linear"
      settings.append(("factor", JSON(factor)))
    case "yarn":
      settings[0].1 = "yarn"
      settings.append(("factor", JSON(factor)))
      if let trained { settings.append(("original_max_position_embeddings", JSON(trained))) }
      for (field, key) in [
        ("beta_fast", "rope.scaling.yarn_beta_fast"), ("beta_slow", "rope.scaling.yarn_beta_slow"),
      ] {
        if let value = try optionalNumber(key) { settings.append((field, JSON(value))) }
      }
      if let scale = try optionalNumber("rope.scaling.attn_factor"), scale != 1, factor > 1 {
        // llama.cpp multiplies what the factor implies.
        settings.append(("attention_factor", JSON(scale * (0.1 * log(factor) + 1))))
      }
    default: throw unsupported("rope.scaling.type", "is `\(kind)`; known: none, linear, yarn")
    }
    return settings
  }

  private func divisors(_ name: String, pairs: Int) throws(CheckpointError) -> [Double]? {
    guard let info = checkpoint.info(name) else { return nil }
    guard info.dtype == .float32, info.shape == [pairs] else {
      throw .wrongTensor(
        file: info.file, tensor: name, problem: "it is not \(pairs) numbers of type F32")
    }
    let values = try checkpoint.tensor(name).array
    guard values.allSatisfy({ $0 > 0 && $0.isFinite }) else {
      throw .wrongTensor(file: info.file, tensor: name, problem: "its divisors are not positive")
    }
    return values.map { Double($0.description) ?? Double($0) }
  }

  /// The published kind of parameters that give these divisors, as far as float32 shows; empty if
  /// none does.
  private static func llama3(
    _ divisors: [Double], theta: Double, dimensions: Int, context: Int
  ) -> [(String, JSON)] {
    guard let factor = divisors.max(), factor > 1 else { return [] }
    var trained = 1
    while trained <= context {
      let scaling = RotaryConfiguration.Scaling.llama3(
        factor: factor, low: 1, high: 4, trainedContext: trained)
      var rotary = RotaryConfiguration(theta: theta, dimensions: dimensions)
      rotary.scaling = scaling
      let made = rotary.llama3Divisors()
      if zip(made, divisors).allSatisfy({ abs($0 - $1) <= 1e-6 * $1 }) {
        return [
          ("factor", JSON(factor)), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0),
          ("original_max_position_embeddings", JSON(trained)),
        ]
      }
      trained *= 2
    }
    return []
  }
}

extension RotaryConfiguration {
  /// By what llama3's scaling divides each pair's frequency; empty for other scalings.
  package func llama3Divisors() -> [Double] {
    guard case .llama3(let factor, let low, let high, let trained) = scaling else { return [] }
    return (0..<(dimensions / 2)).map { pair in
      let wave = 2 * Double.pi * pow(theta, Double(2 * pair) / Double(dimensions))
      if wave < Double(trained) / high { return 1 }
      if wave > Double(trained) / low { return factor }
      let smooth = (Double(trained) / wave - low) / (high - low)
      return 1 / ((1 - smooth) / factor + smooth)
    }
  }
}
