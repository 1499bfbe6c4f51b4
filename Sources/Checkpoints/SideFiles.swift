/// Which files beside the weights belong to a model and travel with it.
package enum SideFiles {
  private static let exact: Set<String> = [
    "config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "preprocessor_config.json", "processor_config.json",
  ]

  static func isKnown(_ name: String) -> Bool {
    exact.contains(name)
      || name.hasPrefix("tokenizer") && (name.hasSuffix(".json") || name.hasSuffix(".model"))
      || name.hasPrefix("chat_template.")
      || name.hasSuffix(".model")
      || ["LICENSE", "LICENCE", "NOTICE", "USE_POLICY"].contains { name.hasPrefix($0) }
  }

  /// Whether a file of this name belongs to a tokenizer, chat templates among it.
  package static func isTokenizer(_ name: String) -> Bool {
    isKnown(name) && name != "config.json" && name != "generation_config.json"
      && !name.contains("processor")
      && !["LICENSE", "LICENCE", "NOTICE", "USE_POLICY"].contains {
        name.hasPrefix($0)
      }
  }
}
