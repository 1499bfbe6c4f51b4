import Text

/// Text and the pieces it is cut into, in order; what no piece covers has been removed.
struct Pieces {
  var text: [UInt8]
  var ranges: [Range<Int>]
  /// Whether the text starts where the whole input starts.
  let startsInput: Bool

  init(_ text: [UInt8], startsInput: Bool) {
    self.text = text
    self.startsInput = startsInput
    ranges = text.isEmpty ? [] : [0..<text.count]
  }

  /// Rewrites every piece into a new text.
  mutating func rewrite(
    extra: Int, _ body: (UnsafeBufferPointer<UInt8>, _ isFirst: Bool, inout [UInt8]) -> Void
  ) {
    var output: [UInt8] = []
    output.reserveCapacity(text.count + extra)
    var moved: [Range<Int>] = []
    moved.reserveCapacity(ranges.count)
    text.withUnsafeBufferPointer { text in
      for range in ranges {
        let start = output.count
        body(
          UnsafeBufferPointer(rebasing: text[range]), startsInput && range.lowerBound == 0, &output)
        moved.append(start..<output.count)
      }
    }
    text = output
    ranges = moved
  }
}

/// One step that cuts text into pieces no token reaches across.
enum PreTokenizer: Sendable {
  enum PrependScheme: Sendable { case always, first, never }

  case split(Pattern, SplitBehavior, isInverted: Bool)
  case metaspace([UInt8], PrependScheme, splits: Bool)
  case prefixSpace
  /// Spells each byte as a character of GPT-2's alphabet.
  case spellBytes

  /// The pattern of GPT-2's encoder, which `ByteLevel` cuts with.
  static let gpt2Pattern =
    #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

  /// Whether the last step of a `pre_tokenizer` entry is `ByteLevel`.
  static func endsInByteLevel(_ component: Component) throws(TokenizerError) -> Bool {
    guard try component.type() == "Sequence" else { return try component.type() == "ByteLevel" }
    guard let last = try component.children("pretokenizers").last else { return false }
    return try endsInByteLevel(last)
  }

  /// The steps of a `pre_tokenizer` entry, sequences laid flat.
  static func read(_ component: Component) throws(TokenizerError) -> [PreTokenizer] {
    func split(
      _ source: String, _ behavior: SplitBehavior, isInverted: Bool = false
    ) throws(TokenizerError) -> PreTokenizer {
      let pattern = try component.pattern { () throws(PatternError) in try Pattern(source) }
      return .split(pattern, behavior, isInverted: isInverted)
    }
    switch try component.type() {
    case "Sequence":
      var steps: [PreTokenizer] = []
      for child in try component.children("pretokenizers") { steps += try read(child) }
      return steps
    case "ByteLevel":
      var steps: [PreTokenizer] = []
      if try component.bool("add_prefix_space", default: true) { steps.append(.prefixSpace) }
      if try component.bool("use_regex", default: true) {
        steps.append(try split(gpt2Pattern, .isolated))
      }
      return steps + [.spellBytes]
    case "Split":
      return [
        .split(
          try component.pattern(), try SplitBehavior.read(component),
          isInverted: try component.bool("invert", default: false))
      ]
    case "Metaspace": return [try metaspace(component)]
    case "Digits":
      let isIndividual = try component.bool("individual_digits", default: false)
      let pattern = try component.pattern { () throws(PatternError) in try Pattern.numeric() }
      return [.split(pattern, isIndividual ? .isolated : .contiguous, isInverted: false)]
    case "Whitespace":
      return [try split(#"[\w\u200C\u200D]+|[^\w\u200C\u200D\s]+"#, .removed, isInverted: true)]
    case "WhitespaceSplit": return [try split(#"\s"#, .removed)]
    case "Punctuation":
      let behavior: SplitBehavior =
        component.has("behavior") ? try SplitBehavior.read(component) : .isolated
      return [try punctuation(component, behavior)]
    case "BertPreTokenizer":
      return [try split(#"\s"#, .removed), try punctuation(component, .isolated)]
    case "CharDelimiterSplit":
      let delimiter = try component.string("delimiter")
      let pattern = try component.pattern { () throws(PatternError) in
        try Pattern(literal: delimiter)
      }
      return [.split(pattern, .removed, isInverted: false)]
    case let other: throw component.unsupported("the pre-tokenizer `\(other)`")
    }
  }

  private static func punctuation(
    _ component: Component, _ behavior: SplitBehavior
  ) throws(TokenizerError) -> PreTokenizer {
    let pattern = try component.pattern { () throws(PatternError) in try Pattern.punctuation() }
    return .split(pattern, behavior, isInverted: false)
  }

  private static func metaspace(_ component: Component) throws(TokenizerError) -> PreTokenizer {
    let replacement = try component.optionalBytes("replacement") ?? Array("▁".utf8)
    var scheme = PrependScheme.always
    if component.has("prepend_scheme") {
      switch try component.string("prepend_scheme") {
      case "always": scheme = .always
      case "first": scheme = .first
      case "never": scheme = .never
      case let other: throw component.unsupported("the prepend scheme `\(other)`")
      }
    } else if try !component.bool("add_prefix_space", default: true) {
      scheme = .never
    }
    return .metaspace(replacement, scheme, splits: try component.bool("split", default: true))
  }

  // MARK: Cutting

  func apply(to pieces: inout Pieces) {
    switch self {
    case .split(let pattern, let behavior, let isInverted):
      behavior.split(&pieces, at: pattern, isInverted: isInverted)
    case .metaspace(let replacement, let scheme, let splits):
      Self.applyMetaspace(&pieces, replacement, scheme)
      if splits { Self.cut(&pieces, before: replacement) }
    case .prefixSpace:
      let space = UInt8(ascii: " ")
      if pieces.ranges.allSatisfy({ pieces.text[$0.lowerBound] == space }) { return }
      pieces.rewrite(extra: pieces.ranges.count) { piece, _, output in
        if piece.first != space { output.append(space) }
        output.append(contentsOf: piece)
      }
    case .spellBytes:
      pieces.rewrite(extra: pieces.text.count / 2) { piece, _, output in
        for byte in piece { ByteLevelAlphabet.append(byte, to: &output) }
      }
    }
  }

  private static func applyMetaspace(
    _ pieces: inout Pieces, _ replacement: [UInt8], _ scheme: PrependScheme
  ) {
    let space = UInt8(ascii: " ")
    pieces.rewrite(extra: pieces.text.count / 2) { piece, isFirst, output in
      let isWanted = scheme == .always || (scheme == .first && isFirst)
      if isWanted, piece.first != space, !piece.starts(with: replacement) {
        output.append(contentsOf: replacement)
      }
      for byte in piece {
        if byte == space { output.append(contentsOf: replacement) } else { output.append(byte) }
      }
    }
  }

  /// Starts a new piece at every occurrence of `mark`.
  private static func cut(_ pieces: inout Pieces, before mark: [UInt8]) {
    guard let first = mark.first else { return }
    var cut: [Range<Int>] = []
    cut.reserveCapacity(pieces.text.count / 5)
    pieces.text.withUnsafeBufferPointer { text in
      for range in pieces.ranges {
        var start = range.lowerBound
        var index = start + 1
        while index < range.upperBound {
          if text[index] == first, text[index..<range.upperBound].starts(with: mark) {
            cut.append(start..<index)
            start = index
          }
          index += 1
        }
        cut.append(start..<range.upperBound)
      }
    }
    pieces.ranges = cut
  }
}
