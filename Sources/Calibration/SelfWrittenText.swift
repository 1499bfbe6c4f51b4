public import Models
import Runtime
import Tensors
import Training

/// Calibration text that the model writes itself, for when none is given (Liu et al. 2023, LLM-QAT,
/// arXiv:2305.17888, section 3.1): the first tokens of a text are drawn, the next few are the most
/// probable ones, the rest are sampled.
///
/// The paper draws the first token evenly from the vocabulary; we draw it as the model would begin a
/// text, since an even draw mostly finds byte and fragment tokens that begin no text.
public struct SelfWrittenText: Sendable {
  /// Tokens after the first that are taken greedily.
  public var greedyTokens = 4
  public var temperature: Float = 1
  public var seed: UInt64

  public init(seed: UInt64) { self.seed = seed }

  /// Texts that advance together.
  private static let together = 32

  /// Writes texts until there are as many tokens as `samples` times `length`; a text ends where the
  /// model ends it, or at `length`.
  ///
  /// - Parameter onProgress: told the tokens so far.
  /// - Throws: `CalibrationError`, and what running the model throws.
  public func write(
    _ model: LanguageModel, samples: Int, length: Int,
    onProgress: (_ tokens: Int, _ wanted: Int) throws -> Void = { _, _ in }
  ) throws -> CalibrationSet {
    try CalibrationSet.checkSizes(samples: samples, length: length)
    let context = model.configuration.contextLength ?? .max
    guard length <= context else {
      throw CalibrationError.badSetting(
        "--length", value: "\(length)", expected: "within the model's context of \(context)")
    }
    let begin = model.configuration.beginToken ?? model.endTokens.first ?? 0
    let wanted = samples * length
    var found: [CalibrationSet.Sample] = []
    var tokens = 0
    var round = 0
    while tokens < wanted {
      let count = min(Self.together, max(1, (wanted - tokens + length - 1) / length))
      let texts = try Self.texts(
        model, from: begin, count: count, length: length, greedy: greedyTokens,
        temperature: temperature, seed: Mixer.mixed(seed, round)
      ) { try onProgress(min(tokens + $0, wanted), wanted) }
      round += 1
      // A model that ends every text at once has nothing to say.
      guard texts.contains(where: { $0.count > 1 }) else {
        throw CalibrationError.tooLittleText(
          samples: 0, wanted: samples, length: length, source: "the model itself")
      }
      for text in texts where text.count > 1 && tokens < wanted {
        found.append(.init(tokens: text))
        tokens += text.count
      }
    }
    return CalibrationSet(
      samples: found, origin: "written by the model itself, temperature \(temperature)")
  }

  /// How long `write` will take, by the speed of a few tokens.
  public func estimatedSeconds(_ model: LanguageModel, samples: Int, length: Int) throws -> Double {
    let begin = model.configuration.beginToken ?? model.endTokens.first ?? 0
    let count = min(Self.together, samples)
    let caches = (0..<count).map { _ in model.cache(plannedLength: 8) }
    let clock = ContinuousClock()
    var fastest = Double.infinity
    for _ in 0..<3 {
      let start = clock.now
      _ = model.logits(try model.hidden(caches.map { (tokens: [begin], cache: $0) }))
      fastest = min(fastest, (clock.now - start).inSeconds)
    }
    return fastest * Double(samples * length) / Double(count)
  }

  private static func texts(
    _ model: LanguageModel, from begin: Int, count: Int, length: Int, greedy: Int,
    temperature: Float, seed: UInt64, onProgress: (Int) throws -> Void
  ) throws -> [[Int]] {
    var texts = [[Int]](repeating: [begin], count: count)
    let caches = texts.map { _ in model.cache(plannedLength: length) }
    var free = texts.indices.map {
      Sampler(.init(temperature: temperature, seed: Mixer.mixed(seed, $0)))
    }
    var greedySampler = Sampler(.init())
    var live = Array(texts.indices)
    while !live.isEmpty {
      let hidden = try model.hidden(
        live.map { (tokens: [texts[$0][texts[$0].count - 1]], cache: caches[$0]) })
      let logits = model.logits(hidden)
      var going: [Int] = []
      for (row, text) in live.enumerated() {
        let values = UnsafeBufferPointer(
          start: logits.floats + row * logits.columns, count: logits.columns)
        let place = texts[text].count
        let id =
          place > 1 && place <= 1 + greedy ? greedySampler.next(values) : free[text].next(values)
        if model.endTokens.contains(id) { continue }
        texts[text].append(id)
        if texts[text].count < length { going.append(text) }
      }
      live = going
      try onProgress(texts.reduce(0) { $0 + $1.count })
    }
    return texts
  }
}
