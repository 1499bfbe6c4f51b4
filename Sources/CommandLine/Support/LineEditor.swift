/// A line of input as the bytes of a terminal in raw mode change it. It knows nothing of the
/// terminal: bytes go in, events and a picture of the line come out.
///
/// A line that ends with a backslash goes on; pasted text may hold line breaks.
package struct LineEditor {
  package enum Event: Equatable {
    /// The picture may have changed.
    case edited
    case submitted(String)
    /// Ctrl-C.
    case interrupted
    /// Ctrl-D on an empty line.
    case ended
    /// Ctrl-L.
    case cleared
  }

  package private(set) var characters: [Character] = []
  /// Characters before the cursor.
  package private(set) var cursor = 0
  package private(set) var history: [String]

  /// Which entry of the history is shown; its count for the line being written.
  private var shown: Int
  /// The line being written while the history is shown.
  private var draft: [Character] = []
  /// An escape sequence or a UTF-8 character that is not complete.
  private var pending: [UInt8] = []
  private var isPasting = false

  private static let escape: UInt8 = 0x1B

  package init(history: [String] = []) {
    self.history = history
    shown = history.count
  }

  /// A line as it stands, the cursor at its end.
  package init(text: String) {
    self.init()
    characters = Array(text)
    cursor = characters.count
  }

  package var text: String { String(characters) }

  /// Remembers a line, unless it is empty or the same as the last.
  package mutating func remember(_ line: String) {
    if !line.isEmpty, history.last != line { history.append(line) }
    shown = history.count
  }

  package mutating func feed(_ byte: UInt8) -> Event {
    if !pending.isEmpty || byte == Self.escape || byte >= 0x80 { return gather(byte) }
    if isPasting {
      insert(byte == 0x0D ? "\n" : String(Unicode.Scalar(byte)))
      return .edited
    }
    switch byte {
    case 0x0D, 0x0A: return enter()
    case 0x03:
      reset()
      return .interrupted
    case 0x04:
      if characters.isEmpty { return .ended }
      deleteForward()
    case 0x01: moveToLineStart()
    case 0x05: moveToLineEnd()
    case 0x02: cursor = max(0, cursor - 1)
    case 0x06: cursor = min(characters.count, cursor + 1)
    case 0x08, 0x7F: deleteBackward()
    case 0x0B: characters.removeSubrange(cursor..<lineEnd)
    case 0x0C: return .cleared
    case 0x0E: recall(1)
    case 0x10: recall(-1)
    case 0x15: removeBackward(to: lineStart)
    case 0x17: removeBackward(to: wordStart)
    case 0x09: insert("\t")
    case 0x20...: insert(String(Unicode.Scalar(byte)))
    default: break
    }
    return .edited
  }

  private mutating func enter() -> Event {
    if characters.last == "\\" {
      characters[characters.count - 1] = "\n"
      cursor = characters.count
      return .edited
    }
    let line = text
    reset()
    return .submitted(line)
  }

  private mutating func reset() {
    characters = []
    cursor = 0
    draft = []
    shown = history.count
  }

  // MARK: Sequences of bytes

  private mutating func gather(_ byte: UInt8) -> Event {
    pending.append(byte)
    if pending[0] == Self.escape {
      escapeSequence()
    } else {
      utf8Sequence(byte)
    }
    return .edited
  }

  private mutating func utf8Sequence(_ byte: UInt8) {
    let needed =
      switch pending[0] {
      case 0xC2...0xDF: 2
      case 0xE0...0xEF: 3
      case 0xF0...0xF4: 4
      default: 1
      }
    if pending.count > 1, byte & 0xC0 != 0x80 {
      // Broken off: what came is no character, and this byte starts anew.
      pending = []
      insert("\u{FFFD}")
      _ = feed(byte)
    } else if pending.count == needed {
      let bytes = pending
      pending = []
      insert(String(decoding: bytes, as: UTF8.self))
    }
  }

  private mutating func escapeSequence() {
    guard pending.count > 1 else { return }
    switch pending[1] {
    case UInt8(ascii: "["), UInt8(ascii: "O"):
      guard pending.count > 2, let last = pending.last else { return }
      // Parameters are digits and semicolons; anything else ends the sequence.
      guard !(0x20...0x3F).contains(last) else {
        if pending.count > 32 { pending = [] }
        return
      }
      let parameters = String(decoding: pending[2..<(pending.count - 1)], as: UTF8.self)
      pending = []
      control(last, parameters)
    case Self.escape: pending = [Self.escape]
    default:
      let key = pending[1]
      pending = []
      guard !isPasting else { return }
      switch key {
      case UInt8(ascii: "b"): cursor = wordStart
      case UInt8(ascii: "f"): cursor = wordEnd
      case UInt8(ascii: "d"): characters.removeSubrange(cursor..<wordEnd)
      case 0x7F, 0x08: removeBackward(to: wordStart)
      case 0x0D: insert("\n")
      default: break
      }
    }
  }

  private mutating func control(_ key: UInt8, _ parameters: String) {
    if key == UInt8(ascii: "~"), parameters == "200" || parameters == "201" {
      isPasting = parameters == "200"
      return
    }
    guard !isPasting else { return }
    // A modifier (Ctrl or Alt) makes a jump of a step.
    let jumps = parameters.hasSuffix(";5") || parameters.hasSuffix(";3")
    switch key {
    case UInt8(ascii: "A"): recall(-1)
    case UInt8(ascii: "B"): recall(1)
    case UInt8(ascii: "C"): cursor = jumps ? wordEnd : min(characters.count, cursor + 1)
    case UInt8(ascii: "D"): cursor = jumps ? wordStart : max(0, cursor - 1)
    case UInt8(ascii: "H"): moveToLineStart()
    case UInt8(ascii: "F"): moveToLineEnd()
    case UInt8(ascii: "~"):
      switch parameters.prefix(while: { $0 != ";" }) {
      case "1", "7": moveToLineStart()
      case "4", "8": moveToLineEnd()
      case "3": if jumps { characters.removeSubrange(cursor..<wordEnd) } else { deleteForward() }
      default: break
      }
    default: break
    }
  }

  // MARK: Editing

  private mutating func insert(_ string: String) {
    // A combining mark joins the character before it, so the borders are found anew.
    let before = Array(String(characters[..<cursor]) + string)
    characters = before + characters[cursor...]
    cursor = before.count
  }

  private mutating func deleteBackward() {
    if cursor > 0 { removeBackward(to: cursor - 1) }
  }

  private mutating func deleteForward() {
    if cursor < characters.count { characters.remove(at: cursor) }
  }

  private mutating func removeBackward(to start: Int) {
    characters.removeSubrange(start..<cursor)
    cursor = start
  }

  private mutating func moveToLineStart() { cursor = lineStart }
  private mutating func moveToLineEnd() { cursor = lineEnd }

  private var lineStart: Int {
    (characters[..<cursor].lastIndex(of: "\n") ?? -1) + 1
  }

  private var lineEnd: Int { characters[cursor...].firstIndex(of: "\n") ?? characters.count }

  private static func isInWord(_ character: Character) -> Bool {
    character.isLetter || character.isNumber || character == "_"
  }

  private var wordStart: Int {
    var index = cursor
    while index > 0, !Self.isInWord(characters[index - 1]) { index -= 1 }
    while index > 0, Self.isInWord(characters[index - 1]) { index -= 1 }
    return index
  }

  private var wordEnd: Int {
    var index = cursor
    while index < characters.count, !Self.isInWord(characters[index]) { index += 1 }
    while index < characters.count, Self.isInWord(characters[index]) { index += 1 }
    return index
  }

  private mutating func recall(_ step: Int) {
    let wanted = shown + step
    guard wanted >= 0, wanted <= history.count else { return }
    if shown == history.count { draft = characters }
    shown = wanted
    characters = wanted == history.count ? draft : Array(history[wanted])
    cursor = characters.count
  }
}

