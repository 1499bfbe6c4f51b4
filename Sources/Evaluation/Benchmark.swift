public import Models
import Runtime
import Tensors

/// Speed of a model on this machine, as llama-bench measures it: a prompt of random ids, and apart
/// from it single tokens from an empty cache.
public struct Benchmark: Sendable {
  public struct Settings: Sendable {
    public var promptTokens = 512
    public var generateTokens = 128
    public var repeats = 5
    public var seed: UInt64 = 0
    /// Runs a little of the prompt first, so that pages, threads and clock rates are warm.
    public var warmsUp = true

    public init() {}
  }

  /// One figure of every round.
  public struct Samples: Sendable {
    public let values: [Double]
    public var median: Double { Statistics.percentile(0.5, ofSorted: values.sorted()) }
    public var least: Double { values.min() ?? 0 }
    public var greatest: Double { values.max() ?? 0 }
  }

  /// Tokens per second.
  public let prefill: Samples
  public let decode: Samples
  /// Seconds from a prompt's first token to the first new one.
  public let timeToFirstToken: Samples
  public let cacheBytes: Int

  /// - Parameter onProgress: `(rounds done, rounds)`.
  /// - Throws: `EvaluationError.windowBeyondContext` where the model's context is too short.
  public static func run(
    _ model: LanguageModel, _ settings: Settings, onProgress: (Int, Int) -> Void = { _, _ in }
  ) throws -> Benchmark {
    let longest = max(settings.promptTokens, settings.generateTokens)
    if let context = model.configuration.contextLength, longest > context {
      throw EvaluationError.windowBeyondContext(window: longest, context: context)
    }
    var random = Xoshiro256(seed: settings.seed)
    func ids(_ count: Int) -> [Int] {
      (0..<count).map { _ in Int.random(in: 0..<model.configuration.vocabularySize, using: &random)
      }
    }
    let prompt = ids(settings.promptTokens), text = ids(settings.generateTokens)
    let cache = model.cache(plannedLength: longest)
    let clock = ContinuousClock()
    /// Seconds until the logits of the last token are there.
    func read(_ tokens: [Int]) throws -> Double {
      let start = clock.now
      try model.forEachChunk(of: tokens, cache: cache) { first, hidden in
        guard first + hidden.rows == tokens.count else { return }
        _ = model.logits(hidden.rows((hidden.rows - 1)..<hidden.rows)).argmaxRows()
      }
      return (clock.now - start).inSeconds
    }

    if settings.warmsUp {
      _ = try read(Array(prompt.prefix(32)))
      cache.reset()
    }
    var prefill: [Double] = [], decode: [Double] = [], first: [Double] = []
    for round in 0..<settings.repeats {
      onProgress(round, settings.repeats)
      let seconds = try read(prompt)
      first.append(seconds)
      prefill.append(Double(prompt.count) / seconds)
      cache.reset()
      let start = clock.now
      for id in text {
        _ = model.logits(try model.hidden([id], cache: cache)).argmaxRows()
      }
      decode.append(Double(text.count) / (clock.now - start).inSeconds)
      cache.reset()
    }
    onProgress(settings.repeats, settings.repeats)
    return Benchmark(
      prefill: Samples(values: prefill), decode: Samples(values: decode),
      timeToFirstToken: Samples(values: first), cacheBytes: cache.residentBytes)
  }
}

extension LanguageModel {
  /// Bytes of weights that one token's pass reads: every matrix of the blocks and the head; of the
  /// embedding a single row, which is left out.
  public var weightBytesPerToken: Int {
    blocks.reduce(headProjection?.weight.storedBytes ?? 0) { sum, block in
      sum + block.linears.reduce(0) { $0 + $1.weight.storedBytes }
    } + head.storedBytes
  }
}
