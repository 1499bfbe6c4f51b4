import CKernels
public import Models
package import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// How far a model's predictions are from a baseline's on the same text, token by token.
public struct Divergence: Sendable {
  /// KL(baseline ‖ model) at every scored position, nats.
  public let tokenKLs: [Double]
  /// Model's minus baseline's −log p of the true token, nats.
  public let tokenNLLDifferences: [Double]
  public let tokenNLLs: [Double]
  /// Whether both give the highest probability to the same token.
  public let sameTopFlags: [Bool]
  public let protocolName: String

  public var tokens: Int { tokenKLs.count }
  public var klMean: Double { Statistics.mean(tokenKLs) }
  public var klStandardError: Double { Statistics.standardError(tokenKLs) }
  /// Mean −log p of the true tokens under the model, nats per token.
  public var nll: Double { Statistics.mean(tokenNLLs) }
  public var perplexity: Double { exp(nll) }
  /// To first order, taking tokens as independent.
  public var perplexityStandardError: Double { perplexity * Statistics.standardError(tokenNLLs) }
  public var deltaNLL: Double { Statistics.mean(tokenNLLDifferences) }
  /// Of the paired differences: much smaller than that of either mean.
  public var deltaNLLStandardError: Double { Statistics.standardError(tokenNLLDifferences) }
  public var sameTop: Double { Statistics.mean(sameTopFlags.map { $0 ? 1 : 0 }) }
  public var sameTopStandardError: Double {
    Statistics.standardError(sameTopFlags.map { $0 ? 1 : 0 })
  }
  public func klPercentile(_ share: Double) -> Double {
    Statistics.percentile(share, ofSorted: tokenKLs.sorted())
  }

  /// - Parameters:
  ///   - baseline: the model to be like, or its cached logits for exactly this text and protocol.
  ///   - onProgress: `(tokens scored, tokens to score)` after every window.
  /// - Throws: `EvaluationError`, `ModelError`.
  public static func measure(
    _ model: LanguageModel, baseline: BaselineLogits, documents: [[Int]], textName: String,
    protocol evaluation: EvaluationProtocol, onProgress: (Int, Int) throws -> Void = { _, _ in }
  ) throws -> Divergence {
    let windows = try Perplexity.checkedWindows(model, documents, evaluation, textName)
    let vocabulary = model.configuration.vocabularySize
    guard baseline.vocabularySize == vocabulary else {
      throw EvaluationError.vocabulariesDiffer(vocabulary, baseline.vocabularySize)
    }
    let total = windows.reduce(0) { $0 + $1.scored }
    var rows: [Row] = []
    rows.reserveCapacity(total)
    let reader = baseline.reader()
    for window in windows {
      try reader.begin(window)
      let wanted = (window.firstScored - 1)..<(window.tokens.count - 1)
      try model.forEachLogits(of: Array(window.tokens.dropLast()), rows: wanted) { start, logits in
        let reference = try reader.logits(start..<(start + logits.rows))
        let targets = (0..<logits.rows).map { window.tokens[start + $0 + 1] }
        rows += compare(logits, reference, targets: targets)
      }
      try onProgress(rows.count, total)
    }
    guard rows.allSatisfy({ $0.kl.isFinite && $0.delta.isFinite }) else {
      throw EvaluationError.notFinite(model: model.checkpoint.path)
    }
    return Divergence(
      tokenKLs: rows.map(\.kl), tokenNLLDifferences: rows.map(\.delta), tokenNLLs: rows.map(\.nll),
      sameTopFlags: rows.map(\.sameTop), protocolName: evaluation.name)
  }

  package struct Row: Sendable {
    package var kl = 0.0, delta = 0.0, nll = 0.0, sameTop = false
  }

  package static func compare(_ logits: Tensor, _ reference: Tensor, targets: [Int]) -> [Row] {
    let columns = logits.columns
    return Parallel.map(logits.rows) { row in
      let p = reference.floats + row * columns, q = logits.floats + row * columns
      let result = pare_divergence(p, q, columns)
      let target = targets[row]
      let nll = result.log_sum_q - Double(q[target])
      return Row(
        kl: result.kl, delta: nll - (result.log_sum_p - Double(p[target])), nll: nll,
        sameTop: result.top_p == result.top_q)
    }
  }
}
