import Codecs
public import Text

extension CompressedTensors {
  /// Reads `quantization_config` of a `config.json`.
  ///
  /// - Throws: `ModelError.unsupportedQuantization` naming the method, format or setting that cannot
  ///   be read.
  public init(quantizationConfig json: JSON, path: String) throws(ModelError) {
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: reason, path: path)
    }
    guard let config = json.object else { throw bad("quantization_config is not an object") }
    let method = config["quant_method"]?.string ?? "absent"
    guard method == "compressed-tensors" else { throw bad("quant_method \(method)") }
    let modelFormat = config["format"]?.string
    guard let groupsObject = config["config_groups"]?.object else {
      throw bad("config_groups is missing")
    }
    if let cache = config["kv_cache_scheme"], !cache.isNull { throw bad("kv_cache_scheme") }
    if let sparsity = config["sparsity_config"]?.object, sparsity.keyStrings.contains("format"),
      sparsity["format"]?.string != "dense"
    {
      throw bad("sparsity_config \(sparsity["format"]?.string ?? "")")
    }
    var groups: [Group] = []
    for name in groupsObject.keyStrings {
      guard let group = groupsObject[name]?.object else { throw bad("\(name) is not an object") }
      if let value = group["output_activations"], !value.isNull {
        throw bad("\(name).output_activations: quantized outputs")
      }
      let activations = try Self.activations(group["input_activations"], name, path)
      guard let weights = group["weights"]?.object else {
        guard activations == nil else {
          throw bad("\(name).input_activations: quantized inputs of dense weights")
        }
        continue
      }
      let format = group["format"]?.string ?? modelFormat ?? "absent"
      let targets = group["targets"]?.array?.compactMap(\.string) ?? []
      let scheme: Scheme
      if weights["type"]?.string == "float" {
        guard activations == nil else {
          throw bad("\(name).input_activations: quantized inputs of float weights")
        }
        scheme = try Self.floatScheme(weights, format, name, path)
      } else if let format = AffineGroups.Layout(rawValue: format) {
        scheme = try Self.scheme(weights, activations, format, name, path)
      } else {
        throw bad("format \(format)")
      }
      guard !targets.isEmpty else { throw bad("\(name) has no targets") }
      groups.append(Group(targets: targets, scheme: scheme))
    }
    let ignore = config["ignore"]?.array?.compactMap(\.string) ?? []
    var transforms: [Transform] = []
    if let json = config["transform_config"], !json.isNull {
      transforms = try Self.transforms(json, path)
    }
    try self.init(groups: groups, ignore: ignore, transforms: transforms)
  }

  /// Those that run; what was multiplied into weights is listed too, and is done.
  private static func transforms(_ json: JSON, _ path: String) throws(ModelError) -> [Transform] {
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: "transform_config: \(reason)", path: path)
    }
    guard let groups = json["config_groups"]?.object else { throw bad("config_groups is missing") }
    var transforms: [Transform] = []
    var transformed: Set<String> = []
    for name in groups.keyStrings {
      guard let scheme = groups[name] else { continue }
      for apply in scheme["apply"]?.array ?? [] {
        let location = apply["location"]?.string ?? "absent"
        if ["weight_input", "weight_output"].contains(location) { continue }
        let type = scheme["type"]?.string ?? "absent"
        guard location == "input" else { throw bad("\(name) at the location \(location)") }
        guard type == "hadamard", scheme["randomize"]?.bool != true else {
          throw bad("\(name) of the type \(type)")
        }
        let targets = apply["targets"]?.array?.compactMap(\.string) ?? []
        for target in targets where !transformed.insert(target).inserted {
          throw bad("\(target) is transformed twice")
        }
        transforms.append(
          Transform(
            targets: targets, ignore: apply["ignore"]?.array?.compactMap(\.string) ?? [],
            size: scheme["head_dim"]?.int))
      }
    }
    return transforms
  }

  private static func scheme(
    _ weights: JSONObject, _ activations: ActivationScheme?, _ format: AffineGroups.Layout,
    _ name: String, _ path: String
  ) throws(ModelError) -> Scheme {
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: "\(name).weights: \(reason)", path: path)
    }
    let type = weights["type"]?.string ?? "int"
    guard type == "int" else { throw bad("type \(type)") }
    guard let bits = weights["num_bits"]?.int, AffineGroups.supportedBits.contains(bits) else {
      throw bad("num_bits should be 2, 3, 4, 5, 6 or 8")
    }
    return Scheme(
      format: format, bits: bits, isSymmetric: weights["symmetric"]?.bool ?? true,
      granularity: try granularity(weights, name, path),
      hasColumnOrder: ["group", "dynamic"].contains(weights["actorder"]?.string ?? ""),
      activations: activations)
  }

  /// Of type float: 8 bits are E4M3, 4 bits E2M1 in the groups of one of two formats.
  private static func floatScheme(
    _ weights: JSONObject, _ format: String, _ name: String, _ path: String
  ) throws(ModelError) -> Scheme {
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: "\(name).weights: \(reason)", path: path)
    }
    // Weights without quantized activations are "naive" to some writers; they lie in the same way.
    let name8 = format == "naive-quantized" ? FloatGroups.Format.float8.rawValue : format
    guard let floats = FloatGroups.Format(rawValue: name8) else {
      throw bad("format \(format) of type float")
    }
    guard weights["symmetric"]?.bool ?? true else { throw bad("zero points of type float") }
    let bits = floats == .float8 ? 8 : 4
    guard weights["num_bits"]?.int == bits else {
      throw bad("num_bits should be \(bits) in \(format)")
    }
    guard floats == .float8 else {
      let codec: FloatGroups = floats == .nvfp4 ? .nvfp4 : .mxfp4
      guard let size = weights["group_size"]?.int, codec.granularity == .group(size) else {
        throw bad("group_size should be \(floats == .nvfp4 ? 16 : 32) in \(format)")
      }
      return Scheme(codec)
    }
    let granularity = try granularity(weights, name, path)
    do {
      return Scheme(try .float8(granularity))
    } catch {
      throw bad(error.description)
    }
  }

  private static func granularity(_ weights: JSONObject, _ name: String, _ path: String)
    throws(ModelError) -> AffineGroups.Granularity
  {
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: "\(name).weights: \(reason)", path: path)
    }
    switch weights["strategy"]?.string {
    case "tensor": return .tensor
    case "channel": return .channel
    case "group", nil:
      guard let groupSize = weights["group_size"]?.int, groupSize != -1 else { return .channel }
      guard AffineGroups.supportedGroupSizes.contains(groupSize) else {
        throw bad("group_size should be 16 to 256")
      }
      return .group(groupSize)
    case .some(let other): throw bad("strategy \(other)")
    }
  }

  /// Integers on one grid per token, found as it comes, or one per tensor, stored.
  private static func activations(
    _ json: JSON?, _ name: String, _ path: String
  ) throws(ModelError) -> ActivationScheme? {
    guard let json, !json.isNull else { return nil }
    func bad(_ reason: String) -> ModelError {
      .unsupportedQuantization(reason: "\(name).input_activations: \(reason)", path: path)
    }
    guard let fields = json.object else { throw bad("not an object") }
    let type = fields["type"]?.string ?? "int"
    guard type == "int" else { throw bad("type \(type)") }
    guard let bits = fields["num_bits"]?.int, ActivationScheme.supportedBits.contains(bits) else {
      throw bad("num_bits should be 2 to 8")
    }
    let isDynamic: Bool
    switch fields["dynamic"] {
    case .some(let value) where value.bool != nil: isDynamic = value.bool ?? false
    case .none: isDynamic = false
    case .some: throw bad("dynamic should be true or false")
    }
    let granularity: ActivationScheme.Granularity
    switch (fields["strategy"]?.string ?? (isDynamic ? "token" : "tensor"), isDynamic) {
    case ("token", true): granularity = .token
    case ("tensor", false): granularity = .tensor
    case (let strategy, let isDynamic):
      throw bad("strategy \(strategy), \(isDynamic ? "dynamic" : "static")")
    }
    do throws(CodecError) {
      return try ActivationScheme(
        bits: bits, isSymmetric: fields["symmetric"]?.bool ?? true, granularity: granularity)
    } catch {
      throw bad(error.description)
    }
  }

  /// The `quantization_config` that readers of compressed-tensors expect. No key is invented:
  /// they refuse unknown ones.
  public var quantizationConfig: JSON {
    let formats = Set(groups.map(\.scheme.formatName))
    let format = formats.count > 1 ? "mixed-precision" : formats.first
    let configGroups = groups.enumerated().map { index, group in
      ("group_\(index)", Self.json(group))
    }
    var fields: [(String, JSON)] = [
      ("quant_method", "compressed-tensors"),
      ("format", JSON(format ?? "dense")),
      ("quantization_status", "compressed"),
      ("global_compression_ratio", nil),
      ("ignore", .array(ignore.map { JSON($0) })),
      ("kv_cache_scheme", nil),
      ("config_groups", .object(JSONObject(configGroups))),
    ]
    if !transforms.isEmpty { fields.append(("transform_config", transformConfig)) }
    return .object(JSONObject(fields))
  }

  private var transformConfig: JSON {
    let groups = transforms.enumerated().map { index, transform -> (String, JSON) in
      let scheme: JSON = [
        "type": "hadamard", "randomize": false, "requires_grad": false,
        "head_dim": transform.size.map { JSON($0) } ?? .null,
        "apply": [
          [
            "targets": .array(transform.targets.map { JSON($0) }), "location": "input",
            "inverse": false, "ignore": .array(transform.ignore.map { JSON($0) }),
          ]
        ],
      ]
      return ("transform_\(index)", scheme)
    }
    return ["config_groups": .object(JSONObject(groups))]
  }

  private static func json(_ group: Group) -> JSON {
    let scheme = group.scheme
    let (given, size): (JSON, JSON) =
      switch scheme.granularity {
      case .tensor: ("tensor", nil)
      case .channel: ("channel", nil)
      case .group(let size): ("group", JSON(size))
      }
    // Groups under a scale of the whole tensor have a name of their own.
    let strategy: JSON = scheme.floats == .nvfp4 ? "tensor_group" : given
    var weights: [(String, JSON)] = [
      ("num_bits", JSON(scheme.bits)), ("type", scheme.floats == nil ? "int" : "float"),
      ("symmetric", JSON(scheme.isSymmetric)), ("strategy", strategy), ("group_size", size),
      ("block_structure", nil), ("dynamic", false),
      ("actorder", scheme.hasColumnOrder ? "group" : nil),
      ("observer", "minmax"), ("observer_kwargs", .object(JSONObject())),
    ]
    switch scheme.floats {
    case .nvfp4: weights.append(("scale_dtype", "torch.float8_e4m3fn"))
    case .mxfp4: weights.append(("scale_dtype", "torch.uint8"))
    case .float8, nil: break
    }
    return [
      "targets": .array(group.targets.map { JSON($0) }),
      "weights": .object(JSONObject(weights)),
      "input_activations": scheme.activations.map(json) ?? nil,
      "output_activations": nil,
      "format": JSON(scheme.formatName),
    ]
  }

  private static func json(_ activations: ActivationScheme) -> JSON {
    [
      "num_bits": JSON(activations.bits), "type": "int",
      "symmetric": JSON(activations.isSymmetric),
      "strategy": JSON(activations.granularity.rawValue), "group_size": nil,
      "block_structure": nil, "dynamic": JSON(!activations.isStatic), "actorder": nil,
      "observer": activations.isStatic ? "minmax" : nil, "observer_kwargs": .object(JSONObject()),
    ]
  }
}
