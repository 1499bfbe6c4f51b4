package import Tensors

/// The finalizer of SplitMix64, twice: for one seed a bijection of the number, in which nothing of
/// the seed's or the number's order is left.
package enum Mixer {
  package static func mixed(_ seed: UInt64, _ number: Int) -> UInt64 {
    finalized(finalized(seed) &+ UInt64(bitPattern: Int64(number)) &* 0x9e37_79b9_7f4a_7c15)
  }

  private static func finalized(_ word: UInt64) -> UInt64 {
    var z = word &+ 0x9e37_79b9_7f4a_7c15
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Fisher and Yates, as Durstenfeld wrote it: the same order for the same seed, whatever the
/// standard library's own shuffle becomes.
enum Shuffle {
  static func apply(to numbers: inout [UInt32], seed: UInt64) {
    var random = Xoshiro256(seed: seed)
    for last in stride(from: numbers.count - 1, to: 0, by: -1) {
      numbers.swapAt(last, Int(random.next(below: UInt64(last) + 1)))
    }
  }
}

extension Xoshiro256 {
  /// A number below `bound`. The high word of a product favours no number by more than
  /// `bound`/2⁶⁴, which nothing here could notice.
  package mutating func next(below bound: UInt64) -> UInt64 {
    next().multipliedFullWidth(by: bound).high
  }
}
