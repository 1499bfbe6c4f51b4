public import Text

extension Recipe {
  /// The recipe as reports carry it, every default spelled out, with the keys of the YAML form.
  public var json: JSON {
    [
      "name": JSON(name), "seed": .number(JSONNumber(Int(clamping: seed))),
      "stages": .array(
        stages.map { stage in
          switch stage {
          case .quantize(let stage): ["quantize": stage.json]
          case .cut(let stage): ["cut": stage.json]
          case .distill(let stage): ["distill": stage.json]
          case .rotate(let stage): ["rotate": stage.json]
          }
        }),
    ]
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
    if let blocks {
      fields.append(("blocks", JSON("\(blocks.lowerBound)-\(blocks.upperBound)")))
    }
    if !ignore.isEmpty { fields.append(("ignore", .array(ignore.map { JSON($0.text) }))) }
    fields += [
      ("indivisible", JSON(indivisible.rawValue)), ("format", JSON(format.rawValue)),
    ]
    return .object(JSONObject(fields))
  }
}
