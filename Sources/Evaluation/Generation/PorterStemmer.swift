/// Strips English suffixes, so that *connected*, *connecting* and *connection* are one word.
/// Porter 1980, "An algorithm for suffix stripping", Program 14(3), with the changes that NLTK's
/// default has, because ROUGE scores with stemming are by convention those of `rouge-score`, which
/// stems with it.
package enum PorterStemmer {
  package typealias Word = [UInt8]

  /// - Parameter word: lower-case ASCII letters and digits.
  package static func stem(_ word: Word) -> Word {
    if let irregular = irregularForms[word] { return irregular }
    guard word.count > 2 else { return word }
    return [plural, pastAndGerund, finalY, doubleSuffix, adjectival, bareSuffix, finalE, finalL]
      .reduce(word) { $1($0) }
  }

  private static let irregularForms: [Word: Word] = {
    let forms = [
      "sky": "sky", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news",
      "innings": "inning", "inning": "inning", "outings": "outing", "outing": "outing",
      "cannings": "canning", "canning": "canning", "howe": "howe", "proceed": "proceed",
      "exceed": "exceed", "succeed": "succeed",
    ]
    return Dictionary(
      uniqueKeysWithValues: forms.map { (Array($0.utf8), Array($1.utf8)) })
  }()

  // MARK: Steps

  /// Step 1a.
  private static func plural(_ word: Word) -> Word {
    if word.count == 4, let stem = word.dropping("ies") { return stem + "ie".utf8 }
    return replace(word, [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")]) { _ in true }
  }

  /// Step 1b.
  private static func pastAndGerund(_ word: Word) -> Word {
    if let stem = word.dropping("ied") { return stem + (stem.count == 1 ? "ie" : "i").utf8 }
    if let stem = word.dropping("eed") { return measure(stem) > 0 ? stem + "ee".utf8 : word }
    guard let stem = word.dropping("ed") ?? word.dropping("ing"), hasVowel(stem) else {
      return word
    }
    for ending in ["at", "bl", "iz"] where stem.dropping(ending) != nil { return stem + "e".utf8 }
    if endsInDoubleConsonant(stem), let last = stem.last {
      return "lsz".utf8.contains(last) ? stem : stem.dropLast()
    }
    return measure(stem) == 1 && endsInShortSyllable(stem) ? stem + "e".utf8 : stem
  }

  /// Step 1c.
  private static func finalY(_ word: Word) -> Word {
    guard let stem = word.dropping("y"), stem.count > 1, consonants(stem).last == true else {
      return word
    }
    return stem + "i".utf8
  }

  /// Step 2.
  private static func doubleSuffix(_ word: Word) -> Word {
    if let stem = word.dropping("alli"), measure(stem) > 0 {
      return doubleSuffix(stem + "al".utf8)
    }
    let rules = [
      ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"),
      ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"),
      ("ization", "ize"), ("ation", "ate"), ("ator", "ate"), ("alism", "al"), ("iveness", "ive"),
      ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"), ("iviti", "ive"),
      ("biliti", "ble"), ("fulli", "ful"),
    ]
    for (suffix, replacement) in rules {
      guard let stem = word.dropping(suffix) else { continue }
      return measure(stem) > 0 ? stem + replacement.utf8 : word
    }
    // The l stays with the stem, so that *geology* is treated as *archaeology* is.
    if word.dropping("logi") != nil, measure(word.dropLast(3)) > 0 { return word.dropLast() }
    return word
  }

  /// Step 3.
  private static func adjectival(_ word: Word) -> Word {
    let rules = [
      ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"),
      ("ful", ""), ("ness", ""),
    ]
    return replace(word, rules) { measure($0) > 0 }
  }

  /// Step 4.
  private static func bareSuffix(_ word: Word) -> Word {
    let suffixes = [
      "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
      "ism", "ate", "iti", "ous", "ive", "ize",
    ]
    for suffix in suffixes {
      guard let stem = word.dropping(suffix) else { continue }
      let isAllowed = suffix != "ion" || stem.last.map { "st".utf8.contains($0) } ?? false
      return measure(stem) > 1 && isAllowed ? stem : word
    }
    return word
  }

  /// Step 5a.
  private static func finalE(_ word: Word) -> Word {
    guard let stem = word.dropping("e") else { return word }
    let measure = measure(stem)
    return measure > 1 || (measure == 1 && !endsInShortSyllable(stem)) ? stem : word
  }

  /// Step 5b.
  private static func finalL(_ word: Word) -> Word {
    word.dropping("ll") != nil && measure(word.dropLast()) > 1 ? word.dropLast() : word
  }

  /// The first suffix that fits decides, whether its condition on the stem holds or not.
  private static func replace(
    _ word: Word, _ rules: [(String, String)], if condition: (Word) -> Bool
  ) -> Word {
    for (suffix, replacement) in rules {
      guard let stem = word.dropping(suffix) else { continue }
      return condition(stem) ? stem + replacement.utf8 : word
    }
    return word
  }

  // MARK: Conditions

  /// For each letter whether it is a consonant: not a, e, i, o, u, nor a y after a consonant.
  private static func consonants(_ word: Word) -> [Bool] {
    var flags: [Bool] = []
    for letter in word {
      switch letter {
      case UInt8(ascii: "y"): flags.append(!(flags.last ?? false))
      default: flags.append(!"aeiou".utf8.contains(letter))
      }
    }
    return flags
  }

  /// The paper's m: how often a consonant follows a vowel.
  private static func measure(_ word: Word) -> Int {
    let flags = consonants(word)
    return zip(flags, flags.dropFirst()).count { !$0 && $1 }
  }

  private static func hasVowel(_ word: Word) -> Bool { consonants(word).contains(false) }

  private static func endsInDoubleConsonant(_ word: Word) -> Bool {
    word.count >= 2 && word[word.count - 1] == word[word.count - 2]
      && consonants(word).last == true
  }

  /// The paper's *o: consonant, vowel, consonant other than w, x and y (-hop, -wil); also a word of
  /// only a vowel and a consonant.
  private static func endsInShortSyllable(_ word: Word) -> Bool {
    let flags = consonants(word)
    if word.count == 2 { return flags == [false, true] }
    guard word.count >= 3, let last = word.last else { return false }
    return flags.suffix(3) == [true, false, true] && !"wxy".utf8.contains(last)
  }
}

extension [UInt8] {
  /// What stands before a suffix; nil where the word does not end in it.
  fileprivate func dropping(_ suffix: String) -> [UInt8]? {
    let length = suffix.utf8.count
    guard count >= length, self[(count - length)...].elementsEqual(suffix.utf8) else { return nil }
    return Array(self[..<(count - length)])
  }
}

extension [UInt8] {
  fileprivate func dropLast(_ count: Int = 1) -> [UInt8] {
    Array(prefix(Swift.max(0, self.count - count)))
  }
}
