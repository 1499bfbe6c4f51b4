import Runtime
import Tensors
import Training

/// How prompts are continued for a student to learn from.
package struct ContinuationSettings: Sendable, Equatable {
  /// 0 takes the most probable token.
  package var temperature: Float = 0.9
  /// Keeps the k most probable tokens; 0 keeps all.
  package var topK = 0
  /// Keeps the fewest most probable tokens whose probabilities sum to at least this.
  package var topP: Float = 1
  package var maxNewTokens = 128
  /// First tokens that are the prompt of a text which has none of its own; at most half of it.
  package var promptTokens = 16
  /// Prompts taken of a batch; nil for one for each of its rows.
  package var prompts: Int?

  /// Defaults as in TRL's trainer of GKD: temperature 0.9, 128 new tokens.
  package init() {}

  /// - Throws: `badSetting` for a number out of range.
  package func validate() throws(DistillationError) {
    guard temperature >= 0, temperature.isFinite else {
      throw .badSetting(
        "the temperature of samples", value: "\(temperature)", expected: "at least 0")
    }
    guard topP > 0, topP <= 1 else {
      throw .badSetting("top-p of samples", value: "\(topP)", expected: "above 0 and at most 1")
    }
    for (name, value, least) in [
      ("top-k of samples", topK, 0), ("the number of new tokens", maxNewTokens, 1),
      ("the number of prompt tokens", promptTokens, 1), ("the number of prompts", prompts ?? 1, 1),
    ] where value < least {
      throw .badSetting(name, value: "\(value)", expected: "at least \(least)")
    }
  }

  func sampler(seed: UInt64) -> Sampler.Settings {
    .init(temperature: temperature, topK: topK, topP: topP, seed: seed)
  }
}

/// Tells the batches of one step apart, and derives from their place what is random about them: a
/// run that is resumed between two steps draws the same.
struct StepPlace: Sendable {
  private var step = -1
  private var index = 0

  /// Called once for each batch.
  mutating func advance(to step: Int) {
    index = step == self.step ? index + 1 : 0
    self.step = step
  }

  /// A seed for each of some texts of the present batch.
  func seeds(_ seed: UInt64, count: Int) -> [UInt64] {
    let batch = Mixer.mixed(Mixer.mixed(seed, step), index)
    return (0..<count).map { Mixer.mixed(batch, $0) }
  }

  /// Decides what a whole step does: in [0, 1), the same for all of its batches.
  func uniform(_ seed: UInt64) -> Double {
    var random = Xoshiro256(seed: Mixer.mixed(Mixer.mixed(seed, -1), step))
    return random.uniform()
  }

  /// Decides what is done with the present batch.
  func random(_ seed: UInt64) -> Xoshiro256 {
    Xoshiro256(seed: Mixer.mixed(Mixer.mixed(Mixer.mixed(seed, -2), step), index))
  }
}