extension LineEditor {
  /// The line as it is to be shown from the first column of a row.
  package struct Picture: Equatable {
    /// Rows joined by `\r\n`; every break is written, none left to the terminal.
    package var text: String
    package var rows: Int
    package var cursorRow: Int
    package var cursorColumn: Int

    package init(text: String, rows: Int, cursorRow: Int, cursorColumn: Int) {
      self.text = text
      self.rows = rows
      self.cursorRow = cursorRow
      self.cursorColumn = cursorColumn
    }
  }

  /// - Parameters:
  ///   - prompt: before the first line; further lines are indented by its width.
  ///   - width: columns of the terminal.
  package func picture(prompt: String, width: Int) -> Picture {
    let width = max(width, 4)
    var text = prompt
    var column = prompt.reduce(0) { $0 + DisplayWidth.of($1) }
    let indent = column
    var row = 0
    var cursorPlace = (row: 0, column: column)
    func place(_ index: Int) { if index == cursor { cursorPlace = (row, column) } }
    for (index, character) in characters.enumerated() {
      let size = DisplayWidth.of(character)
      if character != "\n", column + size > width { wrap() }
      place(index)
      if character == "\n" {
        wrap(indentedBy: indent)
        continue
      }
      text += character == "\t" ? String(repeating: " ", count: size) : Self.printable(character)
      column += size
      if column >= width { wrap() }
    }
    place(characters.count)
    func wrap(indentedBy indent: Int = 0) {
      text += "\r\n" + String(repeating: " ", count: indent)
      row += 1
      column = indent
    }
    return Picture(
      text: text, rows: row + 1, cursorRow: cursorPlace.row, cursorColumn: cursorPlace.column)
  }

  /// Pasted control characters must not reach the terminal.
  private static func printable(_ character: Character) -> String {
    character.unicodeScalars.contains { $0.properties.generalCategory == .control }
      ? "" : String(character)
  }
}
