/// A partition of all scalars into the fewest classes that no set of a list tells apart.
///
/// A two-level table: pages of 256 scalars, equal pages stored once.
struct ScalarClasses: Sendable {
  private(set) var pageOfBlock: [UInt16] = []
  private(set) var pages: [UInt8] = []
  /// One class number per ASCII byte.
  private(set) var ascii: [UInt8] = []
  private(set) var count = 0
  /// `membership[class][set]`
  private(set) var membership: [[Bool]] = []

  /// `nil` when there would be more than 255 classes.
  init?(_ sets: [CharacterSet]) {
    var starts: Set<UInt32> = [0]
    for range in sets.flatMap(\.ranges) {
      starts.insert(range.lowerBound)
      if range.upperBound < 0x10FFFF { starts.insert(range.upperBound + 1) }
    }
    let bounds = starts.sorted()
    var classes: [[Bool]: Int] = [:]
    var flat = [UInt8](repeating: 0, count: 0x110000)
    // One cursor per set: the intervals come in order, so each set is walked once.
    var cursors = [Int](repeating: 0, count: sets.count)
    for (index, low) in bounds.enumerated() {
      var isMember = [Bool](repeating: false, count: sets.count)
      for (setIndex, set) in sets.enumerated() {
        while cursors[setIndex] < set.ranges.count,
          set.ranges[cursors[setIndex]].upperBound < low
        { cursors[setIndex] += 1 }
        isMember[setIndex] =
          cursors[setIndex] < set.ranges.count && set.ranges[cursors[setIndex]].contains(low)
      }
      let number: Int
      if let known = classes[isMember] {
        number = known
      } else {
        number = classes.count
        guard number < 255 else { return nil }
        classes[isMember] = number
        membership.append(isMember)
      }
      let high = index + 1 < bounds.count ? Int(bounds[index + 1]) : 0x110000
      if number != 0 {
        for scalar in Int(low)..<high { flat[scalar] = UInt8(number) }
      }
    }
    count = classes.count
    ascii = Array(flat[0..<128])
    var known: [ArraySlice<UInt8>: UInt16] = [:]
    for block in 0..<0x1100 {
      let page = flat[block * 256..<block * 256 + 256]
      if let number = known[page] {
        pageOfBlock.append(number)
      } else {
        let number = UInt16(known.count)
        known[page] = number
        pages.append(contentsOf: page)
        pageOfBlock.append(number)
      }
    }
  }
}
