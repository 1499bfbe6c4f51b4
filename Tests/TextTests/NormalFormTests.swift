import Testing
import Text

@Suite struct NormalFormTests {
  private func check(_ text: String, nfc: String, nfd: String, nfkc: String, nfkd: String) {
    for (form, expected) in [
      (NormalForm.nfc, nfc), (.nfd, nfd), (.nfkc, nfkc), (.nfkd, nfkd),
    ] {
      #expect(form.normalized(Array(text.utf8)) == Array(expected.utf8), "\(form)")
    }
  }

  @Test func theFourFormsDiffer() {
    check(
      "e\u{301}\u{FB01}", nfc: "\u{E9}\u{FB01}", nfd: "e\u{301}\u{FB01}", nfkc: "\u{E9}fi",
      nfkd: "e\u{301}fi")
    check(
      "\u{1E9B}\u{323}", nfc: "\u{1E9B}\u{323}", nfd: "\u{17F}\u{323}\u{307}", nfkc: "\u{1E69}",
      nfkd: "s\u{323}\u{307}")
  }

  @Test func hangulComposesByArithmetic() {
    check(
      "\u{1112}\u{1161}\u{11AB}\u{AC00}\u{11A8}", nfc: "\u{D55C}\u{AC01}",
      nfd: "\u{1112}\u{1161}\u{11AB}\u{1100}\u{1161}\u{11A8}", nfkc: "\u{D55C}\u{AC01}",
      nfkd: "\u{1112}\u{1161}\u{11AB}\u{1100}\u{1161}\u{11A8}")
  }

  @Test func marksAreOrderedByClassAndExclusionsStayApart() {
    check(
      "a\u{301}\u{323}", nfc: "\u{1EA1}\u{301}", nfd: "a\u{323}\u{301}", nfkc: "\u{1EA1}\u{301}",
      nfkd: "a\u{323}\u{301}")
    check(
      "\u{958}", nfc: "\u{915}\u{93C}", nfd: "\u{915}\u{93C}", nfkc: "\u{915}\u{93C}",
      nfkd: "\u{915}\u{93C}")
  }

  @Test(arguments: NormalForm.allCases) func aFormOfAFormIsItself(_ form: NormalForm) {
    let text = Array("Ａ①\u{212B}\u{1E9B}\u{323} \u{D55C}\u{301}\u{316}ｶﾞ½".utf8)
    let once = form.normalized(text)
    #expect(form.normalized(once) == once)
  }

  @Test(arguments: NormalForm.allCases) func illFormedBytesDoNotTrap(_ form: NormalForm) {
    for bytes in [[0xFF], [0x61, 0xCC], [0xCC, 0x81, 0xED, 0xA0, 0x80], [0xE1, 0x84]] as [[UInt8]] {
      let text = form.normalized(bytes)
      #expect(text == bytes || Array(String(decoding: text, as: UTF8.self).utf8) == text)
    }
    #expect(form.normalized([]) == [])
  }

  @Test func aDamagedCharacterMapIsRefusedOrHarmless() {
    #expect(PrecompiledMap([]) == nil)
    #expect(PrecompiledMap([1, 0, 0, 0, 0]) == nil)
    #expect(PrecompiledMap([0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]) == nil)
    #expect(PrecompiledMap([4, 0, 0, 0, 0, 0, 0, 0, 0xFF]) == nil)
    // A trie whose root points far outside.
    let wild = PrecompiledMap([4, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0x7F])
    #expect(wild?.normalized(Array("añ天".utf8)) == Array("añ天".utf8))
  }

  @Test func base64IsReadStrictly() {
    #expect(Base64.decoded(Array("aGVsbG8=".utf8)) == Array("hello".utf8))
    #expect(Base64.decoded(Array("aGVsbG8".utf8)) == Array("hello".utf8))
    #expect(Base64.decoded([]) == [])
    for bad in ["a", "aGVs bG8=", "aG=s", "é"] { #expect(Base64.decoded(Array(bad.utf8)) == nil) }
  }
}
