public import Text

/// What tokenizer_config.json adds to tokenizer.json.
public struct TokenizerConfiguration: Sendable, Equatable {
  /// The text of the token that starts a document, if one is named.
  public let beginToken: String?
  /// The text of the token that ends a document.
  public let endToken: String?
  public let unknownToken: String?
  public let paddingToken: String?
  /// `nil` where the file does not say.
  public let addsBeginToken: Bool?
  public let addsEndToken: Bool?
  /// Whether the file holds a chat template.
  public let hasChatTemplate: Bool

  /// - Throws: when the document is no object, or a token is neither a string nor an object
  ///   with `content`.
  public init(json: JSON, name: String = "tokenizer_config.json") throws(TokenizerError) {
    let component = try Component(json, file: name, path: "")
    func token(_ key: String) throws(TokenizerError) -> String? {
      guard component.has(key) else { return nil }
      if component.object[key]?.object != nil { return try component.child(key).string("content") }
      return try component.string(key)
    }
    func flag(_ key: String) throws(TokenizerError) -> Bool? {
      component.has(key) ? try component.bool(key, default: false) : nil
    }
    beginToken = try token("bos_token")
    endToken = try token("eos_token")
    unknownToken = try token("unk_token")
    paddingToken = try token("pad_token")
    addsBeginToken = try flag("add_bos_token")
    addsEndToken = try flag("add_eos_token")
    hasChatTemplate = component.has("chat_template")
  }
}
