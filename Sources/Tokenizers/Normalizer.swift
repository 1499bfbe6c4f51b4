import Text

/// One step that rewrites text before it is cut.
enum Normalizer: Sendable {
  case prepend([UInt8])
  case replace(Pattern, with: [UInt8])
  case form(NormalForm)
  case lowercase
  case strip(left: Bool, right: Bool)
  case stripAccents
  case precompiled(PrecompiledMap)
  case byteLevel
  /// SentencePiece's NMT clean-up of control characters and odd spaces.
  case nmt

  /// The steps of a `normalizer` entry, sequences laid flat.
  static func read(_ component: Component) throws(TokenizerError) -> [Normalizer] {
    switch try component.type() {
    case "Sequence":
      var steps: [Normalizer] = []
      for child in try component.children("normalizers") { steps += try read(child) }
      return steps
    case "Prepend": return [.prepend(try component.bytes("prepend"))]
    case "Replace":
      return [.replace(try component.pattern(), with: try component.bytes("content"))]
    case "NFC": return [.form(.nfc)]
    case "NFD": return [.form(.nfd)]
    case "NFKC": return [.form(.nfkc)]
    case "NFKD": return [.form(.nfkd)]
    case "Lowercase": return [.lowercase]
    case "Strip":
      return [
        .strip(
          left: try component.bool("strip_left", default: true),
          right: try component.bool("strip_right", default: true))
      ]
    case "StripAccents": return [.stripAccents]
    case "Precompiled":
      guard let bytes = Base64.decoded(try component.bytes("precompiled_charsmap")),
        let map = PrecompiledMap(bytes)
      else { throw component.wrong("precompiled_charsmap", "is not a SentencePiece map") }
      return [.precompiled(map)]
    case "ByteLevel": return [.byteLevel]
    case "Nmt": return [.nmt]
    case let other: throw component.unsupported("the normalizer `\(other)`")
    }
  }

  func normalized(_ text: [UInt8]) -> [UInt8] {
    switch self {
    case .prepend(let prefix): return text.isEmpty ? text : prefix + text
    case .replace(let pattern, let content): return pattern.replacing(in: text, with: content)
    case .form(let form): return form.normalized(text)
    case .lowercase: return Self.lowercased(text)
    case .strip(let left, let right): return Self.stripped(text, left: left, right: right)
    case .stripAccents:
      return Self.mapped(text) { scalar, output in
        if !ScalarKind.isAccent(scalar) { UTF8Sequence.append(scalar, to: &output) }
      }
    case .precompiled(let map): return map.normalized(text)
    case .byteLevel:
      var output: [UInt8] = []
      for byte in text { ByteLevelAlphabet.append(byte, to: &output) }
      return output
    case .nmt: return Self.mapped(text, Self.cleanUp)
    }
  }

  private static func lowercased(_ text: [UInt8]) -> [UInt8] {
    mapped(text) { scalar, output in
      if scalar < 0x80 {
        let isUpper = scalar >= 0x41 && scalar <= 0x5A
        output.append(UInt8(truncatingIfNeeded: isUpper ? scalar | 0x20 : scalar))
      } else if let mapping = Unicode.Scalar(scalar)?.properties.lowercaseMapping {
        output.append(contentsOf: mapping.utf8)
      }
    }
  }

  private static func stripped(_ text: [UInt8], left: Bool, right: Bool) -> [UInt8] {
    let scalars = String(decoding: text, as: UTF8.self).unicodeScalars
    var kept = scalars[...]
    if left { kept = kept.drop { ScalarKind.isWhitespace($0.value) } }
    while right, let last = kept.last, ScalarKind.isWhitespace(last.value) { kept.removeLast() }
    return Array(String(kept).utf8)
  }

  private static func cleanUp(_ scalar: UInt32, _ output: inout [UInt8]) {
    switch scalar {
    case 0x01...0x08, 0x0B, 0x0E...0x1F, 0x7F, 0x8F, 0x9F: break
    case 0x09, 0x0A, 0x0C, 0x0D, 0x1680, 0x200B...0x200F, 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD:
      output.append(0x20)
    default: UTF8Sequence.append(scalar, to: &output)
    }
  }

  private static func mapped(
    _ text: [UInt8], _ append: (UInt32, inout [UInt8]) -> Void
  ) -> [UInt8] {
    var output: [UInt8] = []
    output.reserveCapacity(text.count)
    text.withUnsafeBufferPointer { text in
      var index = 0
      while index < text.count {
        let length = UTF8Sequence.length(in: text, at: index)
        append(
          length == 0 ? 0xFFFD : UTF8Sequence.scalar(in: text, at: index, length: length), &output)
        index += max(1, length)
      }
    }
    return output
  }
}

extension Pattern {
  /// The text with every match replaced by `content`, literally.
  func replacing(in text: [UInt8], with content: [UInt8]) -> [UInt8] {
    var output: [UInt8] = []
    output.reserveCapacity(text.count + text.count / 4)
    text.withUnsafeBufferPointer { text in
      var copied = 0
      forEachMatch(in: text) { start, end in
        output.append(contentsOf: UnsafeBufferPointer(rebasing: text[copied..<start]))
        output.append(contentsOf: content)
        copied = end
      }
      output.append(contentsOf: UnsafeBufferPointer(rebasing: text[copied...]))
    }
    return output
  }
}
