/// Documents kept from training to measure on: those whose numbers have the smallest hashes, spread
/// over all files, the same for the same seed.
public enum HeldOut: Sendable, Equatable {
  case none
  /// About this share of the documents, at least one.
  case share(Double)
  case count(Int)

  /// A choice made: a test for a document's number.
  struct Split: Sendable {
    var seed: UInt64
    /// The hashes below which a document is held out.
    var limit: UInt64

    func contains(_ number: Int) -> Bool { hash(number) < limit }
    fileprivate func hash(_ number: Int) -> UInt64 { Mixer.mixed(seed, number) }
  }

  func split(count: Int, seed: UInt64) throws(TrainingError) -> Split {
    // Another word than the one that orders epochs.
    var split = Split(seed: Mixer.mixed(seed, -1), limit: 0)
    switch self {
    case .none: return split
    case .share(let share):
      guard share > 0, share < 1 else {
        throw .badSetting("the share held out", value: "\(share)", expected: "between 0 and 1")
      }
      split.limit = UInt64(share * 0x1p64)
      let chosen = (0..<count).count { split.contains($0) }
      if chosen > 0, chosen < count { return split }
      return try Self.count(chosen == 0 ? 1 : count - 1).split(count: count, seed: seed)
    case .count(let wanted):
      guard wanted >= 1 else {
        throw .badSetting("the number held out", value: "\(wanted)", expected: "at least 1")
      }
      guard wanted < count else { throw .cannotHoldOut(documents: count) }
      // Hashes of one seed differ from each other, so exactly `wanted` lie below the next one.
      split.limit = (0..<count).map(split.hash).sorted()[wanted]
      return split
    }
  }
}
