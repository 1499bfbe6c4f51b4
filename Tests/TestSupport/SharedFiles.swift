public import Foundation

/// Real models and texts lie beside the checkout, never in it. A test that wants one says
/// `.enabled(if: SharedFiles.exists("models/stories260K"), "needs ../shared/models/stories260K")`.
public enum SharedFiles {
  public static let packageRoot = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  public static let root = packageRoot.deletingLastPathComponent().appending(path: "shared")

  public static func path(_ relative: String) -> String { root.appending(path: relative).path }
  public static func exists(_ relative: String) -> Bool {
    FileManager.default.fileExists(atPath: path(relative))
  }
}

/// Long tests run only when asked for: `PARE_LONG_TESTS=1 make test`.
public let longTestsAreOn = ProcessInfo.processInfo.environment["PARE_LONG_TESTS"] == "1"

/// A folder of the test's own, removed afterwards.
public func withTemporaryDirectory<R>(_ body: (String) throws -> R) throws -> R {
  let folder = FileManager.default.temporaryDirectory.appending(path: "pare-test-\(UUID())")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.path)
}
