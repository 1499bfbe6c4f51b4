import Checkpoints
public import Models
import Tensors
public import Text

/// What a checkpoint holds, role by role.
public struct Inspection: Sendable {
  public struct RoleRow: Sendable {
    public var role: Role
    public var tensors: Int
    public var parameters: Int
    public var bytes: Int
    /// Element types, or how packed weights are stored.
    public var storage: [String]
    /// What `pare quantize` can do with it.
    public var compressibility: String
  }

  public struct TensorRow: Sendable {
    public var name: String
    public var role: Role?
    public var shape: [Int]
    public var dtype: String
    public var bytes: Int
  }

  public let model: String
  public let configuration: ModelConfiguration
  public let roles: [RoleRow]
  /// As stored; the components of packed weights one by one.
  public let tensors: [TensorRow]
  public let dtypes: [(dtype: String, tensors: Int, bytes: Int)]
  /// A tied matrix counts once.
  public let parameters: Int
  /// Of all stored tensors.
  public let bytes: Int
  public var bitsPerWeight: Double { Double(bytes) * 8 / Double(max(parameters, 1)) }

  /// - Throws: `CheckpointError`, `JSONError`, `ModelError`.
  public init(_ path: String) throws {
    let checkpoint = try Checkpoint.openModel(path)
    let source = try WeightSource(checkpoint)
    configuration = source.configuration
    model = checkpoint.path

    var byRole: [Role: RoleRow] = [:]
    var roleOfStored: [String: Role] = [:]
    var total = 0
    for tensor in configuration.tensors {
      let scheme = source.scheme(of: tensor)
      let module = source.storedName(tensor.module)
      let names =
        scheme.map { $0.componentSuffixes.map { "\(module).\($0)" } }
        ?? [source.storedName(tensor.name)]
      let infos = names.compactMap { name in
        checkpoint.info(name).map { (name: name, info: $0) }
      }
      let storage =
        scheme?.summary ?? infos.first?.info.storage ?? "-"
      var row =
        byRole[tensor.role]
        ?? RoleRow(
          role: tensor.role, tensors: 0, parameters: 0, bytes: 0, storage: [],
          compressibility: scheme == nil && infos.first?.info.blockType == nil
            ? tensor.role.compressibility : "already quantized")
      row.tensors += 1
      row.parameters += tensor.count
      row.bytes += infos.reduce(0) { $0 + $1.info.byteCount }
      if !row.storage.contains(storage) { row.storage.append(storage) }
      byRole[tensor.role] = row
      total += tensor.count
      for (name, _) in infos { roleOfStored[name] = tensor.role }
    }
    roles = Role.allCases.compactMap { byRole[$0] }
    parameters = total

    var rows: [TensorRow] = []
    for name in checkpoint.names {
      guard let info = checkpoint.info(name) else { continue }
      rows.append(
        TensorRow(
          name: name, role: roleOfStored[name], shape: info.shape, dtype: info.storage,
          bytes: info.byteCount))
    }
    tensors = rows
    bytes = rows.reduce(0) { $0 + $1.bytes }
    var types: [(dtype: String, tensors: Int, bytes: Int)] = []
    for row in rows {
      if let index = types.firstIndex(where: { $0.dtype == row.dtype }) {
        types[index].tensors += 1
        types[index].bytes += row.bytes
      } else {
        types.append((row.dtype, 1, row.bytes))
      }
    }
    dtypes = types.sorted { $0.bytes > $1.bytes }
  }

  /// Name and value, as `inspect` prints them.
  public var facts: [(String, String)] {
    let attention = configuration.blocks.first?.attention
    var facts = [
      ("architecture", configuration.modelType), ("layers", "\(configuration.blocks.count)"),
      ("hidden size", "\(configuration.hiddenSize)"),
    ]
    if let attention {
      facts.append(
        (
          "heads",
          "\(attention.heads), \(attention.keyValueHeads) for keys and values, of \(attention.headDim)"
        ))
    }
    if let size = configuration.blocks.first?.feedForward.intermediateSize {
      facts.append(("intermediate size", "\(size)"))
    }
    facts += [
      ("vocabulary", "\(configuration.vocabularySize)"),
      ("context", configuration.contextLength.map { "\($0) tokens" } ?? "unbounded"),
      ("embeddings", configuration.head.isTied ? "tied to the head" : "separate from the head"),
    ]
    return facts
  }

  public func json(withTensors: Bool) -> JSON {
    let attention = configuration.blocks.first?.attention
    var fields: [(String, JSON)] = [
      ("model", JSON(model)), ("model_type", JSON(configuration.modelType)),
      ("layers", JSON(configuration.blocks.count)), ("hidden_size", JSON(configuration.hiddenSize)),
      ("heads", attention.map { JSON($0.heads) } ?? .null),
      ("key_value_heads", attention.map { JSON($0.keyValueHeads) } ?? .null),
      ("head_dim", attention.map { JSON($0.headDim) } ?? .null),
      ("vocabulary_size", JSON(configuration.vocabularySize)),
      ("context_length", configuration.contextLength.map { JSON($0) } ?? .null),
      ("tied_embeddings", JSON(configuration.head.isTied)), ("parameters", JSON(parameters)),
      ("bytes", JSON(bytes)), ("bits_per_weight", JSON(bitsPerWeight)),
      (
        "roles",
        .array(
          roles.map {
            [
              "role": JSON($0.role.rawValue), "tensors": JSON($0.tensors),
              "parameters": JSON($0.parameters), "bytes": JSON($0.bytes),
              "storage": .array($0.storage.map { JSON($0) }),
              "compressibility": JSON($0.compressibility),
            ]
          })
      ),
      (
        "dtypes",
        .array(
          dtypes.map {
            [
              "dtype": JSON($0.dtype), "tensors": JSON($0.tensors),
              "bytes": JSON($0.bytes),
            ]
          })
      ),
      ("unknown_fields", .array(configuration.unknownFields.map { JSON($0) })),
    ]
    if withTensors {
      fields.append(
        (
          "tensors",
          .array(
            tensors.map {
              [
                "name": JSON($0.name), "role": $0.role.map { JSON($0.rawValue) } ?? .null,
                "shape": .array($0.shape.map { JSON($0) }), "dtype": JSON($0.dtype),
                "bytes": JSON($0.bytes),
              ]
            })
        ))
    }
    return .object(JSONObject(fields))
  }
}

extension Role {
  fileprivate var compressibility: String {
    if isBlockLinear { return "by default" }
    return canBeQuantized ? "if targeted" : "kept"
  }
}
