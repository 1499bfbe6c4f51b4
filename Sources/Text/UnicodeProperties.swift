/// The sets that `\p{…}`, `\s`, `\d` and `\w` name, from the standard library's properties.
enum UnicodeProperties {
  /// `White_Space`: what `\s` means in Oniguruma and `char::is_whitespace` in Rust.
  static let whitespace = CharacterSet([
    0x09...0x0D, 0x20...0x20, 0x85...0x85, 0xA0...0xA0, 0x1680...0x1680, 0x2000...0x200A,
    0x2028...0x2029, 0x202F...0x202F, 0x205F...0x205F, 0x3000...0x3000,
  ])
  static let decimalDigits = set(of: ["Nd"])
  /// What `char::is_numeric` of Rust knows, which is newer than the patterns' tables: what the
  /// `Digits` pre-tokenizer splits at.
  static let numeric = CharacterSet(
    scan { [.decimalNumber, .letterNumber, .otherNumber].contains($0.properties.generalCategory) })
  static let marks = set(of: ["Mn", "Mc", "Me"])
  static let alphabetic = CharacterSet(scan { isKnown($0) && $0.properties.isAlphabetic })
  static let word = alphabetic.union(marks).union(decimalDigits).union(set(of: ["Pc"]))

  /// `\w` outside brackets and `\p{Word}` in Oniguruma, which count the digits of Latin-1 too.
  static let wordOutsideBrackets = word.union(
    CharacterSet([0xB2...0xB3, 0xB9...0xB9, 0xBC...0xBE]))
  /// The marks of Unicode 9, the last that `StripAccents` of `tokenizers` knows.
  static let accents = set(of: ["Mn", "Mc", "Me"]).known(in: 9)
    .union(CharacterSet([0x1CF2...0x1CF3])).intersection(CharacterSet(0x111C9).inverted)
  /// ASCII punctuation and the `P` of Unicode 8, the last that `Punctuation` of `tokenizers` knows.
  static let punctuation = set(of: ["Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"]).known(in: 8)
    .union(
      CharacterSet([
        0x21...0x2F, 0x3A...0x40, 0x5B...0x60, 0x7B...0x7E, 0x166D...0x166D, 0x111C9...0x111C9,
      ]))
  static let hexadecimalDigits = CharacterSet([0x30...0x39, 0x41...0x46, 0x61...0x66])

  /// What `[:name:]` denotes.
  static func posixClass(_ name: String) -> CharacterSet? {
    switch name {
    case "alpha": alphabetic
    case "alnum": alphabetic.union(decimalDigits)
    case "upper": CharacterSet(scan { isKnown($0) && $0.properties.isUppercase })
    case "lower": CharacterSet(scan { isKnown($0) && $0.properties.isLowercase })
    case "digit": decimalDigits
    case "xdigit": hexadecimalDigits
    case "space": whitespace
    case "blank": set(of: ["Zs"]).union(CharacterSet(0x09))
    case "punct": set(of: ["Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So"])
    case "cntrl": set(of: ["Cc"])
    case "word": word
    case "ascii": CharacterSet([0...0x7F])
    default: nil
    }
  }

  /// The set a property name denotes: a general category, a script, or a few binary properties.
  /// Case, spaces, `_` and `-` do not matter, as in Oniguruma.
  static func named(_ name: String) -> CharacterSet? {
    var key = String(name.lowercased().filter { !" _-".contains($0) })
    for prefix in ["script=", "sc=", "generalcategory=", "gc="] where key.hasPrefix(prefix) {
      key.removeFirst(prefix.count)
    }
    switch key {
    case "any": return .all
    case "alphabetic", "alpha": return alphabetic
    case "whitespace", "space": return whitespace
    case "digit": return decimalDigits
    case "word": return wordOutsideBrackets
    case "ascii": return CharacterSet([0...0x7F])
    default: break
    }
    if let codes = longNames[key] ?? shortNames[key] { return set(of: codes) }
    return ScriptTable.ranges(named: key).map { CharacterSet($0).known(in: 16) }
  }

  // MARK: General categories

  private static let codes: [String] = [
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn",
  ]

  /// `l` → all of L, `lu` → Lu.
  private static let shortNames: [String: [String]] = {
    var names: [String: [String]] = ["lc": ["Lu", "Ll", "Lt"], "l&": ["Lu", "Ll", "Lt"]]
    for code in codes {
      names[code.lowercased()] = [code]
      names[String(code.lowercased().prefix(1)), default: []].append(code)
    }
    return names
  }()

