import TestSupport
import Testing
import Tokenizers

/// The tokenizers of the shared models, against ids that Hugging Face's tokenizers 0.23.3 gives.
@Suite struct SharedModelTests {
  static let text = "Once upon a time, there was a little girl named Lily.\n\tShe said: \"Ünï 😀!\""

  @Test(
    .enabled(if: SharedFiles.exists("models/stories260K"), "needs ../shared/models/stories260K"))
  func stories260KEncodesAsHuggingFace() throws {
    let tokenizer = try Tokenizer(path: SharedFiles.path("models/stories260K/tokenizer.json"))
    try check(
      tokenizer,
      ids: [
        1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 13, 12, 437,
        260, 336, 467, 313, 198, 159, 416, 198, 178, 410, 243, 162, 155, 131, 443, 436,
      ], size: 512)
  }

  @Test(
    .enabled(
      if: SharedFiles.exists("models/babyllama-tok361"), "needs ../shared/models/babyllama-tok361"))
  func babyllamaEncodesAsHuggingFace() throws {
    let tokenizer = try Tokenizer(path: SharedFiles.path("models/babyllama-tok361/tokenizer.json"))
    try check(
      tokenizer,
      ids: [
        1, 259, 290, 265, 278, 260, 259, 274, 276, 263, 265, 259, 261, 259, 262, 266, 272, 260, 281,
        259, 262, 264, 260, 269, 260, 259, 273, 261, 268, 259, 261, 259, 270, 266, 262, 262, 270,
        260, 259, 277, 266, 269, 270, 259, 265, 261, 272, 260, 267, 259, 287, 266, 270, 271, 275,
        13, 12, 286, 264, 260, 259, 268, 261, 266, 267, 316, 259, 285, 198, 159, 265, 198, 178, 259,
        243, 162, 155, 131, 292, 285,
      ], size: 361)
  }

  private func check(_ tokenizer: Tokenizer, ids: [Int], size: Int) throws {
    #expect(try tokenizer.encode(Self.text) == ids)
    #expect(try tokenizer.decode(ids) == Array(Self.text.utf8))
    #expect(tokenizer.vocabularySize == size)
  }
}
