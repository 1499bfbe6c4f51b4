import Foundation
import Models
import Runtime
import Tokenizers

/// Has a model continue prompts, some at a time.
struct Continuations {
  var model: LanguageModel
  var tokenizer: Tokenizer
  var maxTokens: Int
  var batchSize: Int
  var stops: [[UInt8]]
  /// Of the text with this number.
  var settings: (Int) -> Sampler.Settings

  /// Cuts documents into a prompt of some tokens and the rest, which is the reference, as long as a
  /// continuation may be at most. White space around a document is left out.
  static func split(
    _ text: [UInt8], separator: [UInt8], promptTokens: Int, maxTokens: Int, limit: Int,
    tokenizer: Tokenizer
  ) throws -> [GeneratedText] {
    var texts: [GeneratedText] = []
    for part in text.split(separator: separator) {
      guard texts.count < limit else { break }
      let ids = try tokenizer.encode(trimmed(part))
      let start = (ids.firstIndex { !tokenizer.isSpecial($0) } ?? ids.count) + promptTokens
      guard start < ids.count else { continue }
      let prompt = Array(ids[..<start])
      var reference = try TextStream(tokenizer, after: prompt)
      for id in ids[start...].prefix(maxTokens) { _ = try reference.push(id) }
      _ = reference.finish()
      texts.append(
        GeneratedText(
          prompt: try tokenizer.decode(prompt), references: [reference.text], promptIDs: prompt))
    }
    return texts
  }

  /// Fills in what the model writes.
  /// - Parameter onProgress: `(texts done, texts in all)` after every batch.
  /// - Returns: tokens generated.
  func run(_ texts: inout [GeneratedText], onProgress: (Int, Int) -> Void) throws -> Int {
    let generator = Generator(model: model)
    var tokens = 0
    // All prompts before the first is run, so that a bad one costs no time.
    for index in texts.indices {
      let ids = try texts[index].promptIDs ?? tokenizer.encode(texts[index].prompt)
      try generator.check(prompt: ids)
      texts[index].promptIDs = ids
    }
    for start in stride(from: 0, to: texts.count, by: batchSize) {
      let batch = start..<min(start + batchSize, texts.count)
      let prompts = batch.map { texts[$0].promptIDs ?? [] }
      var streams = try prompts.map { try TextStream(tokenizer, after: $0, stops: stops) }
      let results = try generator.generate(
        prompts: prompts, settings: batch.map(settings), maxTokens: maxTokens
      ) { number, id in
        _ = try streams[number].push(id)
        return !streams[number].isStopped
      }
      for (number, result) in results.enumerated() {
        _ = streams[number].finish()
        tokens += result.ids.count
        texts[start + number].prediction = streams[number].text
        // A stop text lies inside the ids, so these are not the text's any more.
        texts[start + number].predictionIDs = streams[number].isStopped ? nil : result.ids
      }
      onProgress(batch.upperBound, texts.count)
    }
    return tokens
  }

  private static func trimmed(_ text: ArraySlice<UInt8>) -> [UInt8] {
    func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }
    let start = text.drop(while: isSpace)
    return Array(start[..<((start.lastIndex { !isSpace($0) } ?? start.startIndex - 1) + 1)])
  }
}

/// A text as a teacher reads it, whose tokens may be others than the student's.
struct TeacherText {
  var tokenizer: Tokenizer
  /// Whether the student's ids mean the same to the teacher.
  var sharesTokens: Bool

  func ids(_ text: GeneratedText) throws -> (prompt: [Int], continuation: [Int]) {
    if sharesTokens, let prompt = text.promptIDs, let continuation = text.predictionIDs {
      return (prompt, continuation)
    }
    let prompt = try tokenizer.encode(text.prompt)
    var whole = try tokenizer.encode(text.prompt + text.prediction)
    // What the tokenizer puts behind every text was not generated.
    while let last = whole.last, tokenizer.isSpecial(last), whole.count > prompt.count {
      whole.removeLast()
    }
    // A token across the border belongs to the continuation.
    let shared = zip(prompt, whole).prefix { $0 == $1 }.count
    return (Array(whole[..<shared]), Array(whole[shared...]))
  }
}
