public import Models
import Tensors

/// How probable a teacher finds what a student wrote: mean log p per token of continuations, each
/// given its prompt. High and dull text can score well, so this is read beside `Distinct`.
public struct TeacherLikelihood: Sendable {
  /// A prompt and the text that follows it, in the teacher's tokens.
  public struct Continuation: Sendable, Equatable {
    public var prompt: [Int]
    public var tokens: [Int]

    public init(prompt: [Int], tokens: [Int]) {
      self.prompt = prompt
      self.tokens = tokens
    }
  }

  /// log p of every scored token, nats, one list for each text.
  public let tokenLogProbabilities: [[Double]]

  public var tokens: Int { tokenLogProbabilities.reduce(0) { $0 + $1.count } }

  /// Nats per token; 0 or less.
  public var mean: Double {
    tokenLogProbabilities.reduce(0) { $0 + $1.reduce(0, +) } / Double(max(tokens, 1))
  }

  /// Of the mean, taking texts, not tokens, as independent: of a ratio, to first order.
  public var standardError: Double {
    let texts = tokenLogProbabilities.filter { !$0.isEmpty }
    guard texts.count > 1 else { return 0 }
    let squares = texts.reduce(0.0) { sum, text in
      let residual = text.reduce(0, +) - mean * Double(text.count)
      return sum + residual * residual
    }
    let k = Double(texts.count)
    return (squares * k / (k - 1)).squareRoot() / Double(tokens)
  }

  public static let protocolName =
    "mean log p per token of the continuation under the teacher, given the prompt"

  /// A token with nothing before it is not scored.
  ///
  /// - Parameter onProgress: `(texts scored, texts to score)` after each.
  /// - Throws: `EvaluationError`, `ModelError`.
  public static func measure(
    teacher: LanguageModel, _ continuations: [Continuation],
    onProgress: (Int, Int) throws -> Void = { _, _ in }
  ) throws -> TeacherLikelihood {
    var result: [[Double]] = []
    for (index, continuation) in continuations.enumerated() {
      let text = continuation.prompt + continuation.tokens
      if let context = teacher.configuration.contextLength, text.count > context {
        throw EvaluationError.textBeyondContext(
          sample: index + 1, tokens: text.count, context: context)
      }
      try teacher.checkTokens(text)
      // The row that predicts token t is row t − 1.
      let first = max(continuation.prompt.count, 1)
      var logProbabilities: [Double] = []
      if first < text.count {
        try teacher.forEachLogits(of: Array(text.dropLast()), rows: (first - 1)..<(text.count - 1))
        { start, logits in
          let sums = logits.logSumExpRows()
          for row in 0..<logits.rows {
            let target = text[start + row + 1]
            logProbabilities.append(
              Double(logits.floats[row * logits.columns + target]) - sums[row])
          }
        }
      }
      guard logProbabilities.allSatisfy(\.isFinite) else {
        throw EvaluationError.notFinite(model: teacher.checkpoint.path)
      }
      result.append(logProbabilities)
      try onProgress(index + 1, continuations.count)
    }
    guard result.contains(where: { !$0.isEmpty }) else {
      throw EvaluationError.nothingToScore(text: "The generated text")
    }
    return TeacherLikelihood(tokenLogProbabilities: result)
  }
}
