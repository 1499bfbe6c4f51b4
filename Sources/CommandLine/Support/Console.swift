import Foundation
import Text

/// Where words go: results to stdout, everything else to stderr.
enum Console {
  static func write(_ bytes: [UInt8]) throws {
    try FileHandle.standardOutput.write(contentsOf: Data(bytes))
  }

  static func print(_ text: String) throws { try write(Array((text + "\n").utf8)) }

  static func print(_ json: JSON) throws { try write(json.serialized(pretty: true) + [10]) }

  static func note(_ text: String) {
    FileHandle.standardError.write(Data((text + "\n").utf8))
  }

  static let isErrorTerminal = isatty(STDERR_FILENO) == 1
}

/// One line on stderr that counts up, with rate and time left; silent where stderr is no terminal.
final class ProgressLine {
  private let title: String
  private let unit: String
  private let clock = ContinuousClock()
  private let start: ContinuousClock.Instant
  private var last: ContinuousClock.Instant?
  private var isShown = false

  init(_ title: String, unit: String) {
    self.title = title
    self.unit = unit
    start = clock.now
  }

  /// - Parameters:
  ///   - scale: what one of `unit` is, in what `done` and `total` count; 0 where a rate says nothing.
  ///   - detail: what is being worked on.
  func update(_ done: Int, of total: Int, scale: Double = 1, detail: String = "") {
    guard Console.isErrorTerminal else { return }
    let now = clock.now
    if let last, now - last < .milliseconds(100), done < total { return }
    last = now
    let seconds = (now - start) / .seconds(1)
    var text = "\(title) \(total > 0 ? done * 100 / total : 100)%"
    if done > 0, seconds > 0.5 {
      let rate = Double(done) / seconds
      if scale > 0 { text += String(format: "  %.4g %@/s", rate / scale, unit) }
      text += "  \(Self.time(Double(total - done) / rate)) left"
    }
    if !detail.isEmpty { text += "  \(detail)" }
    isShown = true
    FileHandle.standardError.write(Data("\r\u{1B}[K\(text.prefix(110))".utf8))
  }

  /// Removes the line.
  func finish() {
    if isShown { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) }
    isShown = false
  }

  deinit { finish() }

  private static func time(_ seconds: Double) -> String {
    let s = Int(seconds.rounded(.up))
    return s < 60
      ? "\(s) s" : s < 3600 ? "\(s / 60) min \(s % 60) s" : "\(s / 3600) h \(s % 3600 / 60) min"
  }
}
