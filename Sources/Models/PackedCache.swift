import Checkpoints
import Codecs
import Tensors

/// Packed matrices of one model in a file, in the order of computation, so that the next start maps
/// them instead of packing.
///
/// The file is named by a hash of the weight files' paths, sizes and times of modification: a changed
/// model has another file, and looking for one reads nothing of the weights.
final class PackedCache {
  /// Changes with the packed layouts.
  private static let kind = "pare-packed-2"

  private let path: String
  private let key: String
  private let inputs: [String]
  /// What an earlier start left; nil where it must be made.
  let file: Checkpoint?
  private var made: [(name: String, data: Tensor)] = []
  /// Number of the next matrix.
  private var next = 0

  /// - Throws: `ModelError.badPackedCache`, `CheckpointError`.
  init(of model: LanguageModel, in directory: String) throws {
    var hash = SHA256()
    for stamp in [Self.kind] + model.checkpoint.stamps {
      Array((stamp + "\n").utf8).withUnsafeBytes { hash.update($0) }
    }
    key = hash.finish()
    path = "\(directory)/packed-\(key.prefix(16)).safetensors"
    inputs = model.checkpoint.inputPaths
    // Outputs appear when whole, so a file of this name is complete or somebody else's.
    guard FileProbe.exists(path) else {
      file = nil
      return
    }
    let found = try Checkpoint.open(path)
    guard found.metadata["kind"] == Self.kind, found.metadata["key"] == key else {
      throw ModelError.badPackedCache(path: path, reason: "it was made of something else")
    }
    file = found
  }

  /// The packed form of a quantized matrix, else the weight itself.
  func packed(_ weight: any Weight) throws -> any Weight {
    let name = String(next)
    next += 1
    guard let file else {
      let packed = weight.packed
      if let packed = packed as? PackedWeight { made.append((name, packed.data)) }
      return packed
    }
    guard file.contains(name) else { return weight }
    guard let stored = weight as? any StoredWeight,
      let packed = PackedWeight(of: stored, data: try file.tensor(name))
    else { throw ModelError.badPackedCache(path: path, reason: "it does not fit the model") }
    return packed
  }

  /// Writes what was made.
  func finish() throws {
    guard file == nil, !made.isEmpty else { return }
    let output = try OutputFile(path, overwrite: true, inputs: inputs)
    do {
      var writer = try SafetensorsWriter(
        file: output.path,
        tensors: made.map {
          TensorDeclaration(name: $0.name, dtype: .uint8, shape: $0.data.shape)
        }, metadata: [("kind", Self.kind), ("key", key)])
      for (name, data) in made { try writer.append(name, data) }
      _ = try writer.finish()
      try output.finish()
    } catch {
      output.discard()
      throw error
    }
  }
}
