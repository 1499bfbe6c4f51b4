package import Checkpoints
package import Codecs
package import Models
package import Tensors
package import Text

/// A treated block as it lies on disk: the tensors that changed, under their declared names, and what
/// was measured. It appears under its name only when it is whole.
package struct BlockFile: Sendable {
  package let tensors: Checkpoint
  /// Matrices in the order they were compressed.
  package let report: JSON
  private let folder: String

  private static let tensorFile = "block.safetensors"
  private static let reportFile = "block.json"

  static func path(_ folder: String, _ index: Int) -> String { "\(folder)/block-\(index)" }

  /// - Throws: `CalibrationError.badBlock`.
  init(_ folder: String) throws(CalibrationError) {
    self.folder = folder
    do {
      tensors = try Checkpoint.openSafetensors("\(folder)/\(Self.tensorFile)")
      let path = "\(folder)/\(Self.reportFile)"
      report = try JSON.parse(FileProbe.read(path), name: path)
    } catch {
      throw .badBlock(path: folder, reason: "\(error)")
    }
  }

  static func write(_ treated: TreatedBlock, to folder: String) throws -> BlockFile {
    let entries = entries(treated)
    let directory = try OutputDirectory(folder, overwrite: true)
    do {
      var writer = try SafetensorsWriter(
        file: "\(directory.path)/\(tensorFile)",
        tensors: entries.map {
          TensorDeclaration(name: $0.name, dtype: $0.tensor.dtype, shape: $0.tensor.shape)
        })
      for (name, tensor) in entries { try writer.append(name, tensor) }
      _ = try writer.finish()
      try directory.write(reportFile, json(treated).serialized(pretty: true))
      try directory.finish()
    } catch {
      directory.discard()
      throw error
    }
    return try BlockFile(folder)
  }

  /// Compressed matrices by the suffixes of their form, other changed tensors in float32.
  private static func entries(_ treated: TreatedBlock) -> [(name: String, tensor: Tensor)] {
    var entries: [(name: String, tensor: Tensor)] = []
    let compressed = Set(treated.matrices.map(\.module))
    func add(_ name: String, _ tensor: Tensor?) {
      if treated.changed.contains(name), let tensor { entries.append((name, tensor)) }
    }
    for linear in treated.block.linears {
      let module = linear.configuration.name
      if compressed.contains(module), let stored = linear.weight as? any StoredWeight {
        entries += stored.encoded().map { (name: "\(module).\($0.suffix)", tensor: $0.tensor) }
        entries += (linear.inputQuantizer?.encoded() ?? []).map {
          (name: "\(module).\($0.suffix)", tensor: $0.tensor)
        }
      } else {
        add("\(module).weight", linear.weight.dense)
      }
      add("\(module).bias", linear.bias)
    }
    var block = treated.block
    block.updateNorms { norm in
      add("\(norm.configuration.name).weight", norm.weight)
      add("\(norm.configuration.name).bias", norm.bias)
    }
    return entries
  }

  private static func json(_ treated: TreatedBlock) -> JSON {
    let forms = Dictionary(
      uniqueKeysWithValues: treated.block.linears.map { ($0.configuration.name, $0.weight) })
    let matrices = treated.matrices.map { matrix -> JSON in
      var fields: [(String, JSON)] = [
        ("module", JSON(matrix.module)),
        (
          "form",
          (forms[matrix.module] as? any StoredWeight).flatMap(StoredForm.init(of:))?.json ?? .null
        ),
        ("squared_error", JSON(matrix.error.squaredError)),
        ("squared_weight", JSON(matrix.error.squaredWeight)),
        ("largest_error", JSON(Double(matrix.error.largestError))),
        ("count", JSON(matrix.error.count)),
        ("relative_output_error", matrix.relativeOutputError.map { JSON($0) } ?? .null),
        ("seconds", JSON(matrix.seconds)),
      ]
      if !matrix.notes.isEmpty {
        fields.append(("notes", .array(matrix.notes.map { JSON($0) })))
      }
      return .object(JSONObject(fields))
    }
    return [
      "index": JSON(treated.index), "seconds": JSON(treated.seconds),
      "loss_before": treated.loss.map { JSON($0.before) } ?? .null,
      "loss_after": treated.loss.map { JSON($0.after) } ?? .null,
      "matrices": .array(matrices),
    ]
  }
}

// MARK: - Reading

extension BlockFile {
  /// How the matrix of a module is stored here; nil for one that is not compressed.
  package func compressed(_ module: String) throws -> (any StoredWeight)? {
    guard let entry = report["matrices"]?.array?.first(where: { $0["module"]?.string == module })
    else { return nil }
    let prefix = "\(module)."
    var components: [String: Tensor] = [:]
    let others = ["bias"] + Self.inputSuffixes
    for name in tensors.names
    where name.hasPrefix(prefix) && !others.contains(String(name.dropFirst(prefix.count))) {
      components[String(name.dropFirst(prefix.count))] = try tensors.tensor(name)
    }
    do {
      return try StoredForm(entry["form"] ?? .null).decode(components)
    } catch {
      throw CalibrationError.badBlock(path: folder, reason: "\(module): \(error)")
    }
  }

  /// In which form the matrix of a module is stored here; nil for one that is not compressed.
  package func form(_ module: String) throws -> StoredForm? {
    guard let entry = report["matrices"]?.array?.first(where: { $0["module"]?.string == module })
    else { return nil }
    return try StoredForm(entry["form"] ?? .null)
  }

  private static let inputSuffixes = ActivationScheme.staticSuffixes

  /// The tensors that say how a module's input is rounded; none where its grid is not stored.
  package func inputTensors(_ module: String) throws -> [(suffix: String, tensor: Tensor)] {
    try Self.inputSuffixes.filter { tensors.contains("\(module).\($0)") }
      .map { ($0, try tensors.tensor("\(module).\($0)")) }
  }

  /// The block with what was changed in the place of what was there.
  ///
  /// - Parameter activations: what the input of a compressed matrix is rounded to.
  package func block(
    replacing original: Block,
    activations: (LinearConfiguration) -> ActivationScheme? = { _ in nil }
  ) throws -> Block {
    var block = original
    try block.updateLinears { linear in
      let module = linear.configuration.name
      if let weight = try compressed(module) {
        linear.weight = weight
        linear.inputQuantizer = try activations(linear.configuration).map { scheme in
          try ActivationQuantizer(
            scheme,
            components: Dictionary(
              uniqueKeysWithValues: try inputTensors(module).map { ($0.suffix, $0.tensor) }))
        }
      } else if tensors.contains("\(module).weight") {
        let matrix = try tensors.tensor("\(module).weight")
        linear.weight =
          linear.weight is TransposedWeight ? TransposedWeight(matrix) : DenseWeight(matrix)
      }
      if tensors.contains("\(module).bias") { linear.bias = try tensors.tensor("\(module).bias") }
    }
    try block.updateNorms { norm in
      let name = norm.configuration.name
      if tensors.contains("\(name).weight") { norm.weight = try tensors.tensor("\(name).weight") }
      if tensors.contains("\(name).bias") { norm.bias = try tensors.tensor("\(name).bias") }
    }
    return block
  }
}

extension Weight {
  /// The tensor of a matrix that is stored as it is.
  fileprivate var dense: Tensor? {
    switch self {
    case let weight as DenseWeight: weight.tensor
    case let weight as TransposedWeight: weight.tensor
    default: nil
    }
  }
}
