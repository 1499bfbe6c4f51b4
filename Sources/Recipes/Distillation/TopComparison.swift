import Checkpoints
import Distillation
import Models
public import Training

/// How far a model is from what a cache keeps of its teacher: the KL over the teacher's most probable
/// tokens and the rest as one, which is at most the KL over the vocabulary.
public struct TopComparison: Sendable {
  /// Nats per token.
  public let klMean: Double
  public let klStandardError: Double
  public let tokens: Int
  /// Tokens kept at each position.
  public let k: Int
  public let protocolName: String

  /// - Parameters:
  ///   - model, baseline: folders or GGUF files with one tokenizer.
  ///   - source: the text, document by document.
  ///   - window: tokens of a row; documents lie back to back and each sees only itself.
  ///   - cache: read, or made of the baseline if it is not there.
  ///   - top: tokens kept where it is made.
  /// - Throws: `DistillationError` where the cache is of another teacher, text or window.
  public static func measure(
    model path: String, baseline: String, source: DataSource, window: Int, cache: String, top: Int,
    onProgress: (Int) throws -> Void = { _ in }
  ) throws -> TopComparison {
    let (model, teacher) = (try LanguageModel.load(path), try LanguageModel.load(baseline))
    let encoder = try ExampleEncoder(
      tokenizer: try TrainingRun.tokenizer(model.checkpoint),
      beginToken: model.configuration.beginToken, endTokens: model.endTokens)
    let stream = try TrainingStream(
      try TrainingData([source], seed: 0, partBytes: max(1 << 16, 16 * window)), encoder: encoder,
      options: .init(rows: 4, length: window, mode: .packed, isShuffled: false, passes: 1),
      filler: model.endTokens.first ?? 0)
    if !FileProbe.exists(cache) {
      try TeacherCache.write(
        to: cache, teacher: teacher, stream: stream, batches: nil, settings: .init(k: top),
        onProgress: onProgress)
    }
    let result = try TopDivergence.measure(
      model,
      teacher: try CachedTeacher(
        CacheFile(path: cache), expected: CacheIdentity(teacher: teacher, stream: stream)),
      stream: stream, onProgress: onProgress)
    return TopComparison(
      klMean: result.mean, klStandardError: result.standardError, tokens: result.tokens,
      k: result.k, protocolName: result.protocolName)
  }
}
