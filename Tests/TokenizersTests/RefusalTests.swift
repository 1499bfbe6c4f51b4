import Foundation
import TestSupport
import Testing
import Text
import Tokenizers

@Suite struct RefusalTests {
  /// A byte-pair document with some parts replaced.
  private func document(_ parts: String, model: String = "") -> [UInt8] {
    let model =
      model.isEmpty
      ? #"{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}"# : model
    return Array("{\(parts.isEmpty ? "" : parts + ",")\"model\":\(model)}".utf8)
  }

  private func error(_ bytes: [UInt8]) -> TokenizerError? {
    do throws(TokenizerError) {
      _ = try Tokenizer(bytes: bytes)
      return nil
    } catch {
      return error
    }
  }

  @Test(arguments: [
    (#""normalizer":{"type":"BertNormalizer"}"#, "the normalizer `BertNormalizer`"),
    (#""normalizer":{"type":"Sequence","normalizers":[{"type":"Odd"}]}"#, "the normalizer `Odd`"),
    (#""pre_tokenizer":{"type":"UnicodeScripts"}"#, "the pre-tokenizer `UnicodeScripts`"),
    (#""pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"behavior":"Odd"}"#, "the split"),
    (#""pre_tokenizer":{"type":"Metaspace","prepend_scheme":"odd"}"#, "the prepend scheme `odd`"),
    (#""decoder":{"type":"WordPiece"}"#, "the decoder `WordPiece`"),
    (#""decoder":{"type":"CTC"}"#, "the decoder `CTC`"),
    (#""post_processor":{"type":"Odd"}"#, "the post-processor `Odd`"),
    (
      #""post_processor":{"type":"TemplateProcessing","single":[],"special_tokens":{}}"#,
      "a template without its text"
    ),
    (
      #""post_processor":{"type":"TemplateProcessing","special_tokens":{},"#
        + #""single":[{"Sequence":{"id":"A"}},{"Sequence":{"id":"A"}}]}"#, "a template that repeats"
    ),
  ])
  func whatIsNotSupportedIsNamed(_ part: String, _ component: String) {
    guard case .unsupported(let file, let named) = error(document(part)) else {
      Issue.record("\(part) gives \(String(describing: error(document(part))))")
      return
    }
    #expect(file == "tokenizer.json")
    #expect(named.hasPrefix(component), "\(named)")
  }

  @Test(arguments: [
    (#"{"type":"WordPiece","vocab":{}}"#, "the model `WordPiece`"),
    (#"{"type":"WordLevel","vocab":{}}"#, "the model `WordLevel`"),
    (#"{"type":"BPE","dropout":0.1,"vocab":{},"merges":[]}"#, "`model.dropout`"),
  ])
  func modelsThatAreNotSupportedAreNamed(_ model: String, _ component: String) {
    guard case .unsupported(_, let named) = error(document("", model: model)) else {
      Issue.record("\(model) gives \(String(describing: error(document("", model: model))))")
      return
    }
    #expect(named.hasPrefix(component))
  }

  @Test func aPatternThatIsNotSupportedNamesConstructAndPlace() {
    let part =
      #""pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a)\\1"},"behavior":"Isolated"}"#
    #expect(
      error(document(part))?.description
        == "tokenizer.json: `pre_tokenizer.pattern`: the pattern `(a)\\1` uses a back-reference "
        + "`\\1`, which is not supported")
  }

  @Test func aMergeOutsideTheVocabularyIsNamed() {
    for (merge, token) in [("a c", "c"), ("b a", "ba")] {
      let model = #"{"type":"BPE","vocab":{"a":0,"b":1},"merges":["\#(merge)"]}"#
      #expect(
        error(document("", model: model))
          == .mergeOutsideVocabulary(file: "tokenizer.json", merge: 0, token: token))
    }
  }

  @Test(arguments: [
    #"{"type":"BPE","vocab":{"a":0,"b":99999999999999},"merges":[]}"#,
    #"{"type":"BPE","vocab":{"a":2147483648},"merges":[]}"#,
    #"{"type":"BPE","vocab":{"a":16777216},"merges":[]}"#,
    #"{"type":"BPE","vocab":{"a":-1},"merges":[]}"#,
    #"{"type":"BPE","vocab":{"a":0.5},"merges":[]}"#,
    #"{"type":"BPE","vocab":{"a":"0"},"merges":[]}"#,
    #"{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}"#,
    #"{"type":"BPE","vocab":[],"merges":[]}"#, #"{"type":"BPE","vocab":{}}"#,
    #"{"type":"BPE","vocab":{},"merges":["a"]}"#, #"{"type":"BPE","vocab":{},"merges":["a b c"]}"#,
    #"{"type":"BPE","vocab":{},"merges":[["a"]]}"#, #"{"type":"BPE","vocab":{},"merges":[1]}"#,
    #"{"type":"BPE","vocab":{},"merges":[],"unk_token":"?"}"#,
    #"{"type":"BPE","vocab":{},"merges":[],"fuse_unk":"yes"}"#,
    #"{"type":"Unigram","vocab":[]}"#, #"{"type":"Unigram","vocab":[["a"]]}"#,
    #"{"type":"Unigram","vocab":[["a",null]]}"#,
    #"{"type":"Unigram","vocab":[["a",0]],"unk_id":1}"#,
    #"{"type":"Unigram","vocab":[["a",0]],"unk_id":-1}"#, #"{"vocab":{}}"#, "[]", "null", "7",
  ])
  func aDamagedModelIsMalformed(_ model: String) {
    guard case .malformed(_, let field, _) = error(document("", model: model)) else {
      Issue.record("\(String(describing: error(document("", model: model))))")
      return
    }
    #expect(field.hasPrefix("model"))
  }

  @Test(arguments: [
    (#""added_tokens":[{"id":0,"content":"b"}]"#, "added_tokens[0].id"),
    (#""added_tokens":[{"id":1e15,"content":"c"}]"#, "added_tokens[0].id"),
    (#""added_tokens":[{"id":-3,"content":"c"}]"#, "added_tokens[0].id"),
    (#""added_tokens":[{"id":3}]"#, "added_tokens[0].content"),
    (#""added_tokens":[7]"#, "added_tokens[0]"), (#""added_tokens":{}"#, "added_tokens"),
    (#""normalizer":{}"#, "normalizer.type"), (#""normalizer":"NFC""#, "normalizer"),
    (#""normalizer":{"type":"Precompiled","precompiled_charsmap":"?"}"#, "normalizer.precompiled"),
    (#""normalizer":{"type":"Replace","pattern":{},"content":""}"#, "normalizer.pattern"),
    (#""pre_tokenizer":{"type":"Sequence"}"#, "pre_tokenizer.pretokenizers"),
    (#""decoder":{"type":"Strip","content":" ","start":-1,"stop":0}"#, "decoder.start"),
    (#""decoder":{"type":"Strip","content":" ","start":0,"stop":1e30}"#, "decoder.stop"),
    (
      #""post_processor":{"type":"BertProcessing","sep":["x"],"cls":["x",0]}"#, "post_processor.sep"
    ),
    (
      #""post_processor":{"type":"BertProcessing","sep":["x",77],"cls":["x",0]}"#, "post_processor"
    ),
  ])
  func aDamagedPartIsMalformed(_ part: String, _ place: String) {
    guard case .malformed(_, let field, _) = error(document(part)) else {
      Issue.record("\(part) gives \(String(describing: error(document(part))))")
      return
    }
    #expect(field.hasPrefix(place), "\(field)")
  }

  @Test func damagedJSONKeepsItsPlace() {
    for count in [0, 1, 20, 60] {
      let error = error(Array(document("").prefix(count)))
      guard case .notJSON = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      #expect(error?.description.contains("tokenizer.json") == true)
    }
  }

  @Test func invalidTextIsRefusedAtItsOffset() throws {
    let tokenizer = try Tokenizer(bytes: document(""))
    for bytes in [[0x61, 0xFF], [0x61, 0xC3], [0x61, 0xED, 0xA0, 0x80]] as [[UInt8]] {
      #expect(throws: TokenizerError.invalidText(offset: 1)) { try tokenizer.encode(bytes) }
    }
  }

  @Test func emptyTextIsOnlyWhatThePostProcessorAdds() throws {
    let tokenizer = try Tokenizer(
      bytes: document(#""post_processor":{"type":"BertProcessing","sep":["b",1],"cls":["a",0]}"#))
    #expect(try tokenizer.encode("") == [0, 1])
    #expect(try tokenizer.encode("", addSpecialTokens: false) == [])
    #expect(try tokenizer.decode([]) == [])
    #expect(try tokenizer.encode("abab") == [0, 2, 2, 1])
  }

  @Test func aUnigramWithoutUnknownTokenNamesTheCharacter() throws {
    let tokenizer = try Tokenizer(
      bytes: document("", model: #"{"type":"Unigram","vocab":[["a",-1]]}"#))
    #expect(try tokenizer.encode("aa") == [0, 0])
    #expect(throws: TokenizerError.noUnknownToken(piece: "é")) { try tokenizer.encode("aéa") }
  }

  @Test func filesThatCannotBeReadAreNamed() throws {
    try withTemporaryDirectory { folder in
      for path in ["\(folder)/absent.json", folder] {
        #expect {
          try Tokenizer(path: path)
        } throws: { error in
          guard case .unreadable(path, _) = error as? TokenizerError else { return false }
          return true
        }
      }
      let path = "\(folder)/tokenizer.json"
      try Data(document("")).write(to: URL(filePath: path))
      #expect(try Tokenizer(path: path).encode("ab") == [2])
    }
  }

  @Test func theConfigurationNamesItsTokens() throws {
    let text =
      #"{"bos_token":{"content":"<s>"},"eos_token":"</s>","unk_token":null,"#
      + #""add_bos_token":true,"chat_template":"x"}"#
    let json = try JSON.parse(Array(text.utf8), name: "tokenizer_config.json")
    let configuration = try TokenizerConfiguration(json: json)
    #expect(configuration.beginToken == "<s>")
    #expect(configuration.endToken == "</s>")
    #expect(configuration.unknownToken == nil)
    #expect(configuration.addsBeginToken == true)
    #expect(configuration.addsEndToken == nil)
    #expect(configuration.hasChatTemplate)
    #expect(throws: TokenizerError.self) { try TokenizerConfiguration(json: ["bos_token": 1]) }
    #expect(throws: TokenizerError.self) { try TokenizerConfiguration(json: []) }
  }
}
