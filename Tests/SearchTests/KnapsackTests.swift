import Search
import Tensors
import Testing

/// All choices tried, one after another.
private func best(_ items: [[Knapsack.Option]], budget: Int) -> Double? {
  var least: Double?
  func visit(_ index: Int, _ size: Int, _ cost: Double) {
    guard size <= budget else { return }
    guard index < items.count else {
      least = min(least ?? .infinity, cost)
      return
    }
    for option in items[index] { visit(index + 1, size + option.size, cost + option.cost) }
  }
  visit(0, 0, 0)
  return least
}

@Test(arguments: 0..<40) func theChoiceIsTheBestOfAll(seed: UInt64) {
  var random = Xoshiro256(seed: seed)
  let items = (0..<1 + Int(random.uniform() * 6)).map { _ in
    (0..<1 + Int(random.uniform() * 4)).map { _ in
      Knapsack.Option(size: 1 + Int(random.uniform() * 20), cost: random.uniform())
    }
  }
  for budget in stride(from: 0, through: 120, by: 7) {
    let choice = Knapsack.solve(items, budget: budget)
    let expected = best(items, budget: budget)
    guard let choice, let expected else {
      #expect(choice == nil && expected == nil)
      continue
    }
    let chosen = zip(items, choice).map { $0[$1] }
    #expect(chosen.reduce(0) { $0 + $1.size } <= budget)
    #expect(abs(chosen.reduce(0) { $0 + $1.cost } - expected) < 1e-12)
  }
}

@Test func manyLayersOfFewSizesAreSolvedAtOnce() {
  var random = Xoshiro256(seed: 1)
  let items = (0..<224).map { index in
    let size = [16, 4, 64][index % 3] << 14
    return [2, 3, 4, 5, 6, 8].map { bits in
      Knapsack.Option(size: size * bits, cost: random.uniform() / Double(1 << bits))
    }
  }
  let budget = items.reduce(0) { $0 + $1[2].size }
  let choice = Knapsack.solve(items, budget: budget)
  let uniform = items.reduce(0) { $0 + $1[2].cost }
  #expect(choice.map { zip(items, $0).reduce(0) { $0 + $1.0[$1.1].cost } <= uniform } == true)
}
