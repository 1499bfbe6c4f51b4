import Tensors
public import Text

extension StoredForm {
  /// The form as an object; see the cases of `StoredForm`.
  public var json: JSON {
    var members: [(String, JSON)] = [("kind", JSON(kind))]
    switch self {
    case .dense, .nf4, .lowRank, .sparse, .binary: break
    case .affine(let codec):
      members += [
        ("bits", JSON(codec.bits)), ("group_size", JSON(Self.size(codec.granularity))),
        ("symmetric", JSON(codec.isSymmetric)), ("scale_dtype", JSON(codec.scaleType.rawValue)),
        ("layout", JSON(codec.layout.rawValue)),
        ("short_last_group", JSON(codec.allowsShortLastGroup)),
      ]
    case .float(let codec):
      members += [
        ("format", JSON(codec.format.rawValue)),
        ("group_size", JSON(Self.size(codec.granularity))),
        ("scale_dtype", JSON(codec.scaleType.rawValue)),
      ]
    case .ternary(let packing, let groupSize):
      members += [("packing", JSON(packing.rawValue)), ("group_size", JSON(groupSize))]
    case .bilevel(let settings):
      members += [
        ("bits", JSON(settings.bits)), ("group_size", JSON(settings.groupSize)),
        ("level_bits", JSON(settings.levelBits)), ("level_rows", JSON(settings.levelRows)),
      ]
    case .mixedInt8(let threshold): members.append(("threshold", JSON(Double(threshold))))
    case .sum(let parts): members.append(("parts", .array(parts.map(\.json))))
    }
    return .object(JSONObject(members))
  }

  private static func size(_ granularity: AffineGroups.Granularity) -> Int {
    switch granularity {
    case .group(let size): size
    case .channel: -1
    case .tensor: 0
    }
  }

  private static func granularity(_ size: Int) -> AffineGroups.Granularity {
    size == -1 ? .channel : size == 0 ? .tensor : .group(size)
  }

  /// Reads what `json` wrote. Settings must all be there, and none besides.
  /// - Throws: `CodecError.unsupportedSetting` naming the member.
  public init(_ json: JSON) throws(CodecError) {
    self = try Self.read(json, depth: 0)
  }

  private static func read(_ json: JSON, depth: Int) throws(CodecError) -> StoredForm {
    var fields = try Fields(json)
    let kind = try fields.text("kind")
    let form: StoredForm
    switch kind {
    case "dense": form = .dense
    case "nf4": form = .nf4
    case "low-rank": form = .lowRank
    case "sparse": form = .sparse
    case "binary": form = .binary
    case "affine":
      form = .affine(
        try AffineGroups(
          bits: try fields.whole("bits"),
          granularity: granularity(try fields.whole("group_size")),
          isSymmetric: try fields.flag("symmetric"),
          scaleType: try fields.choice("scale_dtype", DType.init(rawValue:)),
          layout: try fields.choice("layout", AffineGroups.Layout.init(rawValue:)),
          allowsShortLastGroup: try fields.flag("short_last_group")))
    case "float":
      form = .float(
        try FloatGroups(
          try fields.choice("format", FloatGroups.Format.init(rawValue:)),
          granularity: granularity(try fields.whole("group_size")),
          scaleType: try fields.choice("scale_dtype", DType.init(rawValue:))))
    case "ternary":
      let size = try fields.whole("group_size")
      guard size >= 1 else {
        throw .unsupportedSetting("groups of \(size) columns do not exist; choose 1 or more.")
      }
      form = .ternary(
        packing: try fields.choice("packing", TernaryWeight.Packing.init(rawValue:)),
        groupSize: size)
    case "bilevel":
      form = .bilevel(
        try BilevelWeight.Settings(
          bits: try fields.whole("bits"), groupSize: try fields.whole("group_size"),
          levelBits: try fields.whole("level_bits"), levelRows: try fields.whole("level_rows")))
    case "mixed-int8":
      let threshold = try fields.number("threshold")
      guard threshold > 0, threshold.isFinite else {
        throw .unsupportedSetting("a threshold of \(threshold) is not above 0.")
      }
      form = .mixedInt8(threshold: Float(threshold))
    case "sum":
      // A sum takes sums apart, so that one inside another was written by nobody.
      guard depth == 0, let parts = fields.take("parts")?.array, !parts.isEmpty else {
        throw .unsupportedSetting("a stored sum needs 'parts', a list of forms that are no sums.")
      }
      var forms: [StoredForm] = []
      for part in parts { forms.append(try read(part, depth: depth + 1)) }
      form = .sum(forms)
    default:
      throw .unsupportedSetting(
        "a matrix is stored as '\(kind)', which this version does not know; use a newer one.")
    }
    try fields.finish(kind)
    return form
  }
}

/// The members of an object, each taken once.
private struct Fields {
  private var rest: JSONObject

  init(_ json: JSON) throws(CodecError) {
    guard let object = json.object else {
      throw .unsupportedSetting("a stored form is \(json.kind) where an object is expected.")
    }
    rest = object
  }

  mutating func take(_ name: String) -> JSON? {
    let value = rest[name]
    rest[name] = nil
    return value
  }

  private mutating func value<V>(_ name: String, _ kind: String, _ read: (JSON) -> V?)
    throws(CodecError) -> V
  {
    guard let value = take(name).flatMap(read) else {
      throw .unsupportedSetting("the member '\(name)' of a stored form is not \(kind).")
    }
    return value
  }

  mutating func text(_ name: String) throws(CodecError) -> String {
    try value(name, "a string", \.string)
  }
  mutating func whole(_ name: String) throws(CodecError) -> Int {
    try value(name, "a whole number", \.int)
  }
  mutating func number(_ name: String) throws(CodecError) -> Double {
    try value(name, "a number", \.double)
  }
  mutating func flag(_ name: String) throws(CodecError) -> Bool {
    try value(name, "true or false", \.bool)
  }
  mutating func choice<V>(_ name: String, _ read: (String) -> V?) throws(CodecError) -> V {
    try value(name, "a name known here") { $0.string.flatMap(read) }
  }

  func finish(_ kind: String) throws(CodecError) {
    guard let stray = rest.keyStrings.first else { return }
    throw .unsupportedSetting("the member '\(stray)' does not belong to the stored form '\(kind)'.")
  }
}
