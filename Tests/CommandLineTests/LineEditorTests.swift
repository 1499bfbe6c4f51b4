import Testing
import pare

/// Feeds keys and tells what came of them.
private struct Typist {
  var editor = LineEditor()
  var events: [LineEditor.Event] = []

  mutating func type(_ text: String) {
    for byte in text.utf8 { events.append(editor.feed(byte)) }
  }

  mutating func type(bytes: [UInt8]) { for byte in bytes { events.append(editor.feed(byte)) } }

  var submitted: [String] {
    events.compactMap { if case .submitted(let line) = $0 { line } else { nil } }
  }
}

private let left = "\u{1B}[D", right = "\u{1B}[C", up = "\u{1B}[A", down = "\u{1B}[B"
private let home = "\u{1B}[H", end = "\u{1B}[F", delete = "\u{1B}[3~", backspace = "\u{7F}"
private let wordLeft = "\u{1B}[1;5D", wordRight = "\u{1B}[1;5C"

/// The line, with `|` where the cursor is.
private func edited(_ keys: String) -> String {
  var typist = Typist()
  typist.type(keys)
  var characters = typist.editor.characters
  characters.insert("|", at: typist.editor.cursor)
  return String(characters)
}

@Test func keysMoveAndDelete() {
  #expect(edited("abc") == "abc|")
  #expect(edited("abc" + left + left + "x") == "ax|bc")
  #expect(edited("abc" + home + "x" + end + "y") == "xabcy|")
  #expect(edited("abc\u{1B}OHx\u{1B}[4~y\u{1B}[1~z") == "z|xabcy")
  #expect(edited("abc" + left + backspace) == "a|c")
  #expect(edited("abc" + home + delete + right) == "b|c")
  #expect(edited(backspace + delete + left + right) == "|")
  #expect(edited("abc\u{01}\u{06}\u{0B}") == "a|")
  #expect(edited("abc\u{02}\u{15}") == "|c")
  #expect(edited("abc\u{02}\u{04}") == "ab|")
}

@Test func wordsAreJumpedAndDeleted() {
  #expect(edited("one two, three" + wordLeft) == "one two, |three")
  #expect(edited("one two, three" + wordLeft + wordLeft) == "one |two, three")
  #expect(edited("one two" + home + wordRight) == "one| two")
  #expect(edited("one two" + home + "\u{1B}f\u{1B}f") == "one two|")
  #expect(edited("one two\u{1B}b") == "one |two")
  #expect(edited("one two\u{17}") == "one |")
  #expect(edited("one two\u{1B}\u{7F}\u{1B}\u{7F}") == "|")
  #expect(edited("one two" + home + "\u{1B}d") == "| two")
}

@Test func charactersAreWholeWhateverTheirBytes() {
  #expect(edited("aé😀漢" + backspace) == "aé😀|")
  #expect(edited("aé😀" + left + backspace) == "a|😀")
  // A combining accent joins the letter before it; a family is one character.
  #expect(edited("e\u{301}x" + left + left) == "|e\u{301}x")
  #expect(edited("👨‍👩‍👧x" + left + backspace) == "|x")
  var typist = Typist()
  typist.type(bytes: [0x61, 0xC3, 0x62, 0xFF, 0x63, 0x0D])
  #expect(typist.submitted == ["a\u{FFFD}b\u{FFFD}c"])
}

@Test func aTrailingBackslashContinuesTheLine() {
  var typist = Typist()
  typist.type("one\\\rtwo\r")
  #expect(typist.submitted == ["one\ntwo"])
  #expect(edited("one\\\rtwo" + home + "x") == "one\nx|two")
}

@Test func pastedTextIsNotObeyed() {
  var typist = Typist()
  typist.type("a\u{1B}[200~x\ry\u{03}\u{04}\tz\u{1B}[201~b\r")
  #expect(typist.submitted == ["ax\ny\u{03}\u{04}\tzb"])
  #expect(!typist.events.contains(.interrupted))
}

@Test func theHistoryIsWalkedAndTheDraftKept() {
  var typist = Typist()
  for line in ["first", "second", "second", ""] { typist.editor.remember(line) }
  #expect(typist.editor.history == ["first", "second"])
  typist.type("draft" + up)
  #expect(typist.editor.text == "second")
  typist.type(up + up + up)
  #expect(typist.editor.text == "first")
  typist.type("!" + down + down + down)
  #expect(typist.editor.text == "draft")
  typist.type(up + "\r")
  #expect(typist.submitted == ["second"])
}

@Test func controlKeysEndAndInterrupt() {
  var typist = Typist()
  typist.type("abc\u{03}")
  #expect(typist.events.last == .interrupted)
  #expect(typist.editor.text.isEmpty)
  typist.type("\u{04}")
  #expect(typist.events.last == .ended)
  typist.type("\u{0C}")
  #expect(typist.events.last == .cleared)
}

@Test func unknownSequencesLeaveNoTrace() {
  #expect(edited("a\u{1B}[24~\u{1B}[I\u{1B}[1;2Pb\u{1B}OPc\u{1B}\u{1B}[D\u{1B}z") == "ab|c")
}

@Test func thePictureBreaksRowsItself() {
  func picture(_ keys: String, width: Int) -> LineEditor.Picture {
    var typist = Typist()
    typist.type(keys)
    return typist.editor.picture(prompt: "> ", width: width)
  }
  #expect(
    picture("ab", width: 10) == .init(text: "> ab", rows: 1, cursorRow: 0, cursorColumn: 4))
  // A full row: the cursor stands in the next.
  #expect(
    picture("abcdefgh", width: 10)
      == .init(text: "> abcdefgh\r\n", rows: 2, cursorRow: 1, cursorColumn: 0))
  // A wide character does not fit in the last column.
  #expect(
    picture("abcdefg漢", width: 10)
      == .init(text: "> abcdefg\r\n漢", rows: 2, cursorRow: 1, cursorColumn: 2))
  #expect(
    picture("a\\\rb" + left, width: 10)
      == .init(text: "> a\r\n  b", rows: 2, cursorRow: 1, cursorColumn: 2))
  #expect(picture("a\u{1B}[200~\u{07}\u{1B}[201~", width: 10).text == "> a")
}

@Test func widthsAreThoseOfATerminal() {
  let widths: [(Character, Int)] = [
    ("a", 1), ("é", 1), ("e\u{301}", 1), ("漢", 2), ("한", 2), ("Ａ", 2), ("😀", 2), ("👨‍👩‍👧", 2),
    ("❤️", 2), ("\t", 4), ("ｱ", 1), ("\u{200B}", 0),
  ]
  for (character, width) in widths { #expect(DisplayWidth.of(character) == width, "\(character)") }
}

@Test func historyLinesSurviveTheirFile() {
  for line in ["plain", "two\nlines", "back\\slash", "\\n", "\\\n\\"] {
    #expect(!HistoryLine.encoded(line).contains("\n"))
    #expect(HistoryLine.decoded(HistoryLine.encoded(line)) == line)
  }
}
