package import Tensors
package import Text

/// Says in JSON how a weight is stored, so that its components can be read back.
package enum StoredForm {
  /// - Returns: null for a form without a description: a dense one.
  package static func json(_ weight: any StoredWeight) -> JSON {
    switch weight {
    case let groups as GroupQuantizedWeight: json(groups.codec)
    case let floats as FloatGroupsWeight: json(floats.codec)
    default: .null
    }
  }

  /// - Throws: `CodecError` for a description that means nothing, or components that do not fit it.
  package static func weight(_ json: JSON, _ components: [String: Tensor]) throws(CodecError)
    -> any StoredWeight
  {
    switch json["kind"]?.string {
    case "affine": return try affineGroups(json).decode(components)
    case "float": return try floatGroups(json).decode(components)
    case let kind:
      throw .unsupportedSetting("weights stored as \(kind ?? "nothing known") cannot be read.")
    }
  }

  private static func json(_ codec: AffineGroups) -> JSON {
    [
      "kind": "affine", "bits": JSON(codec.bits), "group_size": json(codec.granularity),
      "symmetric": JSON(codec.isSymmetric), "scale_type": JSON(codec.scaleType.rawValue),
      "format": JSON(codec.layout.rawValue),
      "short_last_group": JSON(codec.allowsShortLastGroup),
    ]
  }

  private static func affineGroups(_ json: JSON) throws(CodecError) -> AffineGroups {
    guard let bits = json["bits"]?.int, let isSymmetric = json["symmetric"]?.bool,
      let scaleType = json["scale_type"]?.string.flatMap(DType.init(rawValue:)),
      let layout = json["format"]?.string.flatMap(AffineGroups.Layout.init(rawValue:)),
      let allowsShort = json["short_last_group"]?.bool
    else { throw .unsupportedSetting("the description of a group-quantized weight is incomplete.") }
    return try AffineGroups(
      bits: bits, granularity: granularity(json), isSymmetric: isSymmetric, scaleType: scaleType,
      layout: layout, allowsShortLastGroup: allowsShort)
  }
  private static func json(_ codec: FloatGroups) -> JSON {
    [
      "kind": "float", "format": JSON(codec.format.rawValue),
      "group_size": json(codec.granularity), "scale_type": JSON(codec.scaleType.rawValue),
    ]
  }

  private static func floatGroups(_ json: JSON) throws(CodecError) -> FloatGroups {
    guard let format = json["format"]?.string.flatMap(FloatGroups.Format.init(rawValue:)),
      let scaleType = json["scale_type"]?.string.flatMap(DType.init(rawValue:))
    else { throw .unsupportedSetting("the description of a weight in float codes is incomplete.") }
    return try FloatGroups(format, granularity: granularity(json), scaleType: scaleType)
  }

  private static func json(_ granularity: AffineGroups.Granularity) -> JSON {
    switch granularity {
    case .group(let size): JSON(size)
    case .channel: "channel"
    case .tensor: "tensor"
    }
  }

  private static func granularity(_ json: JSON) -> AffineGroups.Granularity {
    switch json["group_size"]?.string {
    case "channel": .channel
    case "tensor": .tensor
    default: .group(json["group_size"]?.int ?? 0)
    }
  }
}
