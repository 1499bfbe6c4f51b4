import Foundation
import TestSupport
import Testing
import Text

/// The program as a user runs it.
struct PareProcess {
  var output: [UInt8]
  var errors: String
  var code: Int32

  var text: String { String(decoding: output, as: UTF8.self) }

  /// One JSON value on stdout.
  func json() throws -> JSON { try JSON.parse(output, name: "stdout") }

  static let program = {
    // Tests and program lie in one build folder.
    let bundle = Bundle.allBundles.map(\.bundleURL).first { $0.pathExtension == "xctest" }
    let folder = bundle?.deletingLastPathComponent() ?? Bundle.main.bundleURL
    return folder.appending(path: "pare").path
  }()

  /// Runs `pare` with arguments.
  /// - Parameter shell: runs before it in the same shell, such as `ulimit -f 8`.
  static func run(_ arguments: String..., shell: String? = nil) throws -> PareProcess {
    try run(arguments, shell: shell)
  }

  static func run(_ arguments: [String], shell: String? = nil, wrapper: [String] = []) throws
    -> PareProcess
  {
    let process = Process()
    // Nothing here takes a minute; a hang should be a failure.
    let limit =
      FileManager.default.isExecutableFile(atPath: "/usr/bin/timeout")
      ? ["/usr/bin/timeout", "60"] : []
    let command = limit + wrapper + [program] + arguments
    if let shell {
      process.executableURL = URL(filePath: "/bin/sh")
      process.arguments = ["-c", "\(shell); exec \"$@\"", "sh"] + command
    } else {
      process.executableURL = URL(filePath: command[0])
      process.arguments = Array(command.dropFirst())
    }
    // Files instead of pipes: a full pipe would stall the program.
    return try withTemporaryDirectory { folder in
      let paths = ["\(folder)/out", "\(folder)/err"]
      for path in paths { _ = FileManager.default.createFile(atPath: path, contents: nil) }
      let handles = try paths.map { try FileHandle(forWritingTo: URL(filePath: $0)) }
      process.standardOutput = handles[0]
      process.standardError = handles[1]
      try process.run()
      process.waitUntilExit()
      let (out, err) = (
        try Data(contentsOf: URL(filePath: paths[0])), try Data(contentsOf: URL(filePath: paths[1]))
      )
      return PareProcess(
        output: [UInt8](out), errors: String(decoding: err, as: UTF8.self),
        code: process.terminationStatus)
    }
  }
}

/// The model that comes with the package, and its text.
enum Stories {
  static let resources = SharedFiles.packageRoot.appending(path: "Sources/Recipes/Resources")
  static let model = resources.appending(path: "stories").path
  static let text = resources.appending(path: "held-out.txt").path

  /// A copy that a test may damage.
  static func copy(to path: String) throws {
    try FileManager.default.copyItem(atPath: model, toPath: path)
  }
}

/// Nothing but what the test put there.
func expectOnly(_ names: [String], in folder: String) throws {
  #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == names.sorted())
}
