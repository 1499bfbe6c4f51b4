import Text

/// One step from tokens back to text.
enum Decoder: Sendable {
  case byteLevel
  /// Turns the mark into a space, or into nothing in the first token.
  case metaspace([UInt8], dropsInFirst: Bool)
  case byteFallback
  case fuse
  case strip([UInt8], start: Int, stop: Int)
  case replace(Pattern, with: [UInt8], isOneCharacter: Bool)
  /// What `tokenizers` does when there is no decoder.
  case joinWithSpaces

  /// The steps of a `decoder` entry, sequences laid flat.
  static func read(_ component: Component) throws(TokenizerError) -> [Decoder] {
    switch try component.type() {
    case "Sequence":
      var steps: [Decoder] = []
      for child in try component.children("decoders") { steps += try read(child) }
      return steps
    case "ByteLevel": return [.byteLevel]
    case "Metaspace":
      let mark = try component.optionalBytes("replacement") ?? Array("▁".utf8)
      var drops = try component.bool("add_prefix_space", default: true)
      if component.has("prepend_scheme") {
        drops = try component.string("prepend_scheme") != "never"
      }
      return [.metaspace(mark, dropsInFirst: drops)]
    case "ByteFallback": return [.byteFallback]
    case "Fuse": return [.fuse]
    case "Strip":
      let start = try component.int("start")
      let stop = try component.int("stop")
      guard start >= 0, stop >= 0 else { throw component.wrong("start", "is negative") }
      return [.strip(try component.bytes("content"), start: start, stop: stop)]
    case "Replace":
      let literal = try component.child("pattern").object["String"]?.string
      return [
        .replace(
          try component.pattern(), with: try component.bytes("content"),
          isOneCharacter: literal?.unicodeScalars.count == 1)
      ]
    case let other: throw component.unsupported("the decoder `\(other)`")
    }
  }
}

/// Runs tokens through the decoding steps, keeping what a step must remember between tokens.
struct DecoderPipeline: Sendable {
  /// Some bytes of a token; steps that fuse tokens pass theirs on piece by piece.
  private struct Fragment {
    var bytes: [UInt8]
    var startsToken: Bool
    var endsToken: Bool
  }

  private struct Memory {
    var count = 0
    var isOpen = false
    var held: [UInt8] = []
  }

  private let steps: [Decoder]
  private var memories: [Memory]
  /// Whether fallback bytes are passed on as soon as they are whole characters, instead of
  /// judging a run of them together.
  private let isEager: Bool
  /// The decoded bytes so far; the caller may take them.
  var output: [UInt8] = []

  init(_ steps: [Decoder], isEager: Bool) {
    self.steps = steps
    self.isEager = isEager
    memories = [Memory](repeating: Memory(), count: steps.count)
  }

  mutating func push(_ token: [UInt8]) {
    run(Fragment(bytes: token, startsToken: true, endsToken: true), 0)
  }

  mutating func finish() {
    for step in steps.indices {
      switch steps[step] {
      case .byteLevel, .fuse:
        run(Fragment(bytes: [], startsToken: !memories[step].isOpen, endsToken: true), step + 1)
      case .byteFallback: flushBytes(step)
      default: break
      }
    }
  }

  private mutating func run(_ fragment: Fragment, _ step: Int) {
    guard step < steps.count else {
      output.append(contentsOf: fragment.bytes)
      return
    }
    switch steps[step] {
    case .byteLevel:
      fuse(ByteLevelAlphabet.decoded(fragment.bytes) ?? fragment.bytes, step)
    case .fuse: fuse(fragment.bytes, step)
    case .joinWithSpaces:
      var next = fragment
      if next.startsToken, memories[step].isOpen { next.bytes.insert(UInt8(ascii: " "), at: 0) }
      memories[step].isOpen = true
      run(next, step + 1)
    case .metaspace(let mark, let dropsInFirst):
      if fragment.startsToken { memories[step].count += 1 }
      var next = fragment
      next.bytes = Self.replacing(
        mark, in: fragment.bytes, with: dropsInFirst && memories[step].count == 1 ? [] : [0x20])
      run(next, step + 1)
    case .byteFallback:
      if fragment.startsToken, fragment.endsToken, let byte = ByteFallback.byte(fragment.bytes) {
        memories[step].held.append(byte)
        if isEager, UTF8Sequence.isValid(memories[step].held) { flushBytes(step) }
      } else {
        flushBytes(step)
        run(fragment, step + 1)
      }
    case .strip(let content, let start, let stop):
      strip(fragment, content, start, stop, step)
    case .replace(let pattern, let content, let isOneCharacter):
      guard let whole = isOneCharacter ? fragment : wholeToken(fragment, step) else { return }
      var next = whole
      next.bytes = pattern.replacing(in: whole.bytes, with: content)
      run(next, step + 1)
    }
  }

  private mutating func fuse(_ bytes: [UInt8], _ step: Int) {
    let isFirst = !memories[step].isOpen
    memories[step].isOpen = true
    run(Fragment(bytes: bytes, startsToken: isFirst, endsToken: false), step + 1)
  }

  /// A run of fallback bytes that is not UTF-8 becomes one U+FFFD per byte.
  private mutating func flushBytes(_ step: Int) {
    let held = memories[step].held
    if held.isEmpty { return }
    memories[step].held = []
    if UTF8Sequence.isValid(held) {
      run(Fragment(bytes: held, startsToken: true, endsToken: true), step + 1)
    } else {
      for _ in held {
        run(
          Fragment(bytes: [0xEF, 0xBF, 0xBD], startsToken: true, endsToken: true), step + 1)
      }
    }
  }

  private mutating func strip(
    _ fragment: Fragment, _ content: [UInt8], _ start: Int, _ stop: Int, _ step: Int
  ) {
    guard var next = stop == 0 ? fragment : wholeToken(fragment, step) else { return }
    if next.startsToken { memories[step].count = 0 }
    while memories[step].count < start, !content.isEmpty, next.bytes.starts(with: content) {
      next.bytes.removeFirst(content.count)
      memories[step].count += 1
    }
    if !next.bytes.isEmpty { memories[step].count = start }
    for _ in 0..<stop {
      guard !content.isEmpty, next.bytes.count >= content.count,
        next.bytes.suffix(content.count).elementsEqual(content)
      else { break }
      next.bytes.removeLast(content.count)
    }
    run(next, step + 1)
  }

  /// Collects the fragments of a token; `nil` until its end.
  private mutating func wholeToken(_ fragment: Fragment, _ step: Int) -> Fragment? {
    if fragment.startsToken, fragment.endsToken { return fragment }
    memories[step].held += fragment.bytes
    guard fragment.endsToken else { return nil }
    defer { memories[step].held = [] }
    return Fragment(bytes: memories[step].held, startsToken: true, endsToken: true)
  }

  private static func replacing(
    _ mark: [UInt8], in bytes: [UInt8], with replacement: [UInt8]
  ) -> [UInt8] {
    guard let first = mark.first, bytes.contains(first) else { return bytes }
    var output: [UInt8] = []
    var rest = bytes[...]
    while let next = rest.first {
      if next == first, rest.starts(with: mark) {
        output += replacement
        rest = rest.dropFirst(mark.count)
      } else {
        output.append(next)
        rest = rest.dropFirst()
      }
    }
    return output
  }
}
