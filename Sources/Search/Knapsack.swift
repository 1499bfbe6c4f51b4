/// One choice for each item, of least total cost within a budget: the multiple-choice knapsack
/// problem, solved exactly.
///
/// Items are taken in turn; of all partial choices only those are kept that no other beats in both
/// size and cost (Nemhauser and Ullmann 1969). Layers of a model share few sizes, so few sums of sizes
/// differ, and the list stays short.
public enum Knapsack {
  public struct Option: Sendable, Equatable {
    public var size: Int
    public var cost: Double

    public init(size: Int, cost: Double) {
      self.size = size
      self.cost = cost
    }
  }

  private struct Partial {
    var size: Int
    var cost: Double
    /// In the list of the item before.
    var previous: Int
    var option: Int
  }

  /// - Parameters:
  ///   - items: at least one option each; costs are finite.
  ///   - budget: sum of sizes that may not be exceeded.
  /// - Returns: the option of each item; nil where not even the smallest fit. Of equal costs the
  ///   smaller sum wins.
  public static func solve(_ items: [[Option]], budget: Int) -> [Int]? {
    var least = [Int](repeating: 0, count: items.count + 1)
    for index in items.indices.reversed() {
      guard let smallest = items[index].map(\.size).min() else { return nil }
      least[index] = least[index + 1] + smallest
    }
    guard least[0] <= budget else { return nil }
    var levels: [[Partial]] = [[Partial(size: 0, cost: 0, previous: 0, option: 0)]]
    for (index, options) in items.enumerated() {
      var next: [Partial] = []
      for (position, partial) in levels[index].enumerated() {
        for (choice, option) in options.enumerated() {
          let size = partial.size + option.size
          guard size + least[index + 1] <= budget else { continue }
          next.append(
            Partial(
              size: size, cost: partial.cost + option.cost, previous: position, option: choice))
        }
      }
      next.sort {
        ($0.size, $0.cost, $0.previous, $0.option) < ($1.size, $1.cost, $1.previous, $1.option)
      }
      var kept: [Partial] = []
      for partial in next where kept.last.map({ partial.cost < $0.cost }) ?? true {
        kept.append(partial)
      }
      levels.append(kept)
    }
    // Costs fall along the list, so the last is the best.
    guard var position = levels.last.map({ $0.count - 1 }), position >= 0 else { return nil }
    var choices = [Int](repeating: 0, count: items.count)
    for index in items.indices.reversed() {
      let partial = levels[index + 1][position]
      choices[index] = partial.option
      position = partial.previous
    }
    return choices
  }
}
