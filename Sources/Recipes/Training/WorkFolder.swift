import Checkpoints
import Synchronization
import Text
import Training

/// The folder beside an output where a training keeps what it needs to go on: checkpoints, logs, and
/// the first numbers of a new model.
///
/// Whatever is wrong with a request shows before anything of an earlier run is removed; a folder
/// made for a run that never begins is removed again.
final class WorkFolder: Sendable {
  let path: String
  /// Whether there is a checkpoint to go on from, and that is wanted.
  let resumes: Bool
  private let isNew: Bool
  private let hasBegun = Atomic<Bool>(false)

  private static let initial = "initial-"
  private static let logs = ["metrics.jsonl", "events.out."]

  /// - Throws: `TrainingError.noCheckpoint`, `.runExists`; `CheckpointError`.
  init(_ request: TrainingRequest) throws {
    path = request.workFolder
    let exists = FileProbe.exists(path)
    let hasRun = try !TrainingCheckpoint.all(in: path).isEmpty
    // A run that was killed before its first checkpoint starts anew.
    guard exists || !request.resumes else { throw TrainingError.noCheckpoint(folder: path) }
    guard !hasRun || request.resumes || request.overwrite else {
      throw TrainingError.runExists(folder: path)
    }
    if !exists { try FileProbe.makeFolder(path) }
    isNew = !exists
    resumes = request.resumes && hasRun
  }

  /// Where the first numbers of a new model are kept, so that a resumed run starts from the same
  /// files.
  /// - Parameter digest: of all that decides them.
  func initialModel(digest: String) -> String { "\(path)/\(Self.initial)\(digest.prefix(16))" }

  /// Removes what earlier runs left, unless this one goes on with it.
  /// - Parameter kept: the folder of a new model's first numbers.
  func begin(keeping kept: String) {
    hasBegun.store(true, ordering: .relaxed)
    guard !resumes, !isNew else { return }
    let stale = [TrainingCheckpoint.prefix, ".\(TrainingCheckpoint.prefix)", Self.initial]
    for name in (try? FileProbe.names(in: path)) ?? []
    where (stale + Self.logs).contains(where: name.hasPrefix) && !kept.hasSuffix("/\(name)") {
      FileProbe.remove("\(path)/\(name)")
    }
  }

  deinit {
    if isNew, !hasBegun.load(ordering: .relaxed) { FileProbe.remove(path) }
  }
}
