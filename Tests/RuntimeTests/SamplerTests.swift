import Foundation
import Runtime
import Tensors
import Testing

/// The definition: everything sorted, every filter in turn.
private struct PlainSampler {
  let settings: Sampler.Settings
  var random: Xoshiro256

  init(_ settings: Sampler.Settings) {
    self.settings = settings
    random = Xoshiro256(seed: settings.seed)
  }

  mutating func next(_ logits: [Float]) -> Int {
    var candidates = logits.indices.map { (id: $0, logit: logits[$0] / settings.temperature) }
    candidates.sort { $0.logit != $1.logit ? $0.logit > $1.logit : $0.id < $1.id }
    if settings.topK > 0 { candidates = Array(candidates.prefix(settings.topK)) }
    var weights = candidates.map { exp(Double($0.logit - candidates[0].logit)) }
    if settings.topP < 1 {
      let total = weights.reduce(0, +)
      var sum = 0.0
      var kept = 0
      while kept < weights.count, sum < Double(settings.topP) * total {
        sum += weights[kept]
        kept += 1
      }
      weights = Array(weights.prefix(max(kept, 1)))
    }
    weights.removeAll { $0 < Double(settings.minP) }
    var draw = random.uniform() * weights.reduce(0, +)
    for (index, weight) in weights.enumerated() {
      draw -= weight
      if draw < 0 { return candidates[index].id }
    }
    return candidates[weights.count - 1].id
  }
}

@Test(arguments: [
  Sampler.Settings(temperature: 1), .init(temperature: 0.7, topP: 0.9),
  .init(temperature: 1.5, topK: 40), .init(temperature: 1, topK: 3, topP: 0.5),
  .init(temperature: 3, topP: 0.999), .init(temperature: 0.3, minP: 0.05),
  .init(temperature: 2, topP: 0.95, minP: 0.001), .init(temperature: 1, topK: 1),
  .init(temperature: 1, topK: 100_000, topP: 0.99),
])
func partialSelectionChoosesWhatSortingEverythingWould(settings: Sampler.Settings) {
  var random = Xoshiro256(seed: 5)
  for (count, spread) in [(7, 1.0), (300, 0.1), (5000, 2.0), (5000, 0.01), (20_000, 4.0)] {
    var settings = settings
    settings.seed = UInt64(count)
    var sampler = Sampler(settings), plain = PlainSampler(settings)
    for _ in 0..<6 {
      // Rounded, so that ties occur.
      let logits = (0..<count).map { _ in Float((random.normal() * spread * 16).rounded() / 16) }
      let id = logits.withUnsafeBufferPointer { sampler.next($0) }
      #expect(id == plain.next(logits), "\(count) logits, spread \(spread)")
    }
  }
}

@Test func repetitionPenaltyIsThatOfTransformers() {
  var logits: [Float] = [2, -2, 1, 0.5]
  Penalties(repetition: 2).apply(to: &logits, after: [0, 1, 0, 99, -3])
  #expect(logits == [1, -4, 1, 0.5])
}

@Test func presenceIsSubtractedOnceAndFrequencyForEachOccurrence() {
  var logits: [Float] = [2, -2, 1, 0.5]
  Penalties(presence: 0.5, frequency: 0.25).apply(to: &logits, after: [0, 1, 0, 0])
  #expect(logits == [2 - 0.5 - 0.75, -2 - 0.5 - 0.25, 1, 0.5])
}

@Test func penaltiesLookAtTheLastTokensOnly() {
  func penalized(_ last: Int) -> [Float] {
    var logits: [Float] = [1, 1, 1]
    Penalties(presence: 1, lastTokens: last).apply(to: &logits, after: [0, 1, 2])
    return logits
  }
  #expect(penalized(2) == [1, 0, 0])
  #expect(penalized(-1) == [0, 0, 0])
  #expect(penalized(0) == [1, 1, 1])
  #expect(!Penalties().isOn)
}

@Test func penaltiesChangeTheGreedyChoiceToo() {
  var sampler = Sampler(.init(penalties: .init(repetition: 3)))
  let id = [Float](arrayLiteral: 3, 2, 1).withUnsafeBufferPointer { sampler.next($0, after: [0]) }
  #expect(id == 1)
}

@Test func logProbabilitiesAreThoseOfASoftmax() {
  let logits: [Float] = [1, 3, 2, 3, -50]
  let entry = logits.withUnsafeBufferPointer { LogProbabilities($0, chosen: 2, top: 3) }
  let sum = logits.reduce(0.0) { $0 + exp(Double($1)) }
  #expect(abs(entry.chosen.logProbability - (2 - log(sum))) < 1e-12)
  #expect(entry.top.map(\.id) == [1, 3, 2])
  #expect(
    entry.top.allSatisfy { abs($0.logProbability - (Double(logits[$0.id]) - log(sum))) < 1e-12 })
  #expect(logits.withUnsafeBufferPointer { LogProbabilities($0, chosen: 0, top: 0) }.top.isEmpty)
}
