package import Checkpoints
package import Models
import Tensors
package import Text

/// A student made of chosen layers and widths of its teacher, in the teacher's order. One that takes
/// all is its teacher, bit for bit.
///
/// Layers can be chosen in every family; widths where queries, keys and values are matrices of their
/// own and norms take no mean (Llama, Mistral, Qwen 2 and 3). Quantized matrices become float32: their
/// groups do not survive a cut.
package struct StudentCut: Sendable {
  package let teacher: LanguageModel
  /// The teacher's layer for each of the student's.
  package let layers: [Int]
  package let config: JSON
  package let configuration: ModelConfiguration
  private let widths: StudentWidths?

  static let widthFamilies = ["llama", "mistral", "qwen2", "qwen3"]

  /// - Parameters:
  ///   - shape: sizes that are not stated follow the teacher.
  ///   - importance: of the teacher on a sample; needed for widths and the choice by importance.
  /// - Throws: `DistillationError` for a shape that the teacher cannot be cut to; `ModelError`.
  package init(
    _ teacher: LanguageModel, shape: StudentShape, layers choice: LayerChoice = .uniform,
    importance: StudentImportance? = nil
  ) throws {
    let path = teacher.checkpoint.path
    let blocks = teacher.configuration.blocks
    layers = try choice.layers(
      of: blocks.count, wanted: shape.layers, influence: importance?.layers)
    var config = try StudentConfig(LanguageModel.config(of: teacher.checkpoint), path: path)
    try config.setLayers(layers, of: blocks.count)
    widths = try StudentWidths(teacher, shape: shape, importance: importance)
    try widths?.write(to: &config)
    if try LanguageModel.quantization(config.json, path: path)?.transforms.isEmpty == false {
      throw DistillationError.cannotShape(
        path: path, problem: "its inputs are rotated at run time (transform_config)")
    }
    let keys = ["quantization_config", "compression_config", "quantization"]
    if keys.contains(where: config.has) {
      for key in keys { config.set(key, nil) }
      config.setType("float32")
    }
    var made = try ModelConfiguration(config: config.json, path: path)
    let windows = layers.map { blocks[$0].attention.slidingWindow }
    if made.blocks.map(\.attention.slidingWindow) != windows {
      config.setSlidingLayers(windows.map { $0 != nil })
      made = try ModelConfiguration(config: config.json, path: path)
    }
    // Whatever else depends on a layer's place must come out as it was.
    for (place, layer) in layers.enumerated() {
      let (new, old) = (made.blocks[place].attention, blocks[layer].attention)
      guard new.scale == old.scale, new.slidingWindow == old.slidingWindow,
        new.rotary == old.rotary, new.softCap == old.softCap
      else {
        throw DistillationError.cannotShape(
          path: path, problem: "its layer \(layer) would work otherwise in place \(place)")
      }
    }
    self.teacher = teacher
    self.config = config.json
    configuration = made
  }

  /// Writes a Hugging Face folder with the teacher's tokenizer; `finish` is left to the caller.
  package func write(to directory: OutputDirectory) throws {
    let entries = entries()
    var writer = try SafetensorsWriter(folder: directory.path, tensors: entries.map(\.declaration))
    for entry in entries { try writer.append(entry.declaration.name, entry.tensor()) }
    _ = try writer.finish()
    try teacher.checkpoint.checkIntact()
    try StudentFiles.copy(from: teacher.checkpoint, to: directory)
    try directory.write("config.json", config.serialized(pretty: true))
  }
}

// MARK: - Tensors

extension StudentCut {
  private struct Entry {
    var declaration: TensorDeclaration
    var tensor: () -> Tensor
  }

  /// The teacher's tensors that the student has, under the student's names and cut to its widths.
  private func entries() -> [Entry] {
    var outside: [Entry] = []
    var inside: [[Entry]] = teacher.configuration.blocks.map { _ in [] }
    func add(_ declaration: ModelTensor, _ tensor: Tensor?, _ make: @escaping () -> Tensor) {
      let cut = widths?.cuts[declaration.name]
      let shape = zip(declaration.shape, [cut?.rows, cut?.columns]).map { size, kept in
        kept?.count ?? size
      }
      let entry = Entry(
        declaration: TensorDeclaration(
          name: declaration.name, dtype: tensor?.dtype ?? .float32, shape: shape),
        tensor: {
          let whole = (tensor ?? make()).detached
          return cut.map { whole.gathered(rows: $0.rows, columns: $0.columns) } ?? whole
        })
      if let block = declaration.block {
        inside[block].append(entry)
      } else {
        outside.append(entry)
      }
    }
    _ = teacher.mapped(
      matrix: { declaration, weight in
        switch weight {
        case let dense as DenseWeight: add(declaration, dense.tensor) { dense.tensor }
        case let transposed as TransposedWeight:
          add(declaration, transposed.tensor) { transposed.tensor }
        default: add(declaration, nil) { weight.dequantized() }
        }
        return weight
      },
      vector: { declaration, tensor in
        let stored = asStored(tensor, declaration.name)
        add(declaration, stored) { stored }
        return tensor
      })
    for (place, layer) in layers.enumerated() {
      let old = teacher.configuration.blocks[layer].name
      let new = configuration.blocks[place].name
      for var entry in inside[layer] {
        entry.declaration.name = new + entry.declaration.name.dropFirst(old.count)
        outside.append(entry)
      }
    }
    return outside
  }

  /// Small vectors were widened when they were loaded; back in their type they are the same numbers.
  private func asStored(_ tensor: Tensor, _ name: String) -> Tensor {
    let checkpoint = teacher.checkpoint
    let bare = name.dropFirst(teacher.configuration.basePrefix.count)
    guard let type = (checkpoint.info(name) ?? checkpoint.info(String(bare)))?.dtype,
      type.isFloatingPoint, type != tensor.dtype
    else { return tensor }
    let narrow = tensor.detached.converted(to: type)
    return narrow.widened().array == tensor.detached.widened().array ? narrow : tensor
  }
}

/// The files that belong to a model besides its numbers.
enum StudentFiles {
  static func copy(from checkpoint: Checkpoint, to directory: OutputDirectory) throws {
    for name in checkpoint.sideFiles where name != "config.json" && name != "pare.json" {
      try directory.write(name, checkpoint.readSideFile(name))
    }
  }
}

extension Tensor {
  /// Some rows and columns of a matrix, or elements of a vector, in its own type.
  func gathered(rows: [Int]?, columns: [Int]?) -> Tensor {
    let size = dtype.byteCount
    let width = shape.count > 1 ? shape[1] : 1
    let rows = rows ?? Array(0..<shape[0])
    let columns = columns ?? Array(0..<width)
    let source = bytes
    return Tensor(
      dtype: dtype, shape: shape.count > 1 ? [rows.count, columns.count] : [rows.count]
    ) { target in
      var next = 0
      for row in rows {
        for column in columns {
          let from = (row * width + column) * size
          target[next..<(next + size)].copyBytes(from: source[from..<(from + size)])
          next += size
        }
      }
    }
  }
}
