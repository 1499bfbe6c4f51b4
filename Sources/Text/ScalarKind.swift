/// Questions about one scalar that tokenizers ask.
package enum ScalarKind {
  /// A character of a word: what `\w` means in Rust, the two joiners included.
  package static func isWord(_ scalar: UInt32) -> Bool {
    if scalar < 0x80 {
      return scalar == 0x5F || (0x30...0x39).contains(scalar)
        || (0x61...0x7A).contains(scalar | 0x20)
    }
    return scalar == 0x200C || scalar == 0x200D || UnicodeProperties.word.contains(scalar)
  }

  /// `White_Space`.
  package static func isWhitespace(_ scalar: UInt32) -> Bool {
    if scalar < 0x80 { return scalar == 0x20 || (0x09...0x0D).contains(scalar) }
    return UnicodeProperties.whitespace.contains(scalar)
  }

  /// A combining mark that `StripAccents` removes.
  package static func isAccent(_ scalar: UInt32) -> Bool {
    scalar >= 0x300 && UnicodeProperties.accents.contains(scalar)
  }
}