  private static let longNames: [String: [String]] = [
    "letter": ["Lu", "Ll", "Lt", "Lm", "Lo"], "uppercaseletter": ["Lu"], "lowercaseletter": ["Ll"],
    "titlecaseletter": ["Lt"], "modifierletter": ["Lm"], "otherletter": ["Lo"],
    "mark": ["Mn", "Mc", "Me"], "nonspacingmark": ["Mn"], "spacingmark": ["Mc"],
    "number": ["Nd", "Nl", "No"], "decimalnumber": ["Nd"], "letternumber": ["Nl"],
    "othernumber": ["No"], "punctuation": ["Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"],
    "punct": ["Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po"], "symbol": ["Sm", "Sc", "Sk", "So"],
    "mathsymbol": ["Sm"], "currencysymbol": ["Sc"], "separator": ["Zs", "Zl", "Zp"],
    "spaceseparator": ["Zs"], "other": ["Cc", "Cf", "Cs", "Co", "Cn"], "control": ["Cc"],
    "cntrl": ["Cc"], "format": ["Cf"], "privateuse": ["Co"], "unassigned": ["Cn"],
  ]

  private static func set(of codes: [String]) -> CharacterSet {
    var isMember = [Bool](repeating: false, count: 256)
    for code in codes {
      if let index = Self.codes.firstIndex(of: code) { isMember[index] = true }
    }
    var ranges: [ClosedRange<UInt32>] = []
    for run in categoryRuns where isMember[Int(run.category)] { ranges.append(run.range) }
    return CharacterSet(ranges)
  }

  /// All scalars as runs of one category. Planes 4 to 13 hold nothing, so they are not asked.
  private static let categoryRuns: [(range: ClosedRange<UInt32>, category: UInt8)] = {
    var runs: [(range: ClosedRange<UInt32>, category: UInt8)] = []
    func extend(to range: ClosedRange<UInt32>, _ category: UInt8) {
      if let last = runs.last, last.category == category {
        runs[runs.count - 1].range = last.range.lowerBound...range.upperBound
      } else {
        runs.append((range, category))
      }
    }
    let unassigned = UInt8(codes.count - 1)
    let surrogate = UInt8(codes.count - 3)
    let privateUse = UInt8(codes.count - 2)
    for value in UInt32(0)...0x3FFFF {
      let scalar = Unicode.Scalar(value)
      extend(to: value...value, scalar.map(category) ?? surrogate)
    }
    extend(to: 0x40000...0xDFFFF, unassigned)
    for value in UInt32(0xE0000)...0xE0FFF {
      guard let scalar = Unicode.Scalar(value) else { continue }
      extend(to: value...value, category(of: scalar))
    }
    extend(to: 0xE1000...0xEFFFF, unassigned)
    extend(to: 0xF0000...0xFFFFD, privateUse)
    extend(to: 0xFFFFE...0xFFFFF, unassigned)
    extend(to: 0x100000...0x10FFFD, privateUse)
    extend(to: 0x10FFFE...0x10FFFF, unassigned)
    return runs
  }()

  private static func scan(_ isMember: (Unicode.Scalar) -> Bool) -> [ClosedRange<UInt32>] {
    var ranges: [ClosedRange<UInt32>] = []
    for value in UInt32(0)...0x3FFFF {
      guard let scalar = Unicode.Scalar(value), isMember(scalar) else { continue }
      if let last = ranges.last, last.upperBound + 1 == value {
        ranges[ranges.count - 1] = last.lowerBound...value
      } else {
        ranges.append(value...value)
      }
    }
    return ranges
  }

  /// Whether Unicode 16 has the scalar: the version of `tokenizers`, whatever the system's is.
  private static func isKnown(_ scalar: Unicode.Scalar) -> Bool {
    scalar.properties.age.map { $0.major <= 16 } ?? false
  }

  private static func category(of scalar: Unicode.Scalar) -> UInt8 {
    index(of: isKnown(scalar) ? scalar.properties.generalCategory : .unassigned)
  }

  private static func index(of category: Unicode.GeneralCategory) -> UInt8 {
    switch category {
    case .uppercaseLetter: 0
    case .lowercaseLetter: 1
    case .titlecaseLetter: 2
    case .modifierLetter: 3
    case .otherLetter: 4
    case .nonspacingMark: 5
    case .spacingMark: 6
    case .enclosingMark: 7
    case .decimalNumber: 8
    case .letterNumber: 9
    case .otherNumber: 10
    case .connectorPunctuation: 11
    case .dashPunctuation: 12
    case .openPunctuation: 13
    case .closePunctuation: 14
    case .initialPunctuation: 15
    case .finalPunctuation: 16
    case .otherPunctuation: 17
    case .mathSymbol: 18
    case .currencySymbol: 19
    case .modifierSymbol: 20
    case .otherSymbol: 21
    case .spaceSeparator: 22
    case .lineSeparator: 23
    case .paragraphSeparator: 24
    case .control: 25
    case .format: 26
    case .surrogate: 27
    case .privateUse: 28
    case .unassigned: 29
    @unknown default: 29
    }
  }
}

extension CharacterSet {
  /// The members that a version of Unicode already had.
  fileprivate func known(in version: Int) -> CharacterSet {
    CharacterSet(
      ranges.joined().compactMap { value in
        guard let age = Unicode.Scalar(value)?.properties.age, age.major <= version else {
          return nil
        }
        return value...value
      })
  }
}
