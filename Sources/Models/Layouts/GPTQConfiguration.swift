public import Codecs
public import Text

/// A pattern that must match from a module's first letter on, and with a `$` to its last.
private struct ModulePattern: Sendable {
  private let pattern: Pattern
  private let isWhole: Bool

  init(_ text: String) throws(PatternError) {
    isWhole = text.hasSuffix("$") && !text.hasSuffix("\\$")
    pattern = try Pattern(
      String(text.dropFirst(text.hasPrefix("^") ? 1 : 0).dropLast(isWhole ? 1 : 0)))
  }

  func matches(_ module: [UInt8]) -> Bool {
    isWhole
      ? pattern.matches(in: module).first == 0..<module.count
      : pattern.matchesPrefix(of: module)
  }
}

/// The `quantization_config` of AutoGPTQ and GPTQModel, which is also `quantize_config.json`.
public struct GPTQConfiguration: Quantization {
  /// Modules that differ from the rest, by pattern; nil keeps them dense.
  public struct Rule: Sendable {
    public var pattern: String
    public var layout: GPTQLayout?

    public init(pattern: String, layout: GPTQLayout?) {
      self.pattern = pattern
      self.layout = layout
    }
  }

  /// Of modules that no rule names.
  public var layout: GPTQLayout
  public var rules: [Rule]
  public var isSymmetric: Bool
  /// Whether some matrix has its columns in the order of activation.
  public var hasActivationOrder: Bool
  public var includesHead: Bool
  private var patterns: [ModulePattern]

  /// - Throws: `ModelError.unsupportedQuantization` for a pattern that cannot be used.
  public init(
    layout: GPTQLayout, rules: [Rule] = [], isSymmetric: Bool, hasActivationOrder: Bool = false,
    includesHead: Bool = false
  ) throws(ModelError) {
    self.layout = layout
    self.rules = rules
    self.isSymmetric = isSymmetric
    self.hasActivationOrder = hasActivationOrder
    self.includesHead = includesHead
    patterns = []
    for rule in rules {
      do {
        patterns.append(try ModulePattern(rule.pattern))
      } catch {
        throw .unsupportedQuantization(reason: "\(rule.pattern): \(error)", path: "config.json")
      }
    }
  }

  /// What has packed codes in the file is quantized, whatever else the description says.
  public func layout(
    of module: String, className: String, isStored: (_ suffix: String) -> Bool
  ) -> (any MatrixLayout)? {
    guard isStored("qweight") else { return nil }
    let bytes = Array(module.utf8)
    for (rule, pattern) in zip(rules, patterns) where pattern.matches(bytes) {
      if let layout = rule.layout { return layout }
    }
    return layout
  }

  // MARK: JSON

  init(_ json: JSON, path: String) throws(ModelError) {
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: "gptq: \(reason)", path: path)
    }
    let format = json["checkpoint_format"]?.string ?? "gptq"
    guard let zeroPoints = GPTQLayout.ZeroPoints(rawValue: format) else {
      throw bad("checkpoint_format \(format); gptq and gptq_v2 are known")
    }
    if json["is_marlin_format"]?.bool == true { throw bad("is_marlin_format") }
    if let type = json["pack_dtype"]?.string, type != "int32" { throw bad("pack_dtype \(type)") }
    func layout(_ fields: JSON, _ fallback: GPTQLayout?) throws(ModelError) -> GPTQLayout {
      guard let bits = fields["bits"]?.int ?? fallback?.bits else { throw bad("bits is missing") }
      var groupSize = fallback.map(\.groupSize) ?? 128
      if let size = fields["group_size"]?.int { groupSize = size > 0 ? size : nil }
      do throws(CodecError) {
        return try GPTQLayout(bits: bits, groupSize: groupSize, zeroPoints: zeroPoints)
      } catch {
        throw bad(error.description)
      }
    }
    let common = try layout(json, nil)
    var rules: [Rule] = []
    if let dynamic = json["dynamic"]?.object {
      for (key, fields) in zip(dynamic.keyStrings, dynamic.values) {
        let pattern = key.hasPrefix("+:") || key.hasPrefix("-:") ? String(key.dropFirst(2)) : key
        rules.append(
          Rule(
            pattern: pattern, layout: key.hasPrefix("-:") ? nil : try layout(fields, common)))
      }
    }
    try self.init(
      layout: common, rules: rules, isSymmetric: json["sym"]?.bool ?? true,
      hasActivationOrder: json["desc_act"]?.bool ?? false,
      includesHead: json["lm_head"]?.bool ?? false)
  }

  /// What `config.json` and `quantize_config.json` say.
  /// - Parameter quantizer: name and version of the program that wrote it.
  public func json(quantizer: String) -> JSON {
    var fields: [(String, JSON)] = [
      ("bits", JSON(layout.bits)), ("group_size", JSON(layout.groupSize ?? -1)),
      ("desc_act", JSON(hasActivationOrder)), ("sym", JSON(isSymmetric)),
      ("lm_head", JSON(includesHead)), ("true_sequential", true), ("quant_method", "gptq"),
      ("checkpoint_format", JSON(layout.zeroPoints.rawValue)), ("pack_dtype", "int32"),
    ]
    if !rules.isEmpty {
      let dynamic = rules.map { rule -> (String, JSON) in
        guard let layout = rule.layout else {
          return ("-:\(rule.pattern)", .object(JSONObject()))
        }
        return (
          "+:\(rule.pattern)",
          ["bits": JSON(layout.bits), "group_size": JSON(layout.groupSize ?? -1)]
        )
      }
      fields.append(("dynamic", .object(JSONObject(dynamic))))
    }
    fields.append(("meta", ["quantizer": [JSON(quantizer)]]))
    return .object(JSONObject(fields))
  }
}
