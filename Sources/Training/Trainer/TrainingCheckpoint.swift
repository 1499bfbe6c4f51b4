package import Checkpoints
package import Tensors
package import Text

/// A training between two steps, as it lies on disk: a model folder that any reader opens, with the
/// optimizer's state and the place in the data beside the weights.
///
/// A checkpoint appears under its name only when it is whole and on the disk, so whatever ends a run,
/// the newest one that is there can be resumed.
package struct TrainingCheckpoint: Sendable {
  package let step: Int
  package let path: String

  package static let prefix = "checkpoint-"
  /// Not a name that readers of models look for.
  private static let stateFile = "training_state.safetensors"
  private static let positionFile = "training_state.json"

  /// All checkpoints in a folder, oldest first.
  package static func all(in folder: String) throws -> [TrainingCheckpoint] {
    guard FileProbe.exists(folder) else { return [] }
    return try FileProbe.names(in: folder).compactMap { name in
      guard name.hasPrefix(prefix), let step = Int(name.dropFirst(prefix.count)) else { return nil }
      return TrainingCheckpoint(step: step, path: "\(folder)/\(name)")
    }.sorted { $0.step < $1.step }
  }

  /// - Parameters:
  ///   - state: tensors that a later step depends on besides the model's own.
  ///   - position: everything else, as JSON.
  ///   - saveModel: writes what makes the folder a model.
  /// - Throws: `CheckpointError`; what was there before stays.
  package static func write(
    step: Int, in folder: String, state: [(name: String, tensor: Tensor)], position: JSON,
    saveModel: (OutputDirectory) throws -> Void
  ) throws -> TrainingCheckpoint {
    let path = "\(folder)/\(prefix)\(step)"
    let directory = try OutputDirectory(path, overwrite: true)
    do {
      try saveModel(directory)
      var writer = try SafetensorsWriter(
        file: "\(directory.path)/\(stateFile)",
        tensors: state.map {
          TensorDeclaration(name: $0.name, dtype: $0.tensor.dtype, shape: $0.tensor.shape)
        })
      for (name, tensor) in state { try writer.append(name, tensor) }
      _ = try writer.finish()
      try directory.write(positionFile, position.serialized(pretty: true))
      try directory.finish()
    } catch {
      directory.discard()
      throw error
    }
    return TrainingCheckpoint(step: step, path: path)
  }

  /// The state's tensors by name, and the position.
  package func read() throws -> (state: [String: Tensor], position: JSON) {
    let file = try Checkpoint.openSafetensors("\(path)/\(Self.stateFile)")
    var state: [String: Tensor] = [:]
    for name in file.names { state[name] = try file.tensor(name) }
    let position = try FileProbe.read("\(path)/\(Self.positionFile)")
    return (state, try JSON.parse(position, name: "\(path)/\(Self.positionFile)"))
  }

  package func remove() { FileProbe.remove(path) }
}
