import Testing
import Text
import Tokenizers

/// Every scalar against checksums of what Hugging Face's tokenizers make of it.
@Suite struct SweepTests {
  static let golden = Golden.file("unicode")

  static let scalars = (UInt32(0)...0x10FFFF).compactMap { Unicode.Scalar($0) }

  /// Each scalar on a line of its own, between letters and marks.
  private static let marked: [UInt8] = {
    let before = Array("a\u{301}".utf8)
    let between = Array("\u{323}\u{301}".utf8)
    let after = Array("\u{308}\n".utf8)
    return scalars.flatMap { before + utf8($0) + between + utf8($0) + after }
  }()

  private static func names(_ key: String) -> [String] {
    golden[key]?.object?.keys.map { String(decoding: $0, as: UTF8.self) } ?? []
  }

  @Test func theSweepIsWhole() {
    #expect(Self.names("forms").count == 4)
    #expect(Self.names("patterns").count > 20)
    #expect(Self.names("components").count == 8)
  }

  @Test(arguments: zip(NormalForm.allCases, ["NFC", "NFD", "NFKC", "NFKD"]))
  func normalFormsOfEveryScalarAgree(_ form: NormalForm, _ name: String) {
    #expect(crc32(form.normalized(Self.marked)) == Self.golden["forms"]?[name]?.int)
  }

  @Test(arguments: names("patterns")) func patternsTakeTheSameScalars(_ source: String) throws {
    let pattern = try Pattern(source)
    let bytes = Self.scalars.flatMap(utf8)
    let members = pattern.matches(in: bytes).flatMap { bytes[$0] }
    #expect(crc32(members) == Self.golden["patterns"]?[source]?.int)
  }

  @Test(arguments: names("components")) func componentsTreatEveryScalarAlike(
    _ name: String
  ) throws {
    let isNormalizer = ["Lowercase", "StripAccents", "Nmt"].contains(name)
    let document: JSON = [
      isNormalizer ? "normalizer" : "pre_tokenizer": ["type": .string(Array(name.utf8))],
      "model": ["type": "BPE", "vocab": [:], "merges": []],
    ]
    let text =
      Array("a".utf8) + Self.scalars.flatMap { (scalar) -> [UInt8] in utf8(scalar) + [0x61] }
    let pieces = try Tokenizer(json: document).pieces(of: text)
    let joined = Array(pieces.joined(separator: [0x0A]))
    #expect(crc32(joined) == Self.golden["components"]?[name]?.int)
  }
}

/// The CRC-32 of zlib.
private func crc32(_ bytes: [UInt8]) -> Int {
  let table = (UInt32(0)..<256).map { byte in
    (0..<8).reduce(byte) { value, _ in value & 1 == 1 ? 0xEDB8_8320 ^ value >> 1 : value >> 1 }
  }
  return Int(~bytes.reduce(UInt32.max) { table[Int(UInt8(truncatingIfNeeded: $0) ^ $1)] ^ $0 >> 8 })
}

private func utf8(_ scalar: Unicode.Scalar) -> [UInt8] { Array(String(scalar).utf8) }
