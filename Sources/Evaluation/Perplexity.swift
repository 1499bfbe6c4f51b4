public import Models
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Perplexity of a text: the exponential of the mean negative log-likelihood per scored token.
public struct Perplexity: Sendable {
  /// −log p of every scored token, nats, in text order.
  public let tokenNLLs: [Double]
  public let protocolName: String
  /// Tokens of the text, scored or not.
  public let textTokens: Int
  public let textBytes: Int

  public var tokens: Int { tokenNLLs.count }
  /// Mean, nats per token.
  public var nll: Double { Statistics.mean(tokenNLLs) }
  /// Of the mean, taking tokens as independent.
  public var nllStandardError: Double { Statistics.standardError(tokenNLLs) }
  public var perplexity: Double { exp(nll) }
  /// Of the perplexity, to first order.
  public var perplexityStandardError: Double { perplexity * nllStandardError }
  /// Mean bits per token times tokens per byte of the text.
  public var bitsPerByte: Double {
    nll / log(2) * Double(textTokens) / Double(max(textBytes, 1))
  }

  /// - Parameters:
  ///   - documents: token ids, one list for each document (one in all for a stream).
  ///   - textBytes: bytes of the text the ids came from.
  ///   - onProgress: `(tokens scored, tokens to score)` after every window.
  /// - Throws: `EvaluationError`, `ModelError`.
  public static func measure(
    _ model: LanguageModel, documents: [[Int]], textBytes: Int, textName: String,
    protocol evaluation: EvaluationProtocol, onProgress: (Int, Int) throws -> Void = { _, _ in }
  ) throws -> Perplexity {
    let windows = try checkedWindows(model, documents, evaluation, textName)
    let total = windows.reduce(0) { $0 + $1.scored }
    var nlls: [Double] = []
    nlls.reserveCapacity(total)
    for window in windows {
      // The row that predicts token t is row t − 1.
      let rows = (window.firstScored - 1)..<(window.tokens.count - 1)
      try model.forEachLogits(of: Array(window.tokens.dropLast()), rows: rows) { start, logits in
        let sums = logits.logSumExpRows()
        for row in 0..<logits.rows {
          let target = window.tokens[start + row + 1]
          nlls.append(sums[row] - Double(logits.floats[row * logits.columns + target]))
        }
      }
      try onProgress(nlls.count, total)
    }
    guard nlls.allSatisfy(\.isFinite) else {
      throw EvaluationError.notFinite(model: model.checkpoint.path)
    }
    return Perplexity(
      tokenNLLs: nlls, protocolName: evaluation.name,
      textTokens: documents.reduce(0) { $0 + $1.count }, textBytes: textBytes)
  }

  static func checkedWindows(
    _ model: LanguageModel, _ documents: [[Int]], _ evaluation: EvaluationProtocol,
    _ textName: String
  ) throws -> [EvaluationProtocol.Window] {
    if let context = model.configuration.contextLength, evaluation.window > context {
      throw EvaluationError.windowBeyondContext(window: evaluation.window, context: context)
    }
    for document in documents { try model.checkTokens(document) }
    let windows = evaluation.windows(documents)
    guard !windows.isEmpty else { throw EvaluationError.nothingToScore(text: textName) }
    return windows
  }
}
