import Foundation

/// The small story model that ships with the package, and held-out stories in its manner.
public enum DefaultModel {
  /// Folder of the checkpoint. The resources lie beside the program or the tests; `make install`
  /// keeps it so.
  /// - Throws: `RecipeError.defaultModelMissing`.
  public static func modelPath() throws(RecipeError) -> String { try resource("stories") }

  /// A UTF-8 text of stories, each ended by `<|endoftext|>`, that the model was not trained on.
  public static func heldOutPath() throws(RecipeError) -> String { try resource("held-out.txt") }

  /// The accessor that SwiftPM generates traps where the bundle is gone, so we look ourselves.
  private static func resource(_ name: String) throws(RecipeError) -> String {
    let program = Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent()
    let folders = [program, Bundle.main.bundleURL, Bundle.main.resourceURL].compactMap { $0 }
    for folder in folders {
      for bundle in ["Pare_Recipes.resources", "Pare_Recipes.bundle"] {
        let path = folder.appending(path: "\(bundle)/\(name)").path(percentEncoded: false)
        if FileManager.default.fileExists(atPath: path) { return path }
      }
    }
    throw .defaultModelMissing(
      lookedIn: folders.first?.path(percentEncoded: false) ?? "the program's folder")
  }
}
