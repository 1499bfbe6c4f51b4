import Foundation

/// The terminal at stdin: raw while a line is edited, otherwise as it was found.
enum Terminal {
  static let isInteractive = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1

  /// As it was found; set once, before the first line is read.
  nonisolated(unsafe) private static var original: termios?

  /// Typed ahead of the line that is read. Only the main thread reads.
  nonisolated(unsafe) private static var unread: ArraySlice<UInt8> = []

  enum Line: Equatable {
    case text(String)
    case interrupted
    case ended
  }

  /// Reads a line with editing.
  static func readLine(prompt: String, _ editor: inout LineEditor) throws -> Line {
    enterRawMode()
    defer { restore() }
    var drawn = LineEditor.Picture(text: "", rows: 1, cursorRow: 0, cursorColumn: 0)
    try draw(editor, prompt, &drawn)
    while true {
      if unread.isEmpty {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(STDIN_FILENO, &bytes, bytes.count)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { return .ended }
        unread = bytes[..<count]
      }
      switch editor.feed(unread.removeFirst()) {
      case .edited:
        // What arrives together, as pasted text does, is drawn once.
        if unread.isEmpty { try draw(editor, prompt, &drawn) }
      case .cleared:
        try write("\u{1B}[H\u{1B}[2J")
        drawn = LineEditor.Picture(text: "", rows: 1, cursorRow: 0, cursorColumn: 0)
        try draw(editor, prompt, &drawn)
      case .submitted(let text):
        try leave(text, prompt, &drawn)
        return .text(text)
      case .interrupted:
        try leave("", prompt, &drawn)
        return .interrupted
      case .ended:
        try leave("", prompt, &drawn)
        return .ended
      }
    }
  }

  // MARK: Drawing

  private static func write(_ text: String) throws { try Console.write(Array(text.utf8)) }

  private static var width: Int {
    var size = winsize()
    return ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
      ? Int(size.ws_col) : 80
  }

  private static func draw(
    _ editor: LineEditor, _ prompt: String, _ drawn: inout LineEditor.Picture
  ) throws {
    let picture = editor.picture(prompt: prompt, width: width)
    var output = toStart(of: drawn) + picture.text
    let back = picture.rows - 1 - picture.cursorRow
    if back > 0 { output += "\u{1B}[\(back)A" }
    output += "\r" + (picture.cursorColumn > 0 ? "\u{1B}[\(picture.cursorColumn)C" : "")
    drawn = picture
    try write(output)
  }

  private static func toStart(of drawn: LineEditor.Picture) -> String {
    (drawn.cursorRow > 0 ? "\u{1B}[\(drawn.cursorRow)A" : "") + "\r\u{1B}[J"
  }

  /// Shows the line as it was submitted and goes to the row below.
  private static func leave(
    _ text: String, _ prompt: String, _ drawn: inout LineEditor.Picture
  ) throws {
    let picture = LineEditor(text: text).picture(prompt: prompt, width: width)
    try write(toStart(of: drawn) + picture.text + "\r\n")
  }

  // MARK: Modes

  private static func enterRawMode() {
    var settings = termios()
    guard tcgetattr(STDIN_FILENO, &settings) == 0 else { return }
    if original == nil {
      original = settings
      // A kill while a line is edited must not leave a dumb terminal behind.
      atexit { Terminal.restore() }
    }
    settings.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
    settings.c_iflag &= ~tcflag_t(IXON | ICRNL | INLCR)
    tcsetattr(STDIN_FILENO, TCSADRAIN, &settings)
    // Pasted text arrives between marks.
    try? write("\u{1B}[?2004h")
  }

  private static func restore() {
    guard var settings = original else { return }
    var present = termios()
    guard tcgetattr(STDIN_FILENO, &present) == 0, present.c_lflag != settings.c_lflag else {
      return
    }
    try? write("\u{1B}[?2004l")
    tcsetattr(STDIN_FILENO, TCSADRAIN, &settings)
  }
}
