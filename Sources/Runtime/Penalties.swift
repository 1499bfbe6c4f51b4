/// Makes tokens less likely that the text already has.
public struct Penalties: Sendable, Equatable {
  /// Divides a positive logit and multiplies a negative one (Keskar et al. 2019, arXiv:1909.05858,
  /// as in transformers); 1 changes nothing.
  public var repetition: Float = 1
  /// Subtracted once from the logit of every token that occurs (OpenAI's `presence_penalty`).
  public var presence: Float = 0
  /// Subtracted for every occurrence (OpenAI's `frequency_penalty`).
  public var frequency: Float = 0
  /// How many of the last tokens count, the prompt's included; negative for all.
  public var lastTokens = 64

  public init(
    repetition: Float = 1, presence: Float = 0, frequency: Float = 0, lastTokens: Int = 64
  ) {
    self.repetition = repetition
    self.presence = presence
    self.frequency = frequency
    self.lastTokens = lastTokens
  }

  public var isOn: Bool {
    lastTokens != 0 && (repetition != 1 || presence != 0 || frequency != 0)
  }

  /// - Parameters:
  ///   - logits: `[vocabulary]`
  ///   - history: all tokens before, the newest last; ids outside the vocabulary are passed over.
  public func apply(to logits: inout [Float], after history: [Int]) {
    guard isOn else { return }
    let window = lastTokens < 0 ? history[...] : history.suffix(lastTokens)
    var counts: [Int: Int] = [:]
    for id in window where logits.indices.contains(id) { counts[id, default: 0] += 1 }
    for (id, count) in counts {
      var logit = logits[id]
      if repetition != 1 { logit = logit < 0 ? logit * repetition : logit / repetition }
      logits[id] = logit - presence - frequency * Float(count)
    }
  }
}
