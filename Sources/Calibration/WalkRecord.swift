import Checkpoints
import Codecs
import Models
import Tensors
import Text

/// The folder of a walk: one file for each finished block, and what the run is.
struct WalkRecord {
  private let folder: String
  private let identity: String

  private static let runFile = "run.json"

  /// Opens the folder of an unfinished run to go on with it, or makes a new one.
  /// - Throws: `CalibrationError.differentRun`, `.runExists`; `CheckpointError`.
  init(_ settings: BlockWalk.Settings) throws {
    folder = settings.folder
    identity = settings.identity
    let path = "\(folder)/\(Self.runFile)"
    if FileProbe.exists(path), !settings.overwrite {
      guard settings.resumes else { throw CalibrationError.runExists(folder: folder) }
      let stored = try JSON.parse(FileProbe.read(path), name: path)["identity"]?.string
      guard stored == identity else { throw CalibrationError.differentRun(folder: folder) }
      return
    }
    FileProbe.remove(folder)
    try FileProbe.makeFolder(folder)
    let run = try OutputFile(path, overwrite: true)
    let json: JSON = ["identity": JSON(identity)]
    try run.write(json.serialized(pretty: true))
    try run.finish()
  }

  /// The blocks that were finished, from the first on without a gap.
  func finishedBlocks(_ model: LanguageModel) throws -> [BlockFile] {
    var files: [BlockFile] = []
    for index in model.blocks.indices {
      let path = BlockFile.path(folder, index)
      guard FileProbe.exists(path) else { break }
      files.append(try BlockFile(path))
    }
    return files
  }

  func write(_ treated: TreatedBlock) throws -> BlockFile {
    try BlockFile.write(treated, to: BlockFile.path(folder, treated.index))
  }
}
