public import Text

extension Recipe {
  /// The recipe as reports carry it, every default spelled out, with the keys of the YAML form.
  public var json: JSON {
    var fields: [(String, JSON)] = [
      ("name", JSON(name)), ("seed", .number(JSONNumber(Int(clamping: seed)))),
    ]
    if needsCalibration { fields.append(("calibration", calibration.json)) }
    fields.append(
      (
        "stages",
        .array(
          stages.map { stage in
            switch stage {
            case .smooth(let stage): ["smooth": stage.json]
            case .quantize(let stage): ["quantize": stage.json]
            case .correct(let stage): ["correct": stage.json]
            case .cut(let stage): ["cut": stage.json]
            case .distill(let stage): ["distill": stage.json]
            case .rotate(let stage): ["rotate": stage.json]
            }
          })
      ))
    return .object(JSONObject(fields))
  }
}

extension QuantizeStage {
  fileprivate var json: JSON {
    var fields: [(String, JSON)] = [("method", JSON(method.rawValue)), ("bits", JSON(bits))]
    switch granularity {
    case .group(let size): fields += [("strategy", "group"), ("group_size", JSON(size))]
    case .channel: fields.append(("strategy", "channel"))
    case .tensor: fields.append(("strategy", "tensor"))
    }
    fields += [
      ("symmetric", JSON(isSymmetric)), ("clipping", JSON(clipping.rawValue)),
      ("targets", .array(targets.map { JSON($0.text) })),
    ]
    if let allocation {
      switch allocation.budget {
      case .modelBytes(let bytes): fields.append(("target_size", JSON(bytes)))
      case .bitsPerWeight(let bits): fields.append(("target_bits", JSON(bits)))
      }
      if let sensitivity = allocation.sensitivity {
        fields.append(("sensitivity", JSON(sensitivity.rawValue)))
      }
      fields.append(("candidate_bits", .array(allocation.candidates.map { JSON($0) })))
    }
    if let blocks {
      fields.append(("blocks", JSON("\(blocks.lowerBound)-\(blocks.upperBound)")))
    }
    if !ignore.isEmpty { fields.append(("ignore", .array(ignore.map { JSON($0.text) }))) }
    if let activationScheme {
      fields.append(("activations", activationScheme.isStatic ? "int8-static" : "int8"))
    }
    switch method {
    case .gptq, .gptaq:
      fields += [
        ("dampening_frac", JSON(dampingFraction)), ("block_size", JSON(blockSize)),
        ("actorder", JSON(actOrder.rawValue)), ("static_groups", JSON(usesStaticGroups)),
      ]
    case .smoothquant:
      fields.append(
        ("smoothing_strength", smoothingStrength.map { JSON($0) } ?? "search"))
    case .autoround:
      if let iterations { fields.append(("iterations", JSON(iterations))) }
    default: break
    }
    fields += [
      ("indivisible", JSON(indivisible.rawValue)), ("format", JSON(format.rawValue)),
    ]
    return .object(JSONObject(fields))
  }
}
